"""The README's commands as they stand, pointed at a test's daemon.

Invariant: nothing but the address, the file and the size of the first part is different from what a reader pastes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .daemon import ROOT, Daemon

RUN_BOUND = 600.0


def curl_commands() -> str:
    """The shell block after ``<!-- run: curl -->``."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- run: curl -->\n+```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None, "the README has no block marked <!-- run: curl -->"
    return block[1]


def upload_with_curl(daemon: Daemon, source: Path, first_part: int) -> subprocess.CompletedProcess[str]:
    """Send ``source`` as the README does, ``first_part`` bytes first; give back what the reader would see.

    ``source`` must be called big.bin. Skips the test where curl is missing.
    """
    for tool in ("curl", "bash", "awk", "cmp"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed here")
    assert source.name == "big.bin"
    script, made = re.subn(r"^head -c \d+ /dev/urandom > big.bin\n", "", curl_commands(), flags=re.MULTILINE)
    script, cut = re.subn(r"head -c \d+ big.bin", f"head -c {first_part} big.bin", script)
    script, pointed = re.subn(r"http://127\.0\.0\.1:8080", daemon.origin, script)
    assert (made, cut, pointed) == (1, 1, 1), "the README's commands have changed: change this too"
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=source.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_BOUND,
        check=False,
    )
