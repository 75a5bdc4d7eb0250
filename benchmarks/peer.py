"""The environment of the peer: the native connector in its own virtual environment."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.environments import Environment, variables

VERSION = "1.5.0"
# tenacity is what its extra "dcp" asks for.
_PACKAGES = (f"s3torchconnector=={VERSION}", f"s3torchconnectorclient=={VERSION}", "tenacity")
_ENVIRONMENT = Environment("s3torchconnector", VERSION, _PACKAGES, imports=("tenacity",))

environment = variables


def interpreter(folder: Path) -> Path:
    """The peer's interpreter below `folder`, which is created if needed.

    Raises:
        EnvironmentFault: the peer cannot be installed, or another version is found in its place.
    """
    return _ENVIRONMENT.interpreter(folder)


if __name__ == "__main__":
    print(interpreter(Path(sys.argv[1])))
