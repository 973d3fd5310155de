"""Records `resumable put` in a terminal as a moving picture: ``python -m tests.recordings`` writes docs/put.svg.

What is shown is what a real command draws, sending to a real server: it is cut by Ctrl-C, and run again. Only the
server's port is replaced.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fcntl import ioctl
from pathlib import Path
from select import select
from termios import TIOCSWINSZ
from xml.sax.saxutils import escape

from attrs import frozen
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from tests.e2e.daemon import Daemon, environment
from tests.e2e.tus import pattern

PICTURE = Path(__file__).parent.parent / "docs" / "put.svg"
WIDTH, HEIGHT = 88, 8
MIB = 1 << 20
SIZE, RATE, CUT = 160 * MIB, "24M", 43
#: Seconds without output, after which a frame is whole.
SETTLED = 0.04
LINE, CELL, MARGIN = 20, 8.43, 18
HOLD, TYPED, LAST = 0.5, 0.9, 5.0
BACK, FRONT, BAR = "#16181d", "#d5d9e0", "#2e333d"
COLOURS = {1: "#f7768e", 2: "#9ece6a", 3: "#e0af68", 5: "#bb9af7", 6: "#7dcfff"}
"""By their numbers in a terminal."""
_BARS = frozenset("━╸╺")


Lines = tuple[str, ...]


@frozen
class Frame:
    """What the terminal shows, for so many seconds. ``lines``: with their escape sequences of colours."""

    lines: Lines
    seconds: float


class Screen:
    """As much of a terminal as rich's live display asks for: lines, up, erase. Colours stay as they came."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = 0

    def feed(self, text: str) -> None:
        """Take what a program has written."""
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
                self._row -= int(up[1] or 1)
            elif part == "\x1b[2K":
                self.lines[self._row] = ""
            elif not part.startswith("\x1b") or part.endswith("m"):
                self.lines[self._row] += part if part != "\r" else ""


def recorded(home: Path, command: Sequence[str], screen: Screen, cut: int | None) -> Iterator[tuple[float, Lines]]:
    """What a command shows that runs in a terminal, each time that it has drawn, and when. ``cut``: the share, in per
    cent, at which it is sent a Ctrl-C."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    env = environment({"XDG_STATE_HOME": str(home / "state"), "TERM": "xterm-256color"})
    process = subprocess.Popen(
        [sys.executable, "-m", "resumable", *command],
        cwd=home,
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    os.close(theirs)
    shown: Lines = ()
    try:
        while True:
            if select([ours], [], [], SETTLED)[0]:
                screen.feed(os.read(ours, 65536).decode())
            elif tuple(screen.lines) != shown:
                shown = tuple(screen.lines)
                yield time.monotonic(), shown
                if cut is not None and max(shares(shown), default=0) >= cut:
                    cut = None
                    process.send_signal(signal.SIGINT)
    except OSError:  # it has ended
        yield time.monotonic(), tuple(screen.lines)
    finally:
        os.close(ours)
        process.wait()


def shares(lines: Lines) -> list[int]:
    """The per cent of the file in each row of it."""
    plain = "\n".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in lines)
    return [int(share) for share in re.findall(r"^film\.mp4 .*? (\d+) % ", plain, re.MULTILINE)]


def story() -> list[Frame]:
    """The whole recording: sent, cut, and gone on with."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        (home / "nas").mkdir()
        (home / "film.mp4").write_bytes(pattern(SIZE, seed=7))
        with Daemon("--digest", "sha256", "--remote", f"file://{home}/nas?name=nas", "--part-size", "8M") as daemon:
            daemon.start()
            return [_plain(frame, daemon) for frame in _scenes(home, daemon)]


def _scenes(home: Path, daemon: Daemon) -> Iterator[Frame]:
    screen = Screen()
    for cut in (CUT, None):
        screen.feed("\x1b[32m$\x1b[0m ")
        yield Frame(tuple(screen.lines), HOLD)
        screen.feed(f"resumable put film.mp4 {daemon.url}")
        yield Frame(tuple(screen.lines), TYPED)
        screen.feed("\n")
        moments = list(recorded(home, ["put", "film.mp4", daemon.url, "--limit-rate", RATE], screen, cut))
        ends = [*(at for at, _ in moments[1:]), moments[-1][0] + HOLD]
        for (at, lines), end in zip(moments, ends, strict=True):
            yield Frame(lines, max(SETTLED, end - at))
    yield Frame(tuple(screen.lines), LAST)


