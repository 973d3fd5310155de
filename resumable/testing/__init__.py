"""For tests of this package and of what is built on it: a server, fakes and drivers. Public, and kept working like the
rest.

Invariant: to import this costs next to nothing, as each run of pytest does where the package is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from resumable.testing.running_server import ReportedEvent, RunningServer, upload_server
    from resumable.testing.simulated_disk import SimulatedCrash, SimulatedDisk
    from resumable.testing.stepped import CallQueue, SteppedBatcher, SteppedPool

__all__ = [
    "CallQueue",
    "ReportedEvent",
    "RunningServer",
    "SimulatedCrash",
    "SimulatedDisk",
    "SteppedBatcher",
    "SteppedPool",
    "upload_server",
]
_MODULES: Final = {
    "running_server": ("ReportedEvent", "RunningServer", "upload_server"),
    "simulated_disk": ("SimulatedCrash", "SimulatedDisk"),
    "stepped": ("CallQueue", "SteppedBatcher", "SteppedPool"),
}
_WHERE: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
