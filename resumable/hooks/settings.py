"""What an operator says of hooks.

One reason to change: how hooks are named. Pure.

Invariant: no message repeats a target: a URL's path or query may be a secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from attrs import field, frozen
from twisted.web.iweb import IPolicyForHTTPS

from resumable.hooks.guards import Patience
from resumable.hooks.interfaces import EventKind
from resumable.hooks.pacing import Delivery
from resumable.hooks.post import check_url
from resumable.masking import server_of
from resumable.model.hooks import QuestionKind

_NAMED = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9._-]{0,63})=)?(.+)", re.DOTALL)
TOLD = frozenset(EventKind) - {EventKind.PROGRESS}
ASKED = frozenset(QuestionKind)


class BadHookTarget(ValueError):
    """The message is one line for the operator."""


@frozen
class HookTarget:
    """``kind``: ``http``, ``tusd``, ``command`` or ``python``. ``address``: the URL, ``module:attribute`` or the name
    of an entry point; ``arguments``: of a command. ``name``: in logs, figures, and in the outbox, where it has to stay
    the same while events wait."""

    name: str
    kind: str
    address: str = field(default="", repr=False)
    arguments: tuple[str, ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """What it is, for the log and messages, without what may be secret: of a URL only where it leads."""
        match self.kind:
            case "command":
                return f"exec:{self.arguments[0]}"
            case "python":
                return f"python:{self.address}"
        return f"{'tusd+' if self.kind == 'tusd' else ''}{server_of(self.address)}"


@frozen
class HookSettings:
    """``told`` get the events in ``events``; ``asked`` the questions in ``questions``, in this order.

    ``secrets`` sign, the newest first. ``forward``: headers of clients that go along. ``timeout``: seconds, of one
    attempt. ``policy``: whom TLS trusts, None: the system's authorities. ``commands``: how many may run at once.
    """

    told: Sequence[HookTarget] = ()
    asked: Sequence[HookTarget] = ()
    events: frozenset[EventKind] = TOLD
    questions: frozenset[QuestionKind] = ASKED
    secrets: Sequence[bytes] = field(default=(), repr=False)
    forward: Sequence[str] = ()
    timeout: float = 5.0
    command_timeout: float = 10.0
    commands: int = 4
    policy: IPolicyForHTTPS | None = None
    patience: Patience = field(factory=Patience)
    delivery: Delivery = field(factory=Delivery)
    progress_interval: float = 1.0
    tusd_finished: EventKind = EventKind.FINISHED

    @property
    def deliverers(self) -> tuple[str, ...]:
        """For whom the catalog keeps facts."""
        return tuple(target.name for target in self.told)


def parse_target(text: str, default: str) -> HookTarget:
    """``[NAME=]TARGET``: ``https://...``, ``tusd+https://...``, ``exec:COMMAND LINE`` or ``python:NAME``; ``default``
    is the name where none is given. Raises BadHookTarget."""
    match = _NAMED.fullmatch(text)
    name, target = (match[1] or default, match[2]) if match else (default, text)
    scheme, _, rest = target.partition(":")
    try:
        if scheme in ("http", "https"):
            return HookTarget(name, "http", check_url(target))
        if scheme in ("tusd+http", "tusd+https"):
            return HookTarget(name, "tusd", check_url(target.removeprefix("tusd+")))
        if scheme == "exec" and (arguments := tuple(shlex.split(rest))):
            return HookTarget(name, "command", arguments=arguments)
    except ValueError as error:
        raise BadHookTarget(f"hook {name}: {error}") from None
    if scheme == "python" and rest:
        return HookTarget(name, "python", rest)
    raise BadHookTarget(f"hook {name}: https://..., tusd+https://..., exec:COMMAND or python:NAME is expected")


def parse_targets(texts: Sequence[str], default: str) -> tuple[HookTarget, ...]:
    """All of them; without names they are ``default``, ``default-2``, ... Raises BadHookTarget."""
    found = tuple(parse_target(text, default if n == 1 else f"{default}-{n}") for n, text in enumerate(texts, 1))
    names = [target.name for target in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadHookTarget(f"two hooks are called {twice}")
    return found


def parse_kinds(names: Sequence[str]) -> tuple[frozenset[EventKind], frozenset[QuestionKind]]:
    """Events and questions by name. Raises ValueError, in words that follow "expected"."""
    events: Mapping[str, EventKind] = {kind.value: kind for kind in EventKind}
    questions: Mapping[str, QuestionKind] = {kind.value: kind for kind in QuestionKind}
    unknown = [name for name in names if name not in events and name not in questions]
    if unknown:
        raise ValueError("some of " + ", ".join([*events, *questions]))
    return (
        frozenset(events[name] for name in names if name in events),
        frozenset(questions[name] for name in names if name in questions),
    )
