"""From what an operator has set to `HookSettings`.

Reason to change: an option of hooks comes, goes or means something else. Invariant: no message repeats a target or a
secret; what was set in vain is an error rather than ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from resumable.hooks.guards import Patience
from resumable.hooks.interfaces import EventKind
from resumable.hooks.pacing import Delivery
from resumable.hooks.post import check_forward
from resumable.hooks.settings import HookSettings, parse_kinds, parse_targets
from resumable.hooks.signing import parse_secret
from resumable.hooks.tls import Tls, from_files


def hook_settings(values: Mapping[str, Any]) -> HookSettings:
    """``values``: those of the options, by their flags with underscores; more may be among them.

    Raises ValueError with a line for the operator. Reads the files of secrets and certificates.
    """
    told, asked = parse_targets(values["hook"], "hook"), parse_targets(values["guard"], "guard")
    if values["hook_key"] and not values["hook_cert"]:
        raise ValueError("--hook-key needs --hook-cert")
    # an attempt includes reading the answer, so what delivers gets more than what posts
    longest = max(values["hook_timeout"], values["hook_command_timeout"])
    delivery = evolve(
        Delivery(),
        concurrency=values["hook_concurrency"],
        per_second=float(values["hook_rate"]),
        timeout=max(Delivery().timeout, 2 * longest),
        give_up_after=values["hook_give_up_after"],
    )
    return HookSettings(
        told=told,
        asked=asked,
        events=parse_kinds(values["hook_events"])[0],
        questions=parse_kinds(values["guard_questions"])[1],
        secrets=_secrets(values["hook_secret"], values["hook_secret_file"]),
        forward=check_forward(values["hook_forward_headers"]),
        timeout=values["hook_timeout"],
        command_timeout=values["hook_command_timeout"],
        commands=values["hook_commands"],
        policy=_policy(values["hook_ca"], values["hook_cert"], values["hook_key"]),
        patience=Patience(within=values["guard_timeout"]),
        delivery=delivery,
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
