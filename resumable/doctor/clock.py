"""Whether the machine knows what time it is.

Changes when something else depends on it. Expiry, signatures and tokens go by the clock; S3 refuses requests that are
fifteen minutes off. Sources: adjtimex(2),
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (RequestTimeTooSkewed).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from attrs import field, frozen

from resumable.doctor import human
from resumable.doctor.findings import Finding

NAME = "clock"
#: This release is not older than that.
RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
SKEWED, OFF = 15 * 60.0, 60.0
_UNSYNCHRONISED = 0x40  # STA_UNSYNC


class _Timex(ctypes.Structure):
    """The first members of struct timex, and room for the rest."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    ]


@frozen
class Clock:
    """``now``: seconds since the epoch. ``goes_on``: the monotonic one does. ``synchronised``: None where the kernel
    doesn't say. ``others``: seconds that others are ahead, by their names."""

    now: float
    goes_on: bool
    synchronised: bool | None
    others: Mapping[str, float] = field(factory=dict)


def synchronised() -> bool | None:
    """Whether something keeps the clock right, as the kernel was told."""
    timex = _Timex()
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else not timex.status & _UNSYNCHRONISED


def judge(clock: Clock) -> list[Finding]:
    shown = datetime.fromtimestamp(clock.now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    set_it = "Set it, and run chrony or systemd-timesyncd (timedatectl set-ntp true)."
    if clock.now < RELEASED:
        return [Finding(NAME, "bad", f"it is {shown} by this machine, before this release was made", set_it)]
    if not clock.goes_on:
        what = "the monotonic clock went back, which no time-out survives"
        return [Finding(NAME, "bad", what, "It is the kernel's or the virtual machine's: choose another clocksource.")]
    findings = [_compared(name, ahead, set_it) for name, ahead in clock.others.items() if abs(ahead) > OFF]
    if clock.synchronised is False:
        what = f"{shown}; the kernel says that nothing keeps it right"
        advice = "Run chrony or systemd-timesyncd, unless the host sets this machine's clock: stores refuse 15 minutes."
        findings.append(Finding(NAME, "warn", what, advice))
    if findings:
        return findings
    agrees = f", as by {', '.join(clock.others)}" if clock.others else ""
    return [Finding(NAME, "ok", f"{shown}{agrees}{', kept right' if clock.synchronised else ''}")]


def _compared(name: str, ahead: float, advice: str) -> Finding:
    what = f"{name} is {human.age(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine"
    if abs(ahead) >= SKEWED:
        return Finding(NAME, "bad", f"{what}; S3 refuses requests that are 15 minutes off", advice)
    return Finding(NAME, "warn", what, advice)
