"""What the benchmark tells: its figures, the samples they come from, and what resumable has promised to reach.

Changes when a figure or a promise does. Invariant: a figure is the median of its samples with the least and the
greatest beside it, and a comparison is the median of ratios taken pair by pair, since only what ran side by side
compares.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.servers import BEFORE, OURS

UNCOMPARED = {"takeover", "stop", "deaf", "s3-paced", "s3-many", "s3-backlog", "round-robin", "elsewhere", "killed"}


@dataclass(frozen=True)
class Figure:
    """One row of the report: ``field`` of the samples of ``measure``, in ``unit`` with ``digits`` decimals.

    Only speed and memory are ``compared`` as ratios: of what happens when things break, the seconds tell enough.
    The ``drawn`` ones are in the picture.
    """

    measure: str
    field: str
    label: str
    unit: str
    digits: int
    more_is_better: bool = False
    drawn: bool = False

    @property
    def compared(self) -> bool:
        return self.measure not in UNCOMPARED


@dataclass(frozen=True)
class Target:
    """A promise: ``bound`` is for our median, or with a ``rival`` for our ratio to it; at least or at most."""

    measure: str
    field: str
    bound: float
    rival: str | None = None


@dataclass(frozen=True)
class Sample:
    """What one run of one measure gave for one server; ``pair`` numbers the round it ran in."""

    measure: str
    server: str
    pair: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some samples."""

    median: float
    low: float
    high: float


