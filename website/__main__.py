"""`python -m website`: write the site to build/docs; if something is broken, say what, and exit with 1."""

from __future__ import annotations

import sys

from website.building import build
from website.pages import ROOT
from website.staging import SiteError


def main() -> None:
    """Write the site."""
    try:
        print(build(ROOT / "build").relative_to(ROOT))
    except SiteError as error:
        sys.exit(f"the site cannot be built:\n{error}")


if __name__ == "__main__":
    main()
