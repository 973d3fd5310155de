"""The upload page, light, dark and on a phone: docs/page*.png."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.e2e import tools
from tests.e2e.daemon import Daemon
from tests.e2e.tus import pattern

BROWSER = tools.HERE / "browser"
SIZES = {"Iceland in June.mp4": 64_000_000, "thesis.pdf": 4_200_000, "songs.flac": 28_000_000, "garden.jpg": 3_100_000}


def take(docs: Path) -> None:
    """Write the pictures into ``docs``."""
    browser, node = tools.chromium(), tools.need("node")
    tools.install_npm("playwright-core", BROWSER)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        (home / "remote").mkdir()
        for name, size in SIZES.items():
            (home / name).write_bytes(pattern(1 << 20, seed=size) * (size >> 20) + bytes(size % (1 << 20)))
        with Daemon("--remote", f"file://{home}/remote", "--part-size", "5M", "--digest", "sha256") as daemon:
            daemon.start()
            tools.run(node, "page_shots.mjs", browser, daemon.origin, str(home), str(docs), cwd=BROWSER)
