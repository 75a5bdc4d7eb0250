"""Servers of the tests, each a context manager that stops what it started.

* ``scripted``: says exact bytes, in exact pieces, and keeps what it heard.
* ``proxy``: stands before a real server, counts requests, misbehaves where it is told to.
* ``misbehaving``: a proxy in a process of its own that does wrong to a share of all answers, by a seed.
* ``forward_proxy``: an HTTP proxy with CONNECT, as ``HTTP_PROXY`` names one.
* ``moto_server``: moto in a process of its own, for what rclone ignores (If-Match, storage classes, ...).
* ``tls``: a private certificate authority and a certificate for 127.0.0.1.
"""
