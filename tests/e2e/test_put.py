"""`resumable put`: cut, and gone on with at the same byte; directories, streams, terminals, and refusals of servers."""

from __future__ import annotations

import json
import os
import signal
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest

from .daemon import Daemon
from .sender import Event, Sender, in_terminal, until
from .tus import Tus, pattern, sha256

DATA = pattern(3_000_003, seed=17)
FLAGS = ("--digest", "sha256")
SLOW = ("--limit-rate", "700K")


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path)


def is_moving(event: Event) -> bool:
    return bool(event["event"] == "progress" and event["offset"] > 300_000)


def named(events: list[Event], name: str) -> list[Event]:
    return [each for each in events if each["event"] == name]


def told(tus: Tus, path: str) -> dict[str, str]:
    """The metadata of an upload."""
    pairs = (pair.split(" ") for pair in (tus.head(path)["upload-metadata"] or "").split(","))
    return {key: b64decode(value).decode() for key, value in pairs}


def path_of(event: Event) -> str:
    return "/files/" + str(event["url"]).rpartition("/")[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_the_same_command_goes_on_at_the_same_byte(
    daemon: Daemon, tus: Tus, sender: Sender, source: Path, number: int, status: int
) -> None:
    left, said = sender.cut(number, "put", "big.bin", daemon.url, *SLOW, when=is_moving)
    assert left == status
    if number == signal.SIGINT:
        assert said.startswith("resumable: interrupted at ") and "the same command goes on" in said
    (known,) = sender.events("put", "--list")
    offset = tus.offset(path_of(known))
    assert 0 < offset < len(DATA)
    events = sender.events("put", "big.bin", daemon.url)
    (started,), (finished,) = named(events, "started"), named(events, "finished")
    assert (started["url"], started["offset"], started["resumed"]) == (known["url"], offset, True)
    assert finished["resumed_from"] == offset
    assert tus.content(path_of(finished)) == DATA
    assert sender.events("put", "--list") == []


def test_a_server_that_dies_and_comes_back_is_waited_for(
    daemon: Daemon, tus: Tus, sender: Sender, source: Path
) -> None:
    process = sender.begun("put", "big.bin", daemon.url, *SLOW, "--retry-for", "3d")
    until(process, is_moving)
    daemon.restart()
    until(process, lambda event: event["event"] == "retrying")
    offset = until(process, lambda event: event["event"] == "continued")["offset"]
    finished = until(process, lambda event: event["event"] == "finished")
    assert process.wait() == 0 and 0 < offset < len(DATA)
    assert tus.content(path_of(finished)) == DATA
    process.communicate()


def test_the_digest_is_checked_and_told(daemon: Daemon, sender: Sender, source: Path) -> None:
    done = sender.run("put", "big.bin", daemon.url, "--announce")
    assert f", sha-256 {sha256(DATA)} checked by the server, {daemon.url}" in done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")


def test_parts_pieces_and_checksums_make_the_same_file(daemon: Daemon, tus: Tus, sender: Sender, source: Path) -> None:
    for flags in (
        ("--parallel", "3"),
        ("--chunk-size", "1M", "--checksum", "sha1"),
        ("--protocol", "draft", "--chunk-size", "1M"),
        ("--parallel", "2", "--checksum", "auto", "--limit-rate", "20M"),
    ):
        (finished,) = named(sender.events("put", "big.bin", daemon.url, *flags), "finished")
        assert tus.content(path_of(finished)) == DATA, flags


def test_a_source_that_has_changed_is_told_and_never_spliced(
    daemon: Daemon, tus: Tus, sender: Sender, source: Path
) -> None:
    sender.cut(signal.SIGKILL, "put", "big.bin", daemon.url, *SLOW, when=is_moving)
    other = pattern(len(DATA), seed=18)
    source.write_bytes(other)
    said = sender.said("put", "big.bin", daemon.url)
    assert said.startswith("big.bin: ") and "changed" in said
    assert said.endswith("; --restart sends it anew and removes what was begun")
    events = sender.events("put", "big.bin", daemon.url, "--restart")
    (finished,) = named(events, "finished")
    assert finished["resumed_from"] == 0
    assert tus.content(path_of(finished)) == other


def test_a_directory_is_sent_with_its_paths_and_what_is_missing_is_sent_by_the_same_command(
    daemon: Daemon, tus: Tus, sender: Sender, tmp_path: Path
) -> None:
    top = tmp_path / "photos"
    (top / "2026").mkdir(parents=True)
    files = {"a.jpg": b"aaa", "empty.txt": b"", "2026/b.jpg": pattern(50_000, seed=3), "2026/\x1b[31m.jpg": b"x"}
    for name, content in files.items():
        (top / name).write_bytes(content)
    (top / "link").symlink_to("a.jpg")
    done = sender.run("put", "photos", daemon.url)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 4) and b"\x1b" not in done.stdout
    assert done.stderr.decode().splitlines() == [
        "resumable: photos/link: left out: a symbolic link; --follow sends what it points to"
    ]
    events = named(sender.events("put", "photos", daemon.url, "--jobs", "3", "--meta", "album=7"), "finished")
    assert {each["file"]: tus.content(path_of(each)) for each in events} == {
        f"photos/{name}": content for name, content in files.items()
    }
    (one,) = [each for each in events if each["file"] == "photos/2026/b.jpg"]
    assert told(tus, path_of(one)) == {
        "filename": "b.jpg", "filetype": "image/jpeg", "relativePath": "photos/2026/b.jpg", "album": "7",
    }  # fmt: skip


