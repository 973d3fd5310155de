"""The options of access, made into `AccessSettings`.

Invariants: a secret leaves here as a `Secret`. An option that has no effect is an error, since somebody
relies on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resumable.auth.build import AccessSettings, TokenSettings
from resumable.auth.forward import ForwardRules
from resumable.auth.rates import Rate
from resumable.auth.secret import AccessProblem, read_secret
from resumable.model.usage import Quota

_KEYS = ("auth_jwks", "auth_jwt_key", "auth_jwt_secret_file", "auth_jwt_secret")
_RULES = ("auth_jwt_issuer", "auth_jwt_audience", "auth_jwt_scope", "auth_jwt_admin_scope", "auth_jwt_algorithm")
_NEEDS = {
    **dict.fromkeys(_RULES, _KEYS),
    "auth_tls_name": ("auth_tls",),
    "auth_tls": ("tls_client_ca",),
    "tls_client_optional": ("tls_client_ca",),
}
_WAYS = (*_KEYS, "auth_htpasswd", "auth_tokens", "auth_forward", "auth_tls", "auth_signed_keys")


def access_settings(values: Mapping[str, Any]) -> AccessSettings:
    """``values``: those of the options, by their flags with underscores; more may be among them.

    Raises AccessProblem. Reads the file of a secret.
    """
    for name, others in {**_NEEDS, "admin": _WAYS}.items():
        if values[name] and not any(values[other] for other in others):
            raise AccessProblem(f"{_flag(name)} needs {' or '.join(map(_flag, others))}")
    return AccessSettings(
        signed_keys=values["auth_signed_keys"],
        tokens=values["auth_tokens"],
        certificate_part=values["auth_tls"],
        certificate_names=frozenset(values["auth_tls_name"]),
        jwt=_jwt(values) if any(values[name] for name in _KEYS) else None,
        htpasswd=values["auth_htpasswd"],
        forward=_forward(values),
        forward_timeout=values["auth_forward_timeout"],
        forward_remembered=values["auth_forward_cache"],
        admins=frozenset(values["admin"]),
        quotas=(_quota(values, "_per_user"), _quota(values, "")),
        request_rates=(Rate(values["max_requests_per_user"]), Rate(values["max_requests"])),
        byte_rates=(Rate(values["max_rate_per_user"]), Rate(values["max_rate"])),
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _jwt(values: Mapping[str, Any]) -> TokenSettings:
    secret = None
    if values["auth_jwt_secret"] or values["auth_jwt_secret_file"]:
        secret = read_secret("secret of tokens", values["auth_jwt_secret"], values["auth_jwt_secret_file"])
    return TokenSettings(
        values["auth_jwks"],
        values["auth_jwt_key"],
        secret,
        values["auth_jwt_algorithm"],
        values["auth_jwt_issuer"],
        values["auth_jwt_audience"],
        values["auth_jwt_scope"],
        values["auth_jwt_admin_scope"],
        values["auth_jwt_leeway"],
        values["auth_jwt_name_claim"],
        values["auth_jwt_size_claim"],
    )


def _forward(values: Mapping[str, Any]) -> ForwardRules | None:
    if values["auth_forward"] is None:
        return None
    return ForwardRules(values["auth_forward"], values["auth_forward_header"], values["auth_forward_name"])


def _quota(values: Mapping[str, Any], suffix: str) -> Quota:
    return Quota(*(values[f"{name}{suffix}"] for name in ("max_stored", "max_unfinished_size", "max_unfinished")))
