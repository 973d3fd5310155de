"""Whether each remote would work: what ``--check`` does, one by one.

Changes when remotes are tried in another way. Invariant: one that is set up wrong keeps none of the others from being
tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from resumable.config.options import Settings
from resumable.daemon import remote_tier as tiers
from resumable.doctor.findings import Finding
from resumable.model.errors import StartupError
from resumable.remotes.urls import RemoteSpec


async def look(reactor: Any, settings: Settings, wall: Callable[[], float]) -> Mapping[str, str | None]:
    """What is wrong with each remote, by its name; None: nothing. All are asked at once."""

    async def ask(spec: RemoteSpec) -> str | None:
        try:
            return (await tiers.tried(reactor, evolve(settings, remotes=(spec,)), wall))[spec.name]
        except StartupError as error:
            return str(error).removeprefix(f"remote {spec.name}: ")

    answers = await gatherResults([Deferred.fromCoroutine(ask(spec)) for spec in settings.remotes])
    return dict(zip((spec.name for spec in settings.remotes), answers, strict=True))


def judge(found: Mapping[str, str | None]) -> list[Finding]:
    if not found:
        return [Finding("remotes", "ok", "there is none: uploads stay on this disk")]
    return [_judged(f"remote {name}", wrong) for name, wrong in found.items()]


def _judged(name: str, wrong: str | None) -> Finding:
    if wrong is None:
        return Finding(name, "ok", "works")
    what, _, advice = wrong.partition("; ")
    return Finding(name, "bad", what, _sentence(advice or "compare its --remote with docs/remotes.md"))


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].rstrip('.')}."