def test_a_cut_directory_goes_on_with_the_files_that_are_missing(
    daemon: Daemon, sender: Sender, tmp_path: Path, source: Path
) -> None:
    top = tmp_path / "dir"
    top.mkdir()
    (top / "a").write_bytes(b"a")
    source.rename(top / "b")
    command = ("put", "dir", daemon.url, "-j1")
    sender.cut(signal.SIGKILL, *command, *SLOW, when=is_moving)
    events = sender.events(*command)
    (started,), (left_out,) = named(events, "started"), named(events, "left out")
    assert started["file"] == "dir/b" and started["offset"] > 0
    assert left_out["file"] == "1 file"


def test_standard_input_is_sent_as_it_comes(daemon: Daemon, tus: Tus, sender: Sender) -> None:
    done = sender.run("put", "-", daemon.url, "--name", "dump.sql", given=DATA)
    assert done.returncode == 0 and done.stdout.startswith(b"dump.sql: sent, 2.9 MiB in ")
    path = "/files/" + done.stdout.decode().strip().rpartition("/")[2]
    assert tus.content(path) == DATA and told(tus, path)["filename"] == "dump.sql"


def test_outside_its_window_it_waits(daemon: Daemon, sender: Sender, source: Path) -> None:
    closed = ("--only-at", "00:00-00:01") if not _is_midnight() else ("--only-at", "12:00-12:01")
    left, said = sender.cut(
        signal.SIGINT, "put", "big.bin", daemon.url, *closed, when=lambda event: event["event"] == "waiting"
    )
    assert left == 130 and "interrupted" in said


def _is_midnight() -> bool:
    import datetime

    return datetime.datetime.now().hour in (23, 0)


def test_leftovers_are_listed_forgotten_and_removed(daemon: Daemon, tus: Tus, sender: Sender, source: Path) -> None:
    sender.cut(signal.SIGKILL, "put", "big.bin", daemon.url, *SLOW, when=is_moving)
    (known,) = sender.events("put", "--list")
    assert (known["file"], known["size"], known["resumable"]) == (str(source), len(DATA), True)
    heading, row = sender.run("put", "--list").stdout.decode().splitlines()
    assert heading.split() == ["ID", "DONE", "SIZE", "AGE", "FILE", "URL"]
    short, done, *_, file, url = row.split()
    assert known["id"].startswith(short) and done.endswith("%") and (file, url) == ("big.bin", known["url"])
    assert sender.said("put", "--remove", "nonsense") == "nonsense: there is no such one; see resumable put --list"
    assert sender.run("put", "--remove", short).stdout.decode() == f"{source}: removed\n"
    assert tus.ask("HEAD", path_of(known)).status in (404, 410)
    sender.cut(signal.SIGKILL, "put", "big.bin", daemon.url, *SLOW, when=is_moving)
    (known,) = sender.events("put", "--list")
    assert sender.run("put", "--forget", known["id"]).returncode == 0
    assert sender.events("put", "--list") == [] and tus.offset(path_of(known)) > 0


