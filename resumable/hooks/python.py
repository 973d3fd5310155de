"""A hook that is Python: an entry point in the group `GROUP`, or ``module:attribute``.

Invariant: `load` returns an object that provides at least one of the hooks' interfaces. It runs in the reactor's
thread, and must not block it; its answers and failures are checked like any other hook's.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from resumable.hooks.interfaces import IGuard, IHook, IWatcher
from resumable.hooks.messages import shown

GROUP = "resumable.hooks"
ROLES = (IHook, IGuard, IWatcher)


class BadHook(ValueError):
    """There is no such hook; the message is one line for the operator."""


def load(name: str) -> Any:
    """The hook of that name: the object that is found, or its result when it is called without arguments.

    Raises BadHook."""
    try:
        found = _find(name)
        if not provides(found) and callable(found):
            found = found()
    except BadHook:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code runs here
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadHook(f"the hook {shown(name)} can't be loaded: {said}") from error
    if not provides(found):
        raise BadHook(f"the hook {shown(name)} provides none of IHook, IGuard, IWatcher")
    return found


def provides(found: object) -> bool:
    """Whether it is a hook of some kind."""
    return any(role.providedBy(found) for role in ROLES)


def _find(name: str) -> Any:
    if ":" in name:
        return EntryPoint("hook", name, GROUP).load()
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        known = ", ".join(sorted(point.name for point in entry_points(group=GROUP))) or "none"
        raise BadHook(f"no package here has a hook {shown(name)}; known: {known}")
    return points[0].load()
