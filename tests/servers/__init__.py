"""Servers of the tests, each a context manager that stops what it started.

* ``scripted``: sends exact bytes, in exact pieces, and keeps the requests.
* ``proxy``: stands before a real server, records requests, and has the faults that a test asks for.
* ``misbehaving``: a proxy in a separate process that spoils a share of all responses, by a seed.
* ``forward_proxy``: an HTTP proxy with CONNECT, as ``HTTP_PROXY`` names one.
* ``moto_server``: moto in a separate process, for features that rclone ignores (If-Match, storage classes, ...).
* ``tls``: a private certificate authority and a certificate for 127.0.0.1.
"""