def test_both_tiers_are_told_and_waited_for(serve: Callable[..., Daemon], sender: Sender, tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "big.bin").write_bytes(DATA)
    daemon = serve("--remote", f"file://{tmp_path}/nas?name=nas")
    events = sender.events("put", "big.bin", daemon.url, "--limit-rate", "1M", "--wait", "stored")
    assert named(events, "finished")[0]["stored"] is True
    assert len(named(events, "progress")[-1]["remotes"]) == 1
    assert any(path.stat().st_size == len(DATA) for path in (tmp_path / "nas").rglob("*") if path.is_file())


def test_a_terminal_shows_bars_that_go_on_after_a_cut(daemon: Daemon, sender: Sender, source: Path) -> None:
    sender.cut(signal.SIGKILL, "put", "big.bin", daemon.url, *SLOW, when=is_moving)
    status, lines = in_terminal(sender, "put", "big.bin", daemon.url, "--limit-rate", "1M")
    assert status == 0
    bars = [line for line in lines if line.startswith("big.bin ") and "━" in line]
    assert bars, lines
    assert all(" %" in bar and " MiB" in bar for bar in bars)
    assert bars, lines
    assert any("MiB/s" in bar or "KiB/s" in bar for bar in bars)
    (receipt,) = {line for line in lines if line.startswith("✓ big.bin  2.9 MiB, the last ")}
    assert receipt.endswith(", checked by the server")
    assert f"  sha-256 {sha256(DATA)}" in lines


def test_a_token_is_sent_and_its_lack_is_told(serve: Callable[..., Daemon], sender: Sender, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("t" * 24 + " alice\n")
    (tmp_path / "mine").write_text("t" * 24 + "\n")
    (tmp_path / "a.txt").write_text("a")
    daemon = serve("--auth-tokens", str(tmp_path / "tokens"))
    said = sender.said("put", "a.txt", daemon.url)
    assert " answers 401: " in said and "--token-file" in said and "RESUMABLE_TOKEN" in said
    assert sender.run("put", "a.txt", daemon.url, "--token-file", "mine").returncode == 0
    assert sender.run("put", "a.txt", daemon.url, RESUMABLE_TOKEN="t" * 24).returncode == 0
    assert sender.run("put", "a.txt", daemon.url, "-H", f"Authorization: Bearer {'t' * 24}").returncode == 0


def test_a_file_that_is_too_large_is_refused_in_words(
    serve: Callable[..., Daemon], sender: Sender, source: Path
) -> None:
    daemon = serve("--max-size", "1M")
    said = sender.said("put", "big.bin", daemon.url)
    assert said.startswith(f"big.bin: {daemon.url} answers 413: ") and "can't be sent there" in said


def test_a_server_without_space_is_told_of(serve: Callable[..., Daemon], sender: Sender, source: Path) -> None:
    daemon = serve("--reserve", "1P")
    said = sender.said("put", "big.bin", daemon.url, "--retry-for", "0")
    assert " answers 507: " in said


def test_addresses_that_take_no_uploads_say_so(daemon: Daemon, sender: Sender, source: Path) -> None:
    said = sender.said("put", "big.bin", f"{daemon.origin}/nothing/")
    assert " answers 404: " in said and "give the URL where uploads are created" in said
    said = sender.said("put", "big.bin", f"{daemon.origin}/healthz")
    assert "speaks neither tus 1.0 nor the draft" in said
    said = sender.said("put", "big.bin", "http://127.0.0.1:1/files/", "--retry-for", "0")
    assert said == ("big.bin: 127.0.0.1 at port 1 isn't reached: Connection refused; gave up after 1 try")


def test_a_reader_that_has_enough_is_no_error(daemon: Daemon, sender: Sender, tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("x")
    reading, writing = os.pipe()
    os.close(reading)
    process = sender.begun(*("put", *(f"{number}.txt" for number in range(5)), daemon.url))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr is not None and b"Traceback" not in process.stderr.read()
    process.stderr.close()
    os.close(writing)


def test_json_has_the_same_fields_each_time(daemon: Daemon, sender: Sender, source: Path) -> None:
    done = sender.run("put", "big.bin", "missing", daemon.url, "--json", "--limit-rate", "2M")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert {each["event"] for each in events} >= {"started", "progress", "finished", "failed"}
    progress, failed = named(events, "progress")[0], named(events, "failed")[0]
    fields = {"event", "time", "file", "url", "offset", "acknowledged", "size", "speed", "left", "remotes"}
    assert progress.keys() == fields
    assert (failed["file"], failed["error"]) == ("missing", "no such file or directory")
