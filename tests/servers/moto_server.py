"""moto's S3 in a separate process, so that forks of the test process do not inherit its threads and sockets.

Contract: the process prints its port when it serves, and ends with its standard input, so also if the test process is
killed.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
from contextlib import closing
from pathlib import Path

_ROOT = Path(__file__).parents[2]


class MotoServer:
    """Serves on a free port of 127.0.0.1, accepts any keys and checks no signature; a context manager."""

    endpoint: str

    def __enter__(self) -> MotoServer:
        command = [sys.executable, "-m", "tests.servers.moto_server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            self.__exit__()
            raise RuntimeError("moto did not start; its reason is on standard error")
        self._authority = f"127.0.0.1:{port}"
        self.endpoint = f"http://{self._authority}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()  # closes its standard input, waits for its end

    def make_bucket(self, name: str) -> None:
        self._request("PUT", f"/{name}")

    def reset(self) -> None:
        """Forget all buckets."""
        self._request("POST", "/moto-api/reset")

    def _request(self, method: str, path: str) -> None:
        with closing(http.client.HTTPConnection(self._authority, timeout=60)) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            assert response.status == 200, response.read()


def _serve() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    _serve()
