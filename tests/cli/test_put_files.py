"""Which files `resumable put` sends, what it tells of them, and which it leaves out."""

from __future__ import annotations

import os
import socket
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from resumable.cli.files_to_send import FileToSend, LeftOut, found
from resumable.cli.leftovers import table
from resumable.cli.sent_before import KEPT, SentBefore
from resumable.client import Leftover


def tree(top: Path, **files: str) -> Path:
    for name, content in files.items():
        path = top / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return top


def sent(*arguments: object, follow: bool = False, name: str | None = None) -> list[FileToSend]:
    return [each for each in found(map(str, arguments), follow, name) if isinstance(each, FileToSend)]


def left_out(*arguments: object, follow: bool = False) -> list[tuple[str, str, bool]]:
    out = [each for each in found(map(str, arguments), follow) if isinstance(each, LeftOut)]
    return [(os.path.basename(each.name.rstrip("/")), each.why, each.wrong) for each in out]


def test_a_file_has_its_name_and_its_type_but_not_its_directory(tmp_path: Path) -> None:
    path = tree(tmp_path, sub__film="x") / "sub/film.mp4"
    (tmp_path / "sub/film").rename(path)
    (only,) = sent(path)
    assert (only.name, only.path, only.size, only.stream) == (str(path), path, 1, False)
    assert only.metadata == {"filename": "film.mp4", "filetype": "video/mp4"}
    assert sent(path, name="other.txt")[0].metadata == {"filename": "other.txt", "filetype": "text/plain"}


def test_a_directory_is_sent_in_order_with_paths_from_its_own_name_on(tmp_path: Path) -> None:
    top = tree(tmp_path / "photos", b="22", a="1", sub__c="", sub__deep__d="4444")
    assert [(each.metadata["relativePath"], each.metadata["filename"], each.size) for each in sent(top)] == [
        ("photos/a", "a", 1),
        ("photos/b", "b", 2),
        ("photos/sub/c", "c", 0),
        ("photos/sub/deep/d", "d", 4),
    ]


def test_the_directory_that_one_is_in_has_its_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree(tmp_path / "photos", a="1"))
    assert [(each.name, each.metadata["relativePath"]) for each in sent(".")] == [("a", "photos/a")]


def test_links_below_a_directory_are_left_out_unless_they_are_to_be_followed(tmp_path: Path) -> None:
    top = tree(tmp_path / "top", a="1", sub__b="2")
    tree(tmp_path, outside="333")
    (top / "file").symlink_to(tmp_path / "outside")
    (top / "nothing").symlink_to(tmp_path / "missing")
    (top / "sub/back").symlink_to(top)
    told = "a symbolic link; --follow sends what it points to"
    assert left_out(top) == [("file", told, False), ("nothing", told, False), ("back", told, False)]
    assert len(sent(top)) == 2
    assert [each.metadata["relativePath"] for each in sent(top, follow=True)] == ["top/a", "top/file", "top/sub/b"]
    assert left_out(top, follow=True) == [
        ("nothing", "a symbolic link to nothing", True),
        ("back", "a link back to a directory that it is in", False),
    ]


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    link = tree(tmp_path, real="123") / "link"
    link.symlink_to(tmp_path / "real")
    assert [(each.size, each.metadata["filename"]) for each in sent(link)] == [(3, "link")]


def test_what_is_no_file_is_left_out_and_never_opened(tmp_path: Path) -> None:
    top = tree(tmp_path / "top", a="1")
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(top / "sock"))
        assert left_out(top) == [("pipe", "it is no file", False), ("sock", "it is no file", False)]


