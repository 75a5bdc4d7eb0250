"""``python -m tests.soak`` (``make soak``): reads and saves through the misbehaving proxy, for as long as you like.

Memory, threads, sockets and the bytes moved are sampled every second. At the end the lines must be flat: what may only
leak is held to its median of the second quarter, when everything that is kept has been made, in the last quarter.
"""
