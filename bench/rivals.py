"""Getting the servers that resumable is measured against, once, into ``bench/.cache``; one is itself, as it was before.

Changes when a rival does or its way of being installed. Invariant: one that cannot be had is left out with a reason and
never fails the run; an installed one is used without touching the network. What the package managers say goes to a log
file beside the install, never into a report.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load import LoadError

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
BEFORE = "91b451c"
"""The commit that the goals are measured against."""
BUILD_SECONDS = 1800.0

TUS_SERVER, FILE_STORE, S3_STORE, RUSTUS, TUSD = "2.4", "2.1", "2.0", "0.5.10", "v2.8.0"


class Unavailable(LoadError):
    """This server cannot be measured here, for the reason given."""


def _run(what: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} is not installed")
    print(f"installing {what} (once; {log})", flush=True)
    env = {**os.environ, **(environment or {})}
    with log.open("wb") as out:
        try:
            subprocess.run(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env, timeout=BUILD_SECONDS, check=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise Unavailable(f"{command[0]} could not install {what}") from error


def before() -> str:
    """Make resumable's tree at BEFORE ready and return that commit; Unavailable in a checkout without it."""
    tree = CACHE / "before"
    if not (tree / "resumable").exists():
        if shutil.which("git") is None:
            raise Unavailable("git is not installed")
        archive = CACHE / "before.tar"
        wanted = ["--output", str(archive), BEFORE, "resumable", "twisted"]
        CACHE.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(["git", "-C", str(HERE.parent), "archive", *wanted], capture_output=True)
        if made.returncode:
            raise Unavailable(f"this checkout has no commit {BEFORE}")
        shutil.unpack_archive(archive, tree)
        archive.unlink()
    asked = [sys.executable, "-c", "import resumable; print(resumable.__file__)"]
    env = {**os.environ, "PYTHONPATH": str(tree)}
    said = subprocess.run(asked, env=env, cwd=CACHE, capture_output=True, text=True).stdout.strip()
    if Path(said) != tree / "resumable/__init__.py":
        raise Unavailable(f"Python takes another resumable than that of {BEFORE}: {said}")
    return BEFORE


def tus_node() -> str:
    """Make @tus/server with @tus/file-store ready and return its version."""
    home = CACHE / "tus-node"
    package = home / "node_modules/@tus/server/package.json"
    if shutil.which("node") is None:
        raise Unavailable("node is not installed")
    if not package.exists() or not (home / "node_modules/@tus/file-store").exists():
        packages = [f"@tus/server@{TUS_SERVER}", f"@tus/file-store@{FILE_STORE}"]
        flags = ["--no-audit", "--no-fund", "--prefix", str(home)]
        _run("@tus/server", ["npm", "install", *flags, *packages], home / "install.log")
    shutil.copyfile(HERE / "tus-node.mjs", home / "tus-node.mjs")
    return str(json.loads(package.read_text())["version"])


def tus_node_s3() -> str:
    """Make @tus/server with @tus/s3-store ready and return its version."""
    version = tus_node()
    home = CACHE / "tus-node"
    if not (home / "node_modules/@tus/s3-store").exists():
        flags = ["--no-audit", "--no-fund", "--prefix", str(home)]
        _run("@tus/s3-store", ["npm", "install", *flags, f"@tus/s3-store@{S3_STORE}"], home / "install-s3.log")
    shutil.copyfile(HERE / "tus-node-s3.mjs", home / "tus-node-s3.mjs")
    return version


def rustus() -> str:
    """Make rustus ready, which takes minutes the first time, and return its version."""
    home = CACHE / "rustus"
    if not (home / "bin/rustus").exists():
        flags = ["--version", RUSTUS, "--locked", "--root", str(home)]
        command = ["cargo", "install", "rustus", *flags]
        _run("rustus", command, home / "build.log", {"CARGO_TARGET_DIR": str(home / "target")})
        shutil.rmtree(home / "target", ignore_errors=True)
    return RUSTUS


def has_tusd() -> bool:
    """Tell whether a tusd can be had without installing one."""
    return "TUSD" in os.environ or os.access(tusd_binary(), os.X_OK)


def tusd_binary() -> str:
    """Return where tusd is: what the variable TUSD names, else one on the PATH, else the one that Go installs."""
    return str(Path(os.environ.get("TUSD") or shutil.which("tusd") or CACHE / "tusd/tusd").absolute())


def tusd() -> str:
    """Make tusd ready and return its version."""
    binary = tusd_binary()
    if not os.access(binary, os.X_OK):
        if "TUSD" in os.environ:
            raise Unavailable(f"TUSD names no program: {binary}")
        home = CACHE / "tusd"
        command = ["go", "install", f"github.com/tus/tusd/v2/cmd/tusd@{TUSD}"]
        _run("tusd", command, home / "install.log", {"GOBIN": str(home)})
    said = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=30).stdout
    return next((line.split()[-1] for line in said.splitlines() if line.startswith("Version")), TUSD)
