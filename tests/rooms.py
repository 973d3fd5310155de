"""Which room may import which, and the picture of it: ``python -m tests.rooms`` draws docs/rooms.svg anew."""

from __future__ import annotations

from pathlib import Path

PICTURE = Path(__file__).parent.parent / "docs/rooms.svg"

#: Every room may import these.
BOTTOM = ("model", "aio", "protocol", "masking", "networks")
ROOMS: dict[str, frozenset[str]] = {}
"""What each room may import of ours, beside itself and the package's __init__ (which imports nothing)."""


def may_import(room: str, *others: str) -> None:
    """``room`` may import ``others``, and what is at the bottom."""
    ROOMS[room] = frozenset(others) | (frozenset(BOTTOM) if room not in BOTTOM else frozenset())


may_import("protocol")
may_import("aio")
may_import("masking")
may_import("networks")
may_import("model", "masking", "protocol")
may_import("spool", "remotes")
may_import("catalog")
may_import("httpclient")
may_import("remotes", "httpclient")
may_import("auth", "httpclient")
may_import("replication", "remotes", "spool", "catalog")
may_import("uploads", "spool", "catalog")
may_import("hooks", "httpclient")
may_import("http", "auth", "uploads", "replication", "spool")
may_import("listening", "auth", "spool")
may_import("metrics", "catalog", "hooks", "http", "replication", "spool", "uploads")
may_import("client", "httpclient")
may_import("config", "auth", "hooks", "http", "listening", "remotes", "spool")
may_import(
    "daemon",
    *(
        "auth",
        "catalog",
        "config",
        "hooks",
        "http",
        "listening",
        "metrics",
        "remotes",
        "replication",
        "spool",
        "uploads",
    ),
)
may_import("embed", "config", "daemon", "hooks", "http", "listening")
may_import("testing", "embed", "hooks", "remotes", "spool")
may_import("doctor", "auth", "catalog", "config", "daemon", "hooks", "httpclient", "listening", "remotes", "spool")
may_import("cli", "client", "config", "daemon", "doctor", "httpclient", "listening", "spool")
may_import("__main__", "cli")

#: What a room is for, in the picture.
PURPOSE = {
    "model": "records and interfaces",
    "aio": "Deferreds, threads, system",
    "protocol": "tus, without I/O",
    "masking": "no secrets in logs",
    "networks": "addresses",
    "spool": "data files on disk",
    "catalog": "records in a database",
    "remotes": "S3, Azure, Google, files",
    "replication": "spool to remotes",
    "uploads": "the use cases",
    "auth": "who may do what",
    "hooks": "events and questions",
    "http": "channel, routes, admin",
    "httpclient": "requests of our own",
    "listening": "ports, TLS, PROXY",
    "metrics": "Prometheus",
    "testing": "fakes, contract suites",
    "config": "options, settings",
    "daemon": "the service",
    "doctor": "finds what is wrong",
    "client": "uploads from a program",
    "cli": "the command line",
    "embed": "in your own program",
}
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 150, 46, 28, 44, 24


def levels() -> list[list[str]]:
    """The rooms above the bottom, the lowest first; each imports only rooms of the levels below its own."""
    above = {room: below - set(BOTTOM) for room, below in ROOMS.items() if room not in BOTTOM and room in PURPOSE}
    found: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(above):
        level = sorted(room for room, below in above.items() if room not in placed and below <= placed)
        assert level, f"a circle among {set(above) - placed}"
        found.append(level)
        placed |= set(level)
    return found


def direct(room: str) -> list[str]:
    """The rooms that it may import and that none of the others it may import leads to."""
    below = ROOMS[room] - set(BOTTOM)
    return sorted(below - {far for near in below for far in ROOMS[near]})


def picture() -> str:
    """The SVG: a box for each room, an arrow to each room that it may import, the common ones in a band below."""
    rows = levels()
    widest = max(map(len, [*rows, BOTTOM]))
    width = 2 * MARGIN + widest * WIDTH + (widest - 1) * ACROSS
    height = 2 * MARGIN + (len(rows) + 1) * HEIGHT + len(rows) * DOWN + 30
    place = {}
    for number, row in enumerate(reversed(rows)):
        left = (width - len(row) * WIDTH - (len(row) - 1) * ACROSS) / 2
        for column, room in enumerate(row):
            place[room] = left + column * (WIDTH + ACROSS), MARGIN + number * (HEIGHT + DOWN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif"'
        ' font-size="13" role="img" aria-label="The rooms of the code, and which may import which">',
        '<defs><marker id="to" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#64748b"/></marker></defs>',
        '<rect width="100%" height="100%" rx="10" fill="#ffffff"/>',
    ]
    for room, (x, y) in place.items():
        for other in direct(room):
            to_x, to_y = place[other]
            start, end, bend = (x + WIDTH / 2, y + HEIGHT), (to_x + WIDTH / 2, to_y - 2), DOWN * 0.8
            parts.append(
                f'<path d="M {start[0]:.0f} {start[1]} C {start[0]:.0f} {start[1] + bend:.0f}, {end[0]:.0f}'
                f' {end[1] - bend:.0f}, {end[0]:.0f} {end[1]}" fill="none" stroke="#64748b" marker-end="url(#to)"/>'
            )
    parts += [_box(room, x, y, "#eff6ff", "#93c5fd") for room, (x, y) in place.items()]
    band = MARGIN + len(rows) * (HEIGHT + DOWN)
    parts.append(
        f'<text x="{width / 2:.0f}" y="{band}" text-anchor="middle" fill="#475569">every room may import these</text>'
    )
    left = (width - len(BOTTOM) * WIDTH - (len(BOTTOM) - 1) * ACROSS) / 2
    parts += [
        _box(room, left + number * (WIDTH + ACROSS), band + 12, "#f0fdf4", "#86efac")
        for number, room in enumerate(BOTTOM)
    ]
    return "\n".join([*parts, "</svg>\n"])


def _box(room: str, x: float, y: float, fill: str, stroke: str) -> str:
    said = f'x="{x + WIDTH / 2:.0f}" text-anchor="middle"'
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{fill}" stroke="{stroke}"/>'
        f'<text {said} y="{y + 20:.0f}" font-weight="600" fill="#0f172a">{room}</text>'
        f'<text {said} y="{y + 36:.0f}" font-size="11" fill="#475569">{PURPOSE[room]}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
