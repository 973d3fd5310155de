"""What `resumable put` shows: bars in a terminal of a fixed width, lines, JSON, and receipts."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from resumable import client
from resumable.cli.bars import BarBoard, picture
from resumable.cli.boards import JsonBoard, LineBoard
from resumable.cli.files_to_send import LeftOut
from resumable.cli.receipts import Result, digest_words, hex_digest, one_line
from resumable.cli.trips import AllTrips, Trip

MIB = 1 << 20
URL = "http://up/files/1"
DIGEST = "sha-256=:" + "AAAA" * 10 + "AAA=:"
HEX = "sha-256 " + "00" * 32


def begun(offset: int = 0, total: int | None = 100 * MIB) -> client.Begun:
    return client.Begun(source="film.mp4", url=URL, offset=offset, total=total, resumed=offset > 0, protocol="tus")


def moved(sent: int, acknowledged: int, run: int, total: int | None = 100 * MIB) -> client.Moved:
    return client.Moved(source="film.mp4", sent=sent, acknowledged=acknowledged, total=total, run=run)


def under_way(name: str = "film.mp4", *, offset: int = 0, size: int | None = 100 * MIB, index: int = 0) -> Trip:
    """A file of 100 MiB, of which 10 MiB were sent in 2 s."""
    trip = Trip(name, size, index)
    trip.begin(0.0)
    trip.heed(begun(offset, size), 0.0)
    trip.heed(moved(offset + 10 * MIB, offset + 8 * MIB, 10 * MIB, size), 2.0)
    return trip


def all_of(*trips: Trip) -> AllTrips:
    together = AllTrips(trips, 0.0)
    for trip in trips:
        if trip.state != "waiting":
            together.begun(trip)
    together.tick(2.0)
    return together


def drawn(together: AllTrips, width: int = 88, most: int = 50) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=most, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(picture(together, 2.0, width, most))
    return [line.rstrip() for line in captured.get().splitlines()]


def tiers(*replicas: tuple[str | None, int, str | None]) -> client.Tiers:
    there = tuple(
        client.Replicated(name=name, required=True, state="open", sent=confirmed, confirmed=confirmed, trouble=trouble)
        for name, confirmed, trouble in replicas
    )
    return client.Tiers(
        state="uploading", length=100 * MIB, received=10 * MIB, durable=8 * MIB, replicas=there, digest=None
    )


def looked(*replicas: tuple[str | None, int, str | None]) -> client.Looked:
    return client.Looked(source="film.mp4", tiers=tiers(*replicas))


# bars


def test_a_file_has_a_row_with_its_share_sizes_speed_and_time_that_is_left() -> None:
    (row,) = drawn(all_of(under_way()))
    assert row.startswith("film.mp4 ")
    assert row.endswith("10 %       10/100 MiB     5 MiB/s     0:18")
    assert row.count("━") == 1, "10 % of the bar; the rest of it is shown by its colour"


def test_after_a_resume_the_share_is_of_the_file_and_speed_and_time_are_of_this_run() -> None:
    (row,) = drawn(all_of(under_way(offset=50 * MIB)))
    assert row.endswith("60 %       60/100 MiB     5 MiB/s     0:08")


def test_each_remote_that_the_server_tells_of_has_a_row() -> None:
    trip = under_way()
    trip.heed(looked(("s3://bucket", 4 * MIB, None), ("nas", 0, "retrying")), 2.0)
    _, first, second = drawn(all_of(trip))
    assert first.startswith("  stored in s3://bucket ") and first.endswith("4 %        4/100 MiB")
    assert second.startswith("  stored in nas ") and "0 %" in second and second.endswith("retrying")


def test_a_remote_without_a_name_is_told_to_people_who_may_not_know_it() -> None:
    trip = under_way()
    trip.heed(looked((None, 4 * MIB, None)), 2.0)
    assert drawn(all_of(trip))[1].startswith("  stored  ")
    trip.heed(looked((None, 4 * MIB, None), (None, 0, None)), 2.0)
    assert [row.split("  ")[1] for row in drawn(all_of(trip))[1:]] == ["stored in 1", "stored in 2"]


def test_what_it_waits_for_is_a_line_below() -> None:
    trip = under_way()
    retried = client.Retried(source="film.mp4", reason="the connection was lost", attempt=2, wait=8.0, gives_up_in=60.0)
    trip.heed(retried, 2.0)
    row, line = drawn(all_of(trip))
    assert "MiB/s" not in row
    assert line == "  the connection was lost; the next try is in 0:08"
    trip.heed(client.Recovered(source="film.mp4", offset=8 * MIB), 10.0)
    assert len(drawn(all_of(trip))) == 1 and trip.position == 8 * MIB


def test_a_pause_tells_how_long_it_is() -> None:
    trip = under_way()
    trip.heed(client.Waiting(source="film.mp4", wait=3600.0, reason="outside the window"), 2.0)
    assert drawn(all_of(trip))[1] == "  outside the window; it goes on in 1:00:00"


def test_several_files_have_a_row_for_all_of_them() -> None:
    together = all_of(under_way("a.bin"), under_way("b.bin", index=1), Trip("c.bin", 100 * MIB, 2))
    *_, last = drawn(together)
    assert last.startswith("0 of 3 files ") and last.endswith("6 %       20/300 MiB    10 MiB/s     0:28")


def test_what_is_over_counts_in_the_row_for_all() -> None:
    done, failed, going = under_way("a"), under_way("b", index=1), under_way("c", index=2)
    together = all_of(done, failed, going)
    done.end("done", 2.0)
    together.over(done)
    failed.end("failed", 2.0, "why")
    together.over(failed)
    assert (together.position, together.size, together.run) == (120 * MIB, 210 * MIB, 30 * MIB)
    assert [line.split("  ")[0] for line in drawn(together)] == ["c", "1 of 3 files"]


def test_more_rows_than_the_terminal_has_are_not_drawn() -> None:
    together = all_of(*(under_way(f"{number}.bin", index=number) for number in range(20)))
    assert len(drawn(together, most=8)) == 8


@pytest.mark.parametrize("width", [20, 40, 60, 72, 80, 88, 120, 200])
def test_rows_fit_the_terminal_however_long_or_wide_a_name_is(width: int) -> None:
    trip = under_way("映画" * 50 + "\x1b[31m\n.mp4")
    trip.heed(looked(("s3://" + "b" * 100, MIB, "retrying")), 2.0)
    trip.heed(client.Retried(source="film.mp4", reason="r" * 300, attempt=2, wait=8.0, gives_up_in=60.0), 2.0)
    lines = drawn(all_of(trip, Trip("x", 5, 1)), width)
    assert len(lines) == 4
    assert all(Console(width=width).measure(line).maximum <= width for line in lines) and "\x1b" not in "".join(lines)


def test_a_stream_shows_what_was_sent_and_no_share() -> None:
    (row,) = drawn(all_of(under_way("-", size=None)))
    assert "%" not in row and row.endswith("10 MiB     5 MiB/s")


def terminal(width: int = 100) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=True, color_system=None, highlight=False, markup=False), out


def test_the_receipt_stays_when_the_bars_go(capsys: pytest.CaptureFixture[str]) -> None:
    console, out = terminal()
    board = BarBoard(console, few=True)
    trip = under_way("film[1].mp4")
    together = all_of(trip)
    board.refresh(together, 2.0)
    trip.end("done", 3.0)
    together.over(trip)
    board.done(trip, RESULT)
    board.left_out(LeftOut("link", "a symbolic link", False))
    board.failed(trip, client.ClientError("x"))
    board.close()
    said = [line.split("\x1b[2K")[-1].rstrip() for line in out.getvalue().splitlines()]
    assert "✓ film[1].mp4  100 MiB, the last 50 MiB in 10 s (5 MiB/s), checked by the server" in said
    assert f"  {URL}" in said and f"  {HEX}" in said
    assert "- link: left out: a symbolic link" in said
    assert capsys.readouterr().err == "resumable: film[1].mp4: \n", "standard error is no terminal here"


# receipts

RESULT = Result(100 * MIB, 50 * MIB, 10.0, URL, DIGEST, True, 50 * MIB)


@pytest.mark.parametrize(
    ("digest", "checked", "words"),
    [
        (DIGEST, True, f"{HEX} checked by the server"),
        (DIGEST, False, f"{HEX}, not compared"),
        (None, False, "not checked: the server tells no digest"),
        ("nonsense", False, "not checked: the server tells no digest"),
    ],
)
def test_a_receipt_says_whether_the_digest_was_checked(digest: str | None, checked: bool, words: str) -> None:
    assert digest_words(Result(1, 1, 1.0, URL, digest, checked, 0)) == words


def test_digests_are_shown_in_hex() -> None:
    assert hex_digest("sha-256=:qrvM:") == "sha-256 aabbcc"
    assert hex_digest("sha-256=:x:") is None


def test_a_receipt_of_one_line() -> None:
    fetched = Result(5, 5, 0.5, "plan.pdf", None, False, 0, sent=False)
    assert one_line("plan.pdf", fetched) == (
        "plan.pdf: received, 5 B in 0.5 s (10 B/s), not checked: the server tells no digest, plan.pdf"
    )
    stored = Result(0, 0, 0.1, URL, None, False, 0, stored=True)
    assert one_line("empty", stored).startswith("empty: sent, 0 B in 0.1 s, stored in all remotes, not checked")


# lines and JSON


EVENTS: Sequence[client.TransferEvent] = [
    begun(50 * MIB),
    client.Retried(source="x", reason="no connection", attempt=1, wait=2.0, gives_up_in=9.0),
    client.Recovered(source="x", offset=50 * MIB),
    client.Waiting(source="x", wait=60.0, reason="outside the window"),
    client.PiecesShrunk(source="x", size=5 * MIB),
    client.Noted(source="x", message="the server puts no parts together"),
    client.StartedOver(source="x", reason="the server no longer has it"),
]


def play(board: Any) -> None:
    trip = under_way()
    together = all_of(trip)
    for event in EVENTS:
        board.told(trip, event)
    for second in (2.0, 2.2, 3.4):
        board.refresh(together, second)
    board.done(trip, RESULT)
    trip.end("failed", 4.0, "no\x1b space")
    board.failed(trip, client.ClientError("no space"))
    board.left_out(LeftOut("gone.bin", "no such file or directory", True))
    board.left_out(LeftOut("link", "a symbolic link", False))
    board.close()


def test_without_a_terminal_there_is_a_line_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    play(LineBoard(verbose=False))
    out, said = capsys.readouterr()
    assert out.splitlines() == [
        f"film.mp4: sent, 100 MiB, the last 50 MiB in 10 s (5 MiB/s), {HEX} checked by the server, {URL}"
    ]
    assert said.splitlines() == [
        "resumable: film.mp4: it starts over: the server no longer has it",
        "resumable: film.mp4: no? space",
        "resumable: gone.bin: left out: no such file or directory",
        "resumable: link: left out: a symbolic link",
    ]


def test_verbose_lines_tell_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    play(LineBoard(verbose=True))
    assert [line.removeprefix("resumable: film.mp4: ") for line in capsys.readouterr().err.splitlines()[:8]] == [
        f"goes on at byte {50 * MIB} (50 %)",
        "no connection; the next try is in 0:02",
        f"the server answers again: goes on at byte {50 * MIB}",
        "waits 1:00: outside the window",
        "something on the way takes no larger requests: pieces of 5 MiB from now on",
        "the server puts no parts together",
        "it starts over: the server no longer has it",
        "10 %",
    ]


def test_json_is_an_object_a_line_with_at_most_one_progress_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    play(JsonBoard(lambda: 1_790_000_000.0))
    out, said = capsys.readouterr()
    assert said == ""
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["event"] for each in found] == [
        *("started", "retrying", "continued", "waiting", "noted", "noted", "started over"),
        *("progress", "progress", "finished", "failed", "failed", "left out"),
    ]
    assert all(each["time"] == "2026-09-21T14:13:20.000Z" and each["file"] for each in found)
    started, progress, finished, failed = found[0], found[7], found[9], found[10]
    assert (started["offset"], started["size"], started["protocol"]) == (50 * MIB, 100 * MIB, "tus")
    assert (progress["offset"], progress["acknowledged"], progress["speed"]) == (10 * MIB, 8 * MIB, 5 * MIB)
    assert (finished["url"], finished["digest"], finished["checked"]) == (URL, DIGEST, True)
    assert (failed["error"], failed["kind"], failed["status"]) == ("no\x1b space", "ClientError", None)
