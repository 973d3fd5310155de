"""Settings of hooks: the targets that an operator names, and the objects made of the options.

Invariants: no message repeats a target or a secret: a URL's path or query may be one. An option that has no effect is
an error.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from twisted.web.iweb import IPolicyForHTTPS

from resumable.hooks.ask import Patience
from resumable.hooks.functions import HookFunctions
from resumable.hooks.http import Tls, check_forward, check_url, from_files
from resumable.hooks.interfaces import EventKind
from resumable.hooks.messages import parse_secret
from resumable.hooks.retry_policy import RetryPolicy
from resumable.masking import server_of
from resumable.model.hooks import QuestionKind

_NAMED = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9._-]{0,63})=)?(.+)", re.DOTALL)
DEFAULT_EVENTS = frozenset(EventKind) - {EventKind.PROGRESS}
ALL_QUESTIONS = frozenset(QuestionKind)


class BadHookTarget(ValueError):
    """The message is one line for the operator."""


@frozen
class HookTarget:
    """``kind``: ``http``, ``tusd``, ``command`` or ``python``. ``address``: the URL, ``module:attribute`` or the name
    of an entry point; ``arguments``: of a command. ``name``: in logs, metrics, and in the outbox, where it has to stay
    the same while events wait. ``functions``: of a Python hook that a program brings along."""

    name: str
    kind: str
    address: str = field(default="", repr=False)
    arguments: tuple[str, ...] = field(default=(), repr=False)
    functions: HookFunctions | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The target for logs and messages, without its secret parts: of a URL only the server."""
        match self.kind:
            case "command":
                return f"exec:{self.arguments[0]}"
            case "python":
                return f"python:{self.address}"
        return f"{'tusd+' if self.kind == 'tusd' else ''}{server_of(self.address)}"


@frozen
class HookSettings:
    """``hooks`` get the events in ``events``; ``guards`` get the questions in ``questions``, in this order.

    ``secrets`` sign, the newest first. ``forward``: headers of clients that go along. ``timeout``: seconds, of one
    attempt. ``policy``: the authorities that TLS trusts, None: the system's. ``commands``: how many may run at once.
    """

    hooks: Sequence[HookTarget] = ()
    guards: Sequence[HookTarget] = ()
    events: frozenset[EventKind] = DEFAULT_EVENTS
    questions: frozenset[QuestionKind] = ALL_QUESTIONS
    secrets: Sequence[bytes] = field(default=(), repr=False)
    forward: Sequence[str] = ()
    timeout: float = 5.0
    command_timeout: float = 10.0
    commands: int = 4
    policy: IPolicyForHTTPS | None = None
    patience: Patience = field(factory=Patience)
    retry_policy: RetryPolicy = field(factory=RetryPolicy)
    progress_interval: float = 1.0
    tusd_finished: EventKind = EventKind.FINISHED

    @property
    def deliverers(self) -> tuple[str, ...]:
        """Names of the hooks for which the catalog keeps facts."""
        return tuple(target.name for target in self.hooks)


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


def hook_settings(values: Mapping[str, Any]) -> HookSettings:
    """The settings for the options' ``values``, by their flags with underscores; more may be among them.

    Reads the files of secrets and certificates. Raises ValueError with a line for the operator.
    """
    hooks, guards = parse_targets(values["hook"], "hook"), parse_targets(values["guard"], "guard")
    if values["hook_key"] and not values["hook_cert"]:
        raise ValueError("--hook-key needs --hook-cert")
    # an attempt includes reading the answer, so it gets more time than the request
    longest = max(values["hook_timeout"], values["hook_command_timeout"])
    retry_policy = evolve(
        RetryPolicy(),
        concurrency=values["hook_concurrency"],
        per_second=float(values["hook_rate"]),
        timeout=max(RetryPolicy().timeout, 2 * longest),
        give_up_after=values["hook_give_up_after"],
    )
    return HookSettings(
        hooks=hooks,
        guards=guards,
        events=parse_kinds(values["hook_events"])[0],
        questions=parse_kinds(values["guard_questions"])[1],
        secrets=_secrets(values["hook_secret"], values["hook_secret_file"]),
        forward=check_forward(values["hook_forward_headers"]),
        timeout=values["hook_timeout"],
        command_timeout=values["hook_command_timeout"],
        commands=values["hook_commands"],
        policy=_policy(values["hook_ca"], values["hook_cert"], values["hook_key"]),
        patience=Patience(within=values["guard_timeout"]),
        retry_policy=retry_policy,
        progress_interval=values["hook_progress_interval"],
        tusd_finished=EventKind(values["hook_tusd_finished"]),
    )


def _secrets(texts: tuple[str, ...], path: Path | None) -> tuple[bytes, ...]:
    lines: list[str] = []
    if path is not None:
        lines = [line.strip() for line in _read("--hook-secret-file", path).splitlines() if line.strip()]
        if not lines:
            raise ValueError(f"--hook-secret-file: {path} is empty")
    try:
        return tuple(map(parse_secret, (*texts, *lines)))
    except ValueError as error:
        raise ValueError(f"--hook-secret: {error}") from None


def _read(flag: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        raise ValueError(f"{flag}: {path} can't be read ({problem.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{flag}: {path} is no text") from None


def _policy(authorities: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    if authorities is None and certificate is None:
        return None
    for flag, path in (("--hook-ca", authorities), ("--hook-cert", certificate), ("--hook-key", key)):
        if path is not None:
            _read(flag, path)
    try:
        return from_files(authorities, certificate, key)
    except (ValueError, OSError) as problem:
        raise ValueError(f"--hook-ca, --hook-cert, --hook-key: {problem}") from None
