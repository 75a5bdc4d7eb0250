"""`python -m benchmarks.timeline`: draws docs/images/epoch-timeline.png, which the guide shows.

It is the trace of `s3torch bench --trace` with two workers and a local server. Its responses begin after 20 to 30 ms,
like those of S3, except two late ones. Few connections make a picture that can be read.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import RecordingProxy

_ROOT = Path(__file__).resolve().parent.parent
_PICTURE = _ROOT / "docs" / "images" / "epoch-timeline.png"
_OBJECTS, _SIZE = 240, 110 << 10
_late = {"/my-bucket/images/00143.jpg", "/my-bucket/images/00188.jpg"}


def main() -> None:
    """Draw it."""
    trace = _ROOT / "build" / "epoch.json"
    trace.parent.mkdir(exist_ok=True)
    with S3Server() as server, server.exported(), RecordingProxy(server.endpoint) as proxy:
        folder = server.make_bucket("my-bucket") / "images"
        folder.mkdir()
        for number in range(_OBJECTS):
            (folder / f"{number:05d}.jpg").write_bytes(random.randbytes(_SIZE))
        proxy.misbehave = _delay
        command = [
            "bench", "s3://my-bucket/images/", "--workers", "2", "--look-ahead", "12", "--trace", trace,
            "--plot", _PICTURE, "--endpoint-url", proxy.endpoint,
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "s3torchconnector", *command], check=True)


def _delay(request: ReceivedRequest) -> None:
    is_late = request.path in _late
    _late.discard(request.path)  # a second request for it is served in the usual time
    time.sleep(0.4 if is_late else random.uniform(0.02, 0.03))


if __name__ == "__main__":
    main()