@pytest.mark.parametrize("what", ["pipe", "sock", "null"])
def test_what_is_named_and_no_file_is_left_out_with_what_sends_it(tmp_path: Path, what: str) -> None:
    """Nobody writes to the FIFO: opening it would never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "sock"))
        path = tmp_path / what
        assert left_out(path) == [(what, f"it is no file; to send what it gives: - < {path}", True)]
    assert left_out(tmp_path / "missing") == [("missing", "no such file or directory", True)]


def test_what_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tree(tmp_path / "top", a="1", b="2")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("/a"))
    assert left_out(top) == [("a", "no permission to read it", True)]
    assert len(sent(top)) == 1

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert left_out(top) == [("top", "permission denied", True)]


def test_standard_input_is_a_stream() -> None:
    stdin, named = *sent("-"), *sent("-", name="dump.sql")
    assert (stdin.name, stdin.size, stdin.metadata) == ("standard input", None, {})
    assert (named.name, named.metadata["filename"], named.stream) == ("dump.sql", "dump.sql", True)
    assert stdin.opened() is sys.stdin.buffer


def test_a_name_that_is_no_utf8_can_be_told(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        Path(os.fsdecode(path)).write_text("x")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert sent(os.fsdecode(path))[0].metadata["filename"] == "caf\ufffd"


# what a cut command has sent


def record(tmp_path: Path, *what: Path, restart: bool = False, url: str = "http://up/") -> SentBefore:
    given = Namespace(url=url, what=[str(each) for each in what], meta=[], restart=restart)
    return SentBefore.of(tmp_path / "state", given, 2)


def test_the_same_command_leaves_out_what_was_sent_unless_it_has_changed(tmp_path: Path) -> None:
    top = tree(tmp_path / "top", a="1", b="2", c="3")
    a, b, c = sent(top)
    first = record(tmp_path, top)
    assert not first.has(a)
    first.add(a, "http://up/1")
    first.add(b, "http://up/2")
    (top / "b").write_text("longer")
    again = record(tmp_path, top)
    assert [again.has(each) for each in (a, b, c)] == [True, False, False]
    assert not record(tmp_path, top, url="http://other/").has(a)
    assert not record(tmp_path, top / "a", top / "b").has(a), "another command"
    assert not record(tmp_path, top, restart=True).has(a)
    assert not record(tmp_path, top).has(a), "--restart has forgotten it"


def test_a_file_that_changes_before_it_is_recorded_is_sent_again(tmp_path: Path) -> None:
    top = tree(tmp_path / "top", a="1", b="2")
    a, b = sent(top)
    first = record(tmp_path, top)
    assert not first.has(a) and not first.has(b)
    (top / "a").write_text("longer")  # while the server was waited for
    first.add(a, "http://up/1")
    first.add(b, "http://up/2")
    again = record(tmp_path, top)
    assert (again.has(a), again.has(b)) == (False, True)


def test_a_record_that_was_cut_or_is_old_does_no_harm(tmp_path: Path) -> None:
    top = tree(tmp_path / "top", a="1", b="2")
    a, b = sent(top)
    record(tmp_path, top).add(a, "u")
    (path,) = (tmp_path / "state/batches").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text() + '{"path": "/x", "fo')
    assert record(tmp_path, top).has(a)
    os.utime(path, (0, path.stat().st_mtime - KEPT - 60))
    assert not record(tmp_path, top).has(a)
    (tmp_path / "state/batches").rmdir()
    (tmp_path / "state/batches").write_text("no directory")
    broken = record(tmp_path, top)
    broken.add(b, "u")
    broken.drop()
    assert not broken.has(b)


def test_one_file_needs_no_record(tmp_path: Path) -> None:
    top = tree(tmp_path / "top", a="1")
    one = SentBefore.of(tmp_path / "state", Namespace(url="u", what=[str(top)], meta=[], restart=False), 1)
    one.add(sent(top)[0], "u")
    one.drop()
    assert not (tmp_path / "state").exists()


# leftovers


def test_leftovers_are_a_table_with_short_ids_and_the_shorter_paths() -> None:
    film = Leftover(
        key="0123456789abcdef", source="/tmp/film.mp4", endpoint="http://up/", url="http://up/1", size=1000,
        created=100.0, updated=150.0, resumable=True, urls=(), protocol="tus",
    )  # fmt: skip
    stream = Leftover(
        key="fedc", source="dump\x1b", endpoint="http://up/", url="http://up/2", size=None,
        created=100.0, updated=150.0, resumable=False, urls=(), protocol="tus",
    )  # fmt: skip
    assert table([(film, 430), (stream, 12)], 7300.0, "/srv/much/deeper/than/that") == [
        "ID        DONE  SIZE    AGE  FILE                              URL",
        "01234567  43%   1000 B  2h   /tmp/film.mp4                     http://up/1",
        "fedc      ?     ?       2h   dump? (a stream: it starts over)  http://up/2",
    ]
    assert " film.mp4 " in table([(film, 430)], 7300.0, "/tmp")[1]