FIGURES = (
    Figure("big", "rate", "one PATCH of 1 GiB", "MiB/s", 0, True, True),
    Figure("big", "cpu", "CPU seconds per GiB", "s", 2, False, True),
    Figure("parallel", "rate", "8 parallel PATCHes of 128 MiB", "MiB/s", 0, True, True),
    Figure("parallel", "cpu", "CPU seconds per GiB, 8 in parallel", "s", 2),
    Figure("parallel", "fair", "slowest / fastest of these 8", "x", 2),
    Figure("patches", "rate", "one PATCH of 256 MiB after the other", "MiB/s", 0, True),
    Figure("patches", "cpu", "CPU seconds per GiB, one of these after the other", "s", 2),
    Figure("paced", "cpu", "CPU seconds per GiB, 8 in parallel at 12 MiB/s each", "s", 2),
    *(
        figure
        for mtu, label in (("mtu-1500", "segments of 1,500 bytes"), ("mtu-9000", "segments of 9,000 bytes"))
        for figure in (
            Figure(mtu, "rate", f"one PATCH of 512 MiB, {label}", "MiB/s", 0, True),
            Figure(mtu, "cpu", f"CPU seconds per GiB, {label}", "s", 2),
        )
    ),
    Figure("creation", "rate", "creation-with-upload of 4 KiB, 32 connections", "uploads/s", 0, True, True),
    Figure("creation", "p50", "latency of such an upload, median", "ms", 1),
    Figure("creation", "p99", "latency of such an upload, p99", "ms", 1, False, True),
    Figure("creation", "cpu", "CPU per such upload", "ms", 3),
    Figure("append", "rate", "POST, then PATCH of 4 KiB, 32 connections", "uploads/s", 0, True, True),
    Figure("append", "cpu", "CPU per such upload", "ms", 3),
    Figure("draft-creation", "rate", "creation of 4 KiB by the IETF draft, 32 connections", "uploads/s", 0, True),
    Figure("draft-creation", "cpu", "CPU per such upload", "ms", 3),
    Figure("draft-creation", "beside", "the draft's speed / that of creation-with-upload by tus", "x", 3, True),
    Figure("draft-creation", "cpu-beside", "the draft's CPU per upload / that of tus", "x", 3),
    Figure("draft-append", "rate", "one PATCH of 256 MiB by the IETF draft after the other", "MiB/s", 0, True),
    Figure("draft-append", "cpu", "CPU seconds per GiB, one of these after the other", "s", 2),
    Figure("draft-append", "beside", "the draft's speed / that of such PATCHes by tus", "x", 3, True),
    Figure("draft-append", "cpu-beside", "the draft's CPU per byte / that of tus", "x", 3),
    Figure("connect", "rate", "new connections that each open and half send an upload", "uploads/s", 0, True, True),
    Figure("connect", "cpu", "CPU per such connection", "ms", 3),
    Figure("big", "memory", "memory above idle while the server receives 1 GiB", "MiB", 1, False, True),
    Figure("huge", "memory", "memory above idle while the server receives 10 GiB", "MiB", 1),
    Figure("open", "memory", "memory per open half-sent upload", "KiB", 1, False, True),
    Figure("s3-big", "rate", "512 MiB until its object is in S3", "MiB/s", 0, True, True),
    Figure("s3-big", "answered", "512 MiB with an S3 remote, until the answer", "MiB/s", 0, True),
    Figure("s3-big", "cpu", "CPU seconds per GiB into S3", "s", 2, False, True),
    Figure("s3-paced", "paced", "client's time at 100 MiB/s, with an S3 remote / without", "x", 3),
    Figure("s3-paced", "full", "client's speed without a limit, with an S3 remote / without", "x", 2, True),
    Figure(
        "s3-small", "rate", "4 KiB uploads until their objects are in S3, 16 connections", "uploads/s", 0, True, True
    ),
    Figure("s3-small", "cpu", "CPU per such upload into S3", "ms", 3),
    Figure("s3-small", "requests", "requests to S3 for each of these uploads", "", 2),
    Figure("s3-slices", "requests", "requests to S3 for 50 MiB in 200 PATCHes", "", 0, False, True),
    Figure("s3-many", "memory", "memory above idle, 16 parallel uploads into S3", "MiB", 1),
    Figure("s3-backlog", "seconds", "start with 10,000 unfinished replicas, until it answers", "s", 2),
    Figure("s3-backlog", "memory", "memory for these replicas while the store is down", "MiB", 1),
    Figure("s3-backlog", "rate", "replicas stored when the store is back", "uploads/s", 0, True),
    *(
        figure
        for scheme, emulator, sdk in (
            ("az", "Azurite", "azure-storage-blob"),
            ("gs", "gcp-storage-emulator", "google-cloud-storage"),
        )
        for figure in (
            Figure(scheme, "rate", f"256 MiB until they are in {emulator}", "MiB/s", 0, True),
            Figure(scheme, "beside", f"its speed / {sdk}'s speed, file already on disk", "x", 2, True),
            Figure(scheme, "received", f"its speed / {sdk}'s speed, file received first", "x", 2, True),
            Figure(scheme, "cpu", f"CPU seconds per GiB into {emulator}", "s", 2),
            Figure(scheme, "sdk-cpu", f"CPU seconds per GiB of {sdk}, file already on disk", "s", 2),
            Figure(scheme, "requests", f"requests to {emulator} for these 256 MiB", "", 0),
            Figure(scheme, "memory", f"memory above idle while it copies them to {emulator}", "MiB", 1),
        )
    ),
    Figure("tls", "1.1", "one PATCH of 512 MiB over TLS by HTTP/1.1", "MiB/s", 0, True, True),
    Figure("tls", "1.1-cpu", "CPU seconds per GiB over TLS by HTTP/1.1", "s", 2),
    Figure("tls", "2", "one PATCH of 512 MiB over TLS by HTTP/2", "MiB/s", 0, True, True),
    Figure("tls", "2-cpu", "CPU seconds per GiB over TLS by HTTP/2", "s", 2),
    Figure("tls-parallel", "rate", "8 parallel PATCHes of 128 MiB over TLS", "MiB/s", 0, True),
    Figure("tls-parallel", "cpu", "CPU seconds per GiB over TLS, 8 in parallel", "s", 2),
    Figure("tls", "beside", "HTTP/2's speed / HTTP/1.1's, both over TLS", "x", 2, True),
    Figure("http2", "beside", "the same over 50 ms each way at 50 MiB/s", "x", 3, True),
    Figure("http2", "2", "512 MiB over that link by HTTP/2", "MiB/s", 1, True),
    Figure(
        "two-nodes", "rate", "creation-with-upload of 4 KiB, half of them at each of two nodes", "uploads/s", 0, True
    ),
    Figure("round-robin", "one", "200 PATCHes of 256 KiB in turn, at one node", "PATCHes/s", 0, True),
    Figure("round-robin", "both", "the same in turns at two nodes", "PATCHes/s", 0, True),
    Figure("round-robin", "ratio", "two nodes / one node", "x", 2, True),
    Figure("elsewhere", "silent", "HEAD, then PATCH at another node while the client is silent, slowest", "s", 3),
    Figure("elsewhere", "frozen", "HEAD, then PATCH at another node while the process is frozen, slowest", "s", 3),
    Figure("killed", "longest", "a node is killed: longest time until an upload goes on at another", "s", 3),
    Figure("takeover", "head", "slowest HEAD while another request holds the upload and is silent", "s", 2),
    Figure("takeover", "patch", "slowest accepted PATCH while another request is silent", "s", 2, False, True),
    Figure("takeover", "kept", "bytes of the silent request that the server kept", "%", 0, True),
    Figure("stop", "seconds", "from SIGTERM to the exit, with an upload under way", "s", 2),
    Figure("deaf", "seconds", "the same, with a client that doesn't listen while it sends", "s", 2),
    Figure("stop", "kept", "bytes of that upload that the server has after a restart", "%", 0, True),
)

