"""What a test asks of the command ``resumable``, of twistd, and of a daemon by a single request."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .daemon import BOUND, Daemon, environment, free_port, run_twistd


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


def ask(
    daemon: Daemon, method: str, path: str = "/files/", body: bytes = b"", **fields: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request on a connection of its own; a hook's answer need not look like ours."""
    link = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=BOUND)
    try:
        headers = {"Tus-Resumable": "1.0.0", **{name.replace("_", "-"): value for name, value in fields.items()}}
        link.request(method, path, body, headers)
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        link.close()


def refuse(
    *arguments: str,
    cwd: Path,
    daemonised: bool = False,
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
) -> str:
    """Start what must not start; the one line it says."""
    mode = [f"--pidfile={cwd / 'pid'}", f"--logfile={cwd / 'log'}"] if daemonised else ["-n", "--pidfile="]
    done = run_twistd(*mode, "resumable", *arguments, cwd=cwd, env=env, wrapper=wrapper)
    said = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode == 1, (done.returncode, said)
    assert len(said) == 1 and said[0].startswith("resumable: "), said
    return said[0]


#: What depends on the machine that the tests run on.
MACHINE = {"versions", "open files", "memory", "directory", "fsync", "clock", "free space"}


def findings(*flags: str, cwd: Path, env: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """All that doctor finds, as it says it in JSON."""
    done = command("doctor", "--json", *flags, cwd=cwd, env=env)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == any(each["level"] == "bad" for each in found), done.stdout + done.stderr
    assert all(each["advice"] for each in found if each["level"] != "ok")
    return found


def looked(*flags: str, cwd: Path, env: Mapping[str, str] | None = None) -> dict[str, tuple[str, str, str | None]]:
    """Level, what and advice by the name of each check, but of the machine's; the worst where one has several."""
    found = findings(*flags, cwd=cwd, env=env)
    order = ["ok", "skip", "warn", "bad"]
    found.sort(key=lambda each: order.index(each["level"]))
    return {
        each["check"]: (each["level"], each["what"], each["advice"]) for each in found if each["check"] not in MACHINE
    }


def listen() -> tuple[str, str]:
    return "--listen", f"tcp:{free_port()}:interface=127.0.0.1"
