"""The command ``resumable``, run to its end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .daemon import BOUND, environment


def command(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``resumable`` to its end; it never shows a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "resumable", *arguments],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done