TARGETS = (
    Target("big", "rate", 2.0, "tusd"),
    Target("big", "rate", 2.6, "rustus"),
    Target("big", "rate", 3.4, "tus-node"),
    Target("big", "cpu", 0.5, "tusd"),
    Target("big", "cpu", 0.42, "rustus"),
    Target("big", "cpu", 0.31, "tus-node"),
    Target("parallel", "rate", 1.4, "tusd"),
    Target("parallel", "rate", 1.8, "rustus"),
    Target("parallel", "rate", 3.6, "tus-node"),
    Target("mtu-1500", "rate", 0.95, BEFORE),
    Target("mtu-9000", "rate", 0.95, BEFORE),
    Target("creation", "rate", 0.6, "tusd"),
    Target("creation", "rate", 0.4, "rustus"),
    Target("creation", "rate", 3.0, "tus-node"),
    Target("creation", "cpu", 1.0, "tusd"),
    Target("creation", "cpu", 1.85, "rustus"),
    Target("creation", "cpu", 0.33, "tus-node"),
    Target("creation", "p99", 1.0, "tusd"),
    Target("creation", "p99", 3.0, "rustus"),
    Target("creation", "p99", 0.6, "tus-node"),
    Target("append", "rate", 0.5, "tusd"),
    Target("append", "rate", 0.55, "rustus"),
    Target("append", "rate", 2.2, "tus-node"),
    Target("draft-creation", "beside", 0.97),
    Target("draft-append", "beside", 0.97),
    Target("connect", "rate", 0.7, "tusd"),
    Target("connect", "rate", 0.7, "rustus"),
    Target("big", "memory", 40.0),
    Target("huge", "memory", 40.0),
    Target("open", "memory", 64.0),
    Target("s3-big", "rate", 1.3, "tusd"),
    Target("s3-big", "rate", 3.5, "tus-node"),
    Target("s3-big", "cpu", 0.8, "tusd"),
    Target("s3-big", "cpu", 0.25, "tus-node"),
    Target("s3-paced", "paced", 1.05),
    Target("s3-paced", "full", 0.6),
    Target("s3-small", "rate", 1.5, "tusd"),
    Target("s3-small", "rate", 17.0, "tus-node"),
    Target("s3-small", "cpu", 0.6, "tusd"),
    Target("s3-small", "requests", 1.0),
    Target("s3-slices", "requests", 9),
    *(
        target
        for version in ("1.1", "2")
        for target in (Target("tls", version, 1.6, BEFORE), Target("tls", f"{version}-cpu", 0.55, BEFORE))
    ),
    Target("http2", "beside", 0.95),
    Target("s3-many", "memory", 64.0),
    Target("s3-backlog", "seconds", 3.0),
    Target("az", "beside", 0.9),
    Target("gs", "beside", 0.9),
    Target("takeover", "head", 0.5),
    Target("takeover", "patch", 0.5),
)


def values(samples: Iterable[Sample], figure: Figure, server: str) -> dict[int, float]:
    """Return the figure's values for a server by pair."""
    return {
        sample.pair: sample.values[figure.field]
        for sample in samples
        if sample.measure == figure.measure and sample.server == server and figure.field in sample.values
    }


def spread(samples: Iterable[Sample], figure: Figure, server: str) -> Spread | None:
    """Return median, least and greatest, or None where nothing was measured."""
    found = values(samples, figure, server).values()
    return Spread(statistics.median(found), min(found), max(found)) if found else None


def ratio(samples: Sequence[Sample], figure: Figure, rival: str, server: str = OURS) -> float | None:
    """Return the median over the pairs of the server's divided by the rival's, or None where no pair has both."""
    ours, theirs = values(samples, figure, server), values(samples, figure, rival)
    ratios = [ours[pair] / theirs[pair] for pair in ours.keys() & theirs.keys() if theirs[pair]]
    return statistics.median(ratios) if ratios else None


def judge(samples: Sequence[Sample], target: Target) -> bool | None:
    """Tell whether a promise is kept, or None where it could not be measured."""
    figure = next(one for one in FIGURES if (one.measure, one.field) == (target.measure, target.field))
    if target.rival is None:
        found = spread(samples, figure, OURS)
        got = found.median if found else None
    else:
        got = ratio(samples, figure, target.rival)
    if got is None:
        return None
    return got >= target.bound if figure.more_is_better else got <= target.bound
