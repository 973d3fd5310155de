"""Other languages' toolchains: find them, install a client with their own package manager once, or say why not.

Invariant: a missing tool or registry skips a test with its reason, and a client that is there and fails never does.
"""

from __future__ import annotations

import fcntl
import functools
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .daemon import Daemon, environment

HERE = Path(__file__).resolve().parent
NODE = HERE / "node"
INSTALL_BOUND = 1800.0
RUN_BOUND = 300.0


def need(tool: str) -> str:
    """The tool's path; skips the test when it is not installed."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed here")
    return found


def chromium() -> str:
    """The browser's path; skips the tests when there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("Chromium is not installed here")
    return found


def install(what: str, *command: str, cwd: Path) -> None:
    """Run a package manager once; skips the test when it fails (no network, as a rule)."""
    reason = _install(command, cwd)
    if reason is not None:
        pytest.skip(f"{what} can't be installed here: {reason}")


def install_npm(what: str, cwd: Path) -> None:
    """What the lock file in `cwd` says, once for all who test: npm first removes what is there."""
    npm = need("npm")
    with (cwd / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _has_installed(cwd):
            install(what, npm, "ci", "--ignore-scripts", cwd=cwd)


def install_go(package: str) -> str:
    """The program that this package is, built once for all who test: that takes minutes, hence only for slow tests."""
    go, programs = need("go"), HERE / "go" / "bin"
    program = programs / package.partition("@")[0].rpartition("/")[2]
    programs.mkdir(exist_ok=True)
    with (programs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            install(program.name, "env", f"GOBIN={programs}", go, "install", package, cwd=programs)
    return str(program)


def _has_installed(cwd: Path) -> bool:
    """Whether the last `npm ci` went through: it writes this file at its end, and takes a minute each time."""
    installed, wanted = cwd / "node_modules" / ".package-lock.json", cwd / "package-lock.json"
    return installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime


@functools.cache
def _install(command: tuple[str, ...], cwd: Path) -> str | None:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_BOUND,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not end in {INSTALL_BOUND:.0f} s"
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-300:]


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a client to its end; its output. AssertionError with all it said when its status is not 0."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_BOUND,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def play(node: str, scenario: str, daemon: Daemon, source: Path, **env: str) -> dict[str, Any]:
    """Run one scenario of tus-js-client to its end and give back what it says about itself."""
    out = run(node, "scenarios.mjs", scenario, daemon.url, str(source), cwd=NODE, env=env)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    found["path"] = urlsplit(found["url"]).path if found.get("url") else None
    return found
