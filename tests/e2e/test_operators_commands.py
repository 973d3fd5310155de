"""``resumable ls``, ``show``, ``retry``, ``rm``, ``hooks``, ``replay`` and ``drain`` with a real daemon.

The remote refuses what is under a foreign object's key.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .commands import BOUND, command
from .daemon import Daemon, environment, eventually, free_port
from .tus import Tus, holder, metadata, pattern

TOKEN = "operators-only-0123456789"


class Kept(Daemon):
    """A daemon with a directory as its remote, in which objects are named as clients say."""

    def __init__(self, home: Path) -> None:
        self.nas = home / "nas"
        self.nas.mkdir()
        (home / "token").write_text(TOKEN)
        self.token_file = home / "token"
        self.admin = f"http://127.0.0.1:{free_port()}"
        super().__init__(
            *("--remote", f"file://{self.nas}?name=nas&key={{metadata[name]}}"),
            *("--admin-listen", "socket", "--admin-token-file", str(self.token_file)),
            *("--admin-listen", f"tcp:{self.admin.rpartition(':')[2]}:interface=127.0.0.1"),
            *("--hook", f"far=http://127.0.0.1:{free_port()}/"),
        )

    def ask(self, *arguments: str, status: int = 0) -> str:
        """What the command says to whoever is in the directory above that of the uploads."""
        done = command(*arguments, cwd=self.home)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    def listed(self, *flags: str) -> dict[str, dict[str, Any]]:
        found = (json.loads(line) for line in self.ask("ls", "--json", *flags).splitlines())
        return {each["id"]: each for each in found}

    def sent(self, tus: Tus, name: str, size: int = 1000) -> str:
        """The id of a new upload."""
        path = tus.create(size, {"Upload-Metadata": metadata(name=name)}, pattern(size))
        return path.rsplit("/", 1)[1]

    def state(self, upload_id: str) -> str:
        return str(json.loads(self.ask("show", upload_id, "--json"))["replicas"][0]["state"])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with Kept(tmp_path_factory.mktemp("kept")) as daemon:
        daemon.start()
        yield daemon
        assert not daemon.complaints(), "\n".join(daemon.complaints())


@pytest.fixture
def client(kept: Kept) -> Iterator[Tus]:
    tus = Tus(kept.port)
    yield tus
    tus.close()


def test_a_replica_that_was_given_up_is_found_told_of_and_sent_on(kept: Kept, client: Tus) -> None:
    for name in ("taken", "taken-too"):
        (kept.nas / name).write_text("somebody else's")
    parked, other = kept.sent(client, "taken"), kept.sent(client, "taken-too")
    fine = kept.sent(client, "free")
    eventually(lambda: set(kept.listed("--parked")) == {parked, other})
    assert fine in kept.listed("--remote", "nas") and fine not in kept.listed("--parked", "--remote", "nas")

    lines = kept.ask("ls", "--parked").splitlines()
    assert len(lines) == 3 and lines[0].startswith("ID ")
    assert lines[1].split()[:5] == [parked, "finished", "1000", "B", "100%"] and "nas:parked" in lines[1]
    shown = kept.ask("show", parked)
    assert "metadata name" in shown and "nas" in shown and "error" in shown

    for name in ("taken", "taken-too"):
        (kept.nas / name).unlink()
    assert kept.ask("retry", parked, "--remote", "nas") == f"{parked}: 1 tried again\n"
    eventually(lambda: kept.state(parked) == "stored")
    assert (kept.nas / "taken").read_bytes() == pattern(1000)
    assert kept.ask("retry", "--all", "--remote", "nas") == "1 replicas are tried again\n"
    eventually(lambda: kept.state(other) == "stored")
    assert "nothing of it is parked" in kept.ask("retry", other, status=1)
    assert "no remote of that name" in kept.ask("retry", "--all", "--remote", "nowhere", status=1)


def test_uploads_that_are_removed_are_gone_everywhere(kept: Kept, client: Tus) -> None:
    done, begun = kept.sent(client, "done"), client.create(10, {"Upload-Metadata": metadata(name="begun")})
    unfinished = begun.rsplit("/", 1)[1]
    eventually((kept.nas / "done").exists)
    assert unfinished in kept.listed("--state", "unfinished")
    assert kept.ask("rm", done, unfinished) == f"{done}: removed\n{unfinished}: removed\n"
    assert client.head(begun).status == 410
    eventually(lambda: not (kept.nas / "done").exists())
    assert {done, unfinished} <= set(kept.listed("--state", "gone", "--all"))
    assert not {done, unfinished} & set(kept.listed("--all"))
    assert json.loads(kept.ask("show", done, "--json"))["gone"] == "terminated"
    said = kept.ask("rm", done, "f" * 32, "no id", status=1)
    assert [line.split(": ")[1] for line in said.splitlines()][-2:] == ["f" * 32, "no id"]


def test_the_first_characters_of_an_id_are_enough(kept: Kept, client: Tus) -> None:
    upload_id = kept.sent(client, "short")
    assert kept.ask("show", upload_id[:12]).startswith("id ")
    assert f"{upload_id}: removed\n" == kept.ask("rm", upload_id[:12])
    assert "there is no such upload" in kept.ask("show", "zzzz", status=1)
    assert "at least the first 4 characters" in kept.ask("show", "abc", status=1)


def test_an_upload_under_way_is_removed_by_force_only(kept: Kept, client: Tus) -> None:
    path = client.create(1000, {"Upload-Metadata": metadata(name="moving")})
    upload_id = path.rpartition("/")[2]
    with holder(client, path, 0, 1000, b"x" * 10):
        said = kept.ask("rm", upload_id, status=1)
        assert "appends to the upload now; --force removes it all the same" in said
        assert kept.listed()[upload_id]["appending"]
        assert kept.ask("rm", upload_id, "--force") == f"{upload_id}: removed\n"
    assert client.head(path).status == 410


def in_a_terminal(kept: Kept, *arguments: str, until: bytes, then: bytes) -> tuple[bytes, int]:
    """What the command draws until those bytes come, when ``then`` is typed; and its status."""

    def lead() -> None:
        """The terminal is its own, and Ctrl-C means it."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 70, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "resumable", *arguments],
        cwd=kept.home,
        env={**environment(), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lead,
        start_new_session=True,
    )
    os.close(theirs)
    drawn, typed = b"", False
    try:
        with suppress(OSError):  # the other end is closed
            while select.select([ours], [], [], BOUND)[0] and (piece := os.read(ours, 65536)):
                drawn += piece
                if until in drawn and not typed:
                    typed = os.write(ours, then) > 0
        return drawn, process.wait(BOUND)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_watched_list_fits_the_terminal_until_it_is_interrupted(kept: Kept, client: Tus) -> None:
    upload_id = kept.sent(client, "a-name-that-is-much-longer-than-the-terminal-has-room-for-in-a-row.mp4")
    drawn, status = in_a_terminal(kept, "ls", "--watch", until=b" done (", then=b"\x03")
    assert status == 130 and upload_id[:8].encode() in drawn and upload_id.encode() not in drawn
    assert b"\x1b[?1049h" in drawn and drawn.endswith(b"\x1b[?25h\x1b[?1049l"), "the terminal is as it was"