def _plain(frame: Frame, daemon: Daemon) -> Frame:
    return Frame(tuple(line.replace(daemon.origin, "http://127.0.0.1:8080") for line in frame.lines), frame.seconds)


def drawn(frames: Sequence[Frame], title: str) -> str:
    """The picture: frames on a strip that goes up, one at a time. Who wants no motion sees the last one."""
    height = HEIGHT * LINE + 2 * MARGIN
    width = WIDTH * CELL + 2 * MARGIN
    whole = sum(frame.seconds for frame in frames)
    stops, at = [], 0.0
    for number, frame in enumerate(frames):
        stops.append(f"{at / whole:.4%}{{transform:translateY({-number * height}px)}}")
        at += frame.seconds
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height + 24}" role="img"',
        f' aria-label="{title}">',
        "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre;fill:"
        + FRONT
        + "}"
        "@keyframes go{" + "".join(stops) + "}"
        f".s{{animation:go {whole:.2f}s steps(1,end) infinite}}"
        "@media(prefers-reduced-motion:reduce){.s{animation:none;transform:translateY("
        f"{-(len(frames) - 1) * height}px)}}}}</style>",
        f'<rect width="100%" height="100%" rx="10" fill="{BACK}"/>',
        *(
            f'<circle cx="{20 + 18 * n}" cy="18" r="5.5" fill="{c}"/>'
            for n, c in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
        f'<svg y="24" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}"><g class="s">',
    ]
    for number, frame in enumerate(frames):
        parts.append(f'<g transform="translate({MARGIN} {number * height + MARGIN})">')
        lines = "\n".join(frame.lines).rstrip().split("\n")[-HEIGHT:]
        parts += [_line(line, row) for row, line in enumerate(lines) if line]
        parts.append("</g>")
    return "\n".join([*parts, "</g></svg></svg>\n"])


def _line(line: str, row: int) -> str:
    console = Console(width=WIDTH * 2, color_system="truecolor", force_terminal=True)
    column, parts, base = 0, [], row * LINE + 14
    for text, style, _ in Segment.simplify(Text.from_ansi(line).render(console)):
        style = style or Style()
        if text and set(text) <= _BARS:
            parts.append(_bar(text, style, column, row))
        elif text.strip() and text != "\n":
            lead = len(text) - len(text.lstrip())
            word = text.strip()
            x = (column + lead) * CELL
            parts.append(
                f'<text x="{x:.1f}" y="{base}" textLength="{len(word) * CELL:.1f}"{_looks(style)}>{escape(word)}</text>'
            )
        column += len(text)
    return "".join(parts)


def _looks(style: Style) -> str:
    colour = _colour(style)
    fill = "" if colour is None else f' style="fill:{colour}"'
    return fill + (' font-weight="700"' if style.bold else "") + (' opacity=".65"' if style.dim else "")


def _colour(style: Style) -> str | None:
    return None if style.color is None or style.color.number is None else COLOURS.get(style.color.number)


def _bar(text: str, style: Style, column: int, row: int) -> str:
    """Glyphs of bars are drawn, as fonts don't agree on them; a half one has its half of the cell."""
    colour = _colour(style) or BAR
    begins = column + (0.5 if text[0] == "╺" else 0)
    ends = column + len(text) - (0.5 if text[-1] == "╸" else 0)
    y = row * LINE + 7
    return f'<rect x="{begins * CELL:.1f}" y="{y}" width="{(ends - begins) * CELL:.1f}" height="4" fill="{colour}"/>'


if __name__ == "__main__":
    told = "resumable put sends a file, is cut by Ctrl-C at a third, and goes on at the same byte"
    PICTURE.write_text(drawn(story(), told), encoding="utf-8")
