"""nginx as a fast, S3-shaped server.

One nginx with its own configuration in a temporary folder serves five ports; it is started by path, stopped
by process id and never touches the state of a system installation. Objects are files on /dev/shm, sent with
sendfile, so that the server costs as little of the shared cores as a server can.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

import trustme

PACKAGES = ("nginx-light", "libnginx-mod-http-lua")
PORTS = ("plain", "s3", "tls", "uploads", "listing")
_HERE = Path(__file__).parent
_MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
# A hundred files of one size stand for any number of small keys.
_SMALL = '"^/bench/small/[0-9]*([0-9][0-9])$"'
_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")


class ServerError(Exception):
    """The benchmark's servers cannot run here; the text says what to do."""


@dataclass(frozen=True)
class Servers:
    """Endpoints by name, and the certificate authority of the TLS one."""

    endpoints: dict[str, str]
    authority: Path
    nginx: str


@contextmanager
def running(objects: Path) -> Iterator[Servers]:
    """Serve the files below `objects` (bucket/key) while the block runs.

    Raises:
        ServerError: nginx or its Lua module is missing and cannot be installed, or nginx does not start.
    """
    nginx, modules = _find_or_install()
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        authority = _certificates(folder)
        config = folder / "nginx.conf"
        config.write_text(_configuration(folder, objects, modules, ports))
        process = subprocess.Popen(
            [nginx, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")],
            stdin=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the benchmark alone, which then stops nginx
        )
        try:
            _wait(process, ports, folder / "error.log")
            endpoints = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
            endpoints["tls"] = f"https://localhost:{ports['tls']}"
            yield Servers(endpoints, authority, _version(nginx))
        finally:
            process.terminate()  # nginx's fast shutdown: the workers go with the master
            process.wait(timeout=10)


def _find_or_install() -> tuple[str, list[Path]]:
    found = _find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        # RUNLEVEL=1 keeps the package from starting a system-wide nginx.
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        install = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *PACKAGES]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False)
        found = _find()
    if found is None:
        raise ServerError(
            f"nginx with its Lua module is missing; install it: sudo apt-get install {' '.join(PACKAGES)}"
        )
    return found


def _find() -> tuple[str, list[Path]] | None:
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    for folder in map(Path, _MODULE_FOLDERS):
        modules = [folder / module for module in _MODULES]
        if nginx and all(module.exists() for module in modules):
            return nginx, modules
    return None


def _version(nginx: str) -> str:
    return subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr.strip().rsplit("/")[-1]


def _free_ports(count: int) -> list[int]:
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


def _certificates(folder: Path) -> Path:
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    return folder / "authority.pem"


def _configuration(folder: Path, objects: Path, modules: list[Path], ports: dict[str, int]) -> str:
    template = Template((_HERE / "nginx.conf").read_text())
    return template.substitute(
        {name: str(port) for name, port in ports.items()},
        folder=folder,
        objects=objects,
        lua=_HERE,
        small=_SMALL,
        modules="\n".join(f"load_module {module};" for module in modules),
        user=f"user {getpass.getuser()};" if os.geteuid() == 0 else "",
    )


def _environment() -> dict[str, str]:
    # glibc gives large blocks back to the kernel, which zeroes them again for every uploaded part; keep them.
    return {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # it ignores more than that
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        "MALLOC_TOP_PAD_": str(64 << 20),
    }


def _wait(process: subprocess.Popen[bytes], ports: dict[str, int], log: Path) -> None:
    deadline = time.monotonic() + 20
    for port in ports.values():
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ServerError(f"nginx did not start: {log.read_text() if log.exists() else error}") from error
                time.sleep(0.02)
