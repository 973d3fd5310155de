"""The options that all processes of one catalog must share, as they tell them to each other.

Invariant: no secret is told. Of what may hold one there are a few letters of a digest: enough to see that two differ,
not enough to find it out. Files are named by whether they are given: their paths may differ, as those of the upload
directory may. What is each process's own (ports, bounds of memory and rates, logs, time-outs) isn't here. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import fields

from resumable.masking import masked
from resumable.model.usage import Quota

if TYPE_CHECKING:
    from resumable.auth.build import AccessSettings, TokenSettings
    from resumable.config.options import Settings
    from resumable.hooks.settings import HookSettings, HookTarget
    from resumable.remotes.urls import RemoteSpec

DIGEST: Final = 6
"""Hexadecimal digits of a digest that are told: of 16 million secrets one looks the same."""
NOT_SET: Final = "none"

_PLAIN: Final = (
    *("base_path", "public_url", "location", "status_path", "max_size", "expire_after"),
    *("keep_partials", "remember", "final_timeout", "part_size", "ack", "ack_timeout"),
    *("local", "reclaim_after", "terminate_remote", "remote_attempts", "give_up_after", "sweep"),
    *("max_lag", "max_lag_age", "download_from_remote", "download_inline"),
    *("min_append_size", "max_append_size", "digest"),
)
"""Fields of `Settings` that are told as they are; the flags have the same names."""


def agreed_options(settings: Settings) -> Mapping[str, str]:
    """What must be the same everywhere, by flags without their dashes."""
    found = {name.replace("_", "-"): _text(getattr(settings, name)) for name in _PLAIN}
    found["disable-extension"] = _list(sorted(settings.disabled_extensions))
    found["disable-draft"] = _text(not settings.draft)
    found["disable-download"] = _text(not settings.download)
    found["remote"] = _list(sorted(map(_remote, settings.remotes)))
    found["spool"] = _text(None if settings.spool is None else _remote(settings.spool))
    placing = settings.placing
    found["place"] = _text(None if placing.template is None else f"a template ({_digest(placing.template)})")
    found["place-collision"] = _text(None if placing.template is None else _digest(placing.rules))
    cors = settings.cors
    found["cors-origin"] = _list(sorted(cors.origins)) if len(cors.origins) <= 3 else f"a list ({_digest(cors)})"
    return {**found, **_hooks(settings.hooks), **_access(settings.access)}


def disagreements(mine: Mapping[str, str], theirs: Mapping[str, str], node: str) -> list[str]:
    """A line for each option that is another at that node. What only one of both tells of, as another release does,
    is left out."""
    return [
        f"--{flag}: {value} here, {theirs[flag]} at {node}"
        for flag, value in sorted(mine.items())
        if flag in theirs and theirs[flag] != value
    ]


def _hooks(hooks: HookSettings) -> dict[str, str]:
    found = {
        "hook": _list(map(_target, hooks.hooks)),
        "guard": _list(map(_target, hooks.guards)),
        "hook-forward-headers": _list(sorted(hooks.forward)),
        "hook-secret": _list(_digest(secret) for secret in hooks.secrets),
    }
    if hooks.hooks:
        found["hook-events"] = _list(sorted(kind.value for kind in hooks.events))
        found["hook-tusd-finished"] = hooks.tusd_finished.value
        found["hook-give-up-after"] = _text(hooks.retry_policy.give_up_after)
    if hooks.guards:
        found["guard-questions"] = _list(sorted(kind.value for kind in hooks.questions))
    return found


def _target(target: HookTarget) -> str:
    return f"{target.name}={masked(target.shown)} ({_digest((target.kind, target.address, target.arguments))})"


def _remote(spec: RemoteSpec) -> str:
    """Its name, and a digest of all that says where, and which, its objects are."""
    options = sorted(spec.options.items())
    where = (
        spec.scheme,
        spec.bucket,
        spec.path,
        spec.prefix,
        options,
        spec.key,
        spec.replace,
        spec.required,
        spec.when,
    )
    return f"{masked(spec.name)} ({_digest(where)})"


def _access(access: AccessSettings) -> dict[str, str]:
    """Bounds of bytes are one for all processes; rates are each one's own."""
    each, overall = access.quotas
    return {
        "auth-htpasswd": _given(access.htpasswd),
        "auth-tokens": _given(access.tokens),
        "auth-signed-keys": _given(access.signed_keys),
        "auth-tls": _text(access.certificate_part),
        "auth-tls-name": _list(sorted(access.certificate_names)),
        "auth-forward": _text(None if access.forward is None else f"a server ({_digest(_values(access.forward))})"),
        "auth-jwt": NOT_SET if access.jwt is None else _jwt(access.jwt),
        "admin": _list(sorted(access.admins)),
        **_quota(each, "-per-user"),
        **_quota(overall, ""),
    }


def _jwt(jwt: TokenSettings) -> str:
    """Where keys come from, and a digest of the rules and of the secret."""
    kind = "keys of a URL" if jwt.jwks_url else "a public key" if jwt.public_key else "a secret"
    rules = {name: value for name, value in _values(jwt).items() if name not in ("public_key", "secret")}
    secret = b"" if jwt.secret is None else jwt.secret.reveal()
    return f"{kind} ({_digest((sorted(rules.items()), secret))})"


def _quota(quota: Quota, suffix: str) -> dict[str, str]:
    named = {"stored": quota.size, "unfinished-size": quota.unfinished_size, "unfinished": quota.unfinished}
    return {f"max-{name}{suffix}": _text(value) for name, value in named.items()}


def _values(record: Any) -> dict[str, Any]:
    """All fields, also those that its repr hides."""
    return {each.name: getattr(record, each.name) for each in fields(type(record))}


def _given(value: object) -> str:
    return NOT_SET if value is None else "given"


def _text(value: object) -> str:
    if value is None or value == "":
        return NOT_SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.15g} s"
    return masked(str(value))


def _list(values: Iterable[str]) -> str:
    return ", ".join(values) or NOT_SET


def _digest(value: object) -> str:
    """Of bytes, or of the repr."""
    data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()[:DIGEST]