def test_whoever_sits_there_is_shown_what_is_removed(kept: Kept, client: Tus) -> None:
    upload_id = kept.sent(client, "mine.txt")
    drawn, status = in_a_terminal(kept, "rm", upload_id[:12], until=b"[y/N]", then=b"y\n")
    assert b"Remove mine.txt (1000 B, 100% here) for good? [y/N]" in drawn and status == 0
    assert f"{upload_id}: removed".encode() in drawn


def test_what_is_listed_is_what_was_asked_for(kept: Kept, client: Tus) -> None:
    small, large = kept.sent(client, "small", 10), kept.sent(client, "large", 5000)
    assert large in (found := kept.listed("--min-size", "4K")) and small not in found
    assert list(kept.listed("--newest", "--limit", "2")) == [large, small]
    assert "--all" in command("ls", "--limit", "1", cwd=kept.home).stderr
    assert kept.listed("--older-than", "1h") == {} == kept.listed("--idle", "1h")
    assert small in kept.listed("--owner", "") and kept.listed("--owner", "alice") == {}


def test_at_a_port_the_token_is_needed(kept: Kept) -> None:
    assert "give --token-file" in kept.ask("ls", "--url", kept.admin, status=1)
    kept.ask("ls", "--url", kept.admin, "--token-file", str(kept.token_file))
    assert "--token-file" in kept.ask("ls", "--token-file", "none", status=2)


def test_a_server_that_drains_begins_nothing(kept: Kept, client: Tus) -> None:
    assert kept.ask("drain", "status").startswith("not draining; ")
    assert kept.ask("drain", "on").startswith("draining since ")
    try:
        assert client.ask("POST", "/files/", {"Upload-Length": "1"}).status == 503
    finally:
        assert kept.ask("drain", "off").startswith("not draining; ")
    client.create(1)


def test_events_are_replayed_by_the_name_of_their_hook(kept: Kept) -> None:
    assert kept.ask("replay", "far") == "0 events are sent again\n"
    assert kept.ask("hooks", "replay", "far") == "0 events are sent again\n"
    assert kept.ask("hooks", "dead", "far") == ""
    assert kept.ask("hooks").splitlines()[1].split()[0] == "far"
    assert json.loads(kept.ask("hooks", "--json"))["far"]["dead"] == 0
    assert kept.ask("hooks", "dead", "near", status=1) == "resumable: There is no such hook\n"
    assert kept.ask("replay", "near", status=1) == "resumable: There is no such hook\n"


def test_whoever_reads_no_further_is_no_error(kept: Kept, client: Tus) -> None:
    for number in range(3):
        kept.sent(client, f"piped{number}")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m resumable ls --all | true"],
        cwd=kept.home,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("ls >/dev/full", 1, "resumable: standard output: No space left on device\n"),
        ("drain status >&-", 1, "resumable: there is no standard output to write to\n"),
        ("doctor >/dev/full", 1, "resumable: standard output: No space left on device\n"),
        ("--version >/dev/full", 1, "resumable: standard output: No space left on device\n"),
        ("ls >&- 2>&-", 1, ""),
        ("show $'\\xff'", 1, "resumable: There is nothing at this address\n"),
        ("ls --remote nope", 1, "resumable: remote: there is no remote of that name\n"),
    ],
)
def test_what_can_not_be_done_is_a_line(line: str, status: int, said: str, kept: Kept) -> None:
    env = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m resumable {line}"],
        cwd=kept.home,
        env=env,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, said)


def test_the_doctor_finds_that_daemon_well(kept: Kept) -> None:
    arguments = kept.arguments()[1:]
    hook = arguments.index("--hook")  # nobody answers there
    found = kept.ask("doctor", "--json", *arguments[:hook], *arguments[hook + 2 :])
    told = {each["check"]: each for each in map(json.loads, found.splitlines())}
    assert told["daemon"]["level"] == "ok" and "version" in told["daemon"]["what"]
    assert told["remote nas"]["level"] == "ok"
