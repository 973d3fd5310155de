"""Take all pictures anew: ``python -m tests.screenshots [NAME...]``; needs Chromium, node and npm.

Each module here whose name is in SHOTS has ``take(docs: Path) -> None``, which writes its PNG files there.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

SHOTS = ("page", "dashboard")
DOCS = Path(__file__).parents[2] / "docs"


def main(names: list[str]) -> int:
    """Take those of the modules with these names, or all; answers the status of the process."""
    unknown = set(names) - set(SHOTS)
    if unknown:
        print(f"there are no pictures of {', '.join(sorted(unknown))}; there are: {', '.join(SHOTS)}", file=sys.stderr)
        return 2
    for name in names or SHOTS:
        import_module(f"tests.screenshots.{name}").take(DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
