"""Who may upload: the rule in words, the files behind it, and the servers that it needs.

Invariants: no secret and no credential is sent or printed; a server that decides is asked as somebody who has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from resumable.auth import basic, keys
from resumable.auth.build import AccessSettings, TokenSettings
from resumable.auth.forward import ForwardRules
from resumable.auth.secret import AccessProblem, read_text
from resumable.auth.signed import parse_keys
from resumable.auth.tokens import parse_tokens
from resumable.config.options import Settings
from resumable.daemon.announcement import Started, has_rule, open_to_all, who_may
from resumable.doctor.findings import Finding
from resumable.httpclient.client import FetchFailed, IFetch
from resumable.listening.endpoints import PROXIED, split_endpoint
from resumable.listening.listeners import OpenPort
from resumable.masking import server_of

NAME: Final = "access"
TOKENS: Final = "auth-tokens"
SIGNED: Final = "auth-signed-keys"
PASSWORDS: Final = "auth-htpasswd"
CERTIFICATES: Final = "auth-tls"
KEY: Final = "auth-jwt-key"
SECRET: Final = "auth-jwt-secret"
ISSUER: Final = "auth-jwks"
DECIDER: Final = "auth-forward"
_DOCS: Final = "See docs/access.md."
_FILE: Final = f"Correct the file, or its name, and let the daemon's user read it. {_DOCS}"


def judge_rule(settings: Settings) -> Finding:
    """The finding about the rule as a whole."""
    ports = [port for each in settings.listen if (port := _port(each)) is not None]
    said = f"{who_may(Started(settings, ports, ()))} may upload"
    if open_to_all(settings, ports) is not None:
        advice = f"Listen with --host 127.0.0.1, or set one of the flags of access rules. {_DOCS}"
        return Finding(NAME, "warn", f"{said}: there is no access rule", advice)
    if not has_rule(settings) and not ports:
        return Finding(NAME, "ok", "whoever may open the socket may upload")
    return Finding(NAME, "ok", said)


def _port(endpoint: str) -> OpenPort | None:
    """The port as it would be bound; None for sockets whose address isn't known before."""
    kind, arguments, named = split_endpoint(endpoint.removeprefix(PROXIED))
    if kind not in ("tcp", "tcp4", "tcp6", "ssl"):
        return None
    host = named.get("interface") or ("::" if kind == "tcp6" else "0.0.0.0")
    place = f"[{host}]" if ":" in host else host
    return OpenPort(f"{place}:{named.get('port') or (arguments or ['0'])[0]}", kind == "ssl")


def judge_files(access: AccessSettings) -> Iterator[Finding]:
    """A finding for each file with credentials or keys. Reads them."""
    if access.tokens is not None:
        yield _judge_file(TOKENS, access.tokens, lambda text: f"{len(parse_tokens(text))} tokens")
    if access.signed_keys is not None:
        yield _judge_file(SIGNED, access.signed_keys, lambda text: f"{len(parse_keys(text))} keys")
    if access.htpasswd is not None:
        yield _judge_file(PASSWORDS, access.htpasswd, _users)
    if access.certificate_part is not None:
        names = (
            f"{len(access.certificate_names)} names are allowed" if access.certificate_names else "any name is allowed"
        )
        yield Finding(CERTIFICATES, "ok", f"the {access.certificate_part} of a client's certificate names it; {names}")
    if access.jwt is not None and access.jwt.jwks_url is None:
        yield _judge_keys(access.jwt)


def _users(text: str) -> str:
    basic.check_installed()
    return f"{len(basic.parse_htpasswd(text))} users"


def _judge_file(name: str, path: Path, count: Callable[[str], str]) -> Finding:
    try:
        return Finding(name, "ok", f"{path} has {count(read_text(f'--{name}', path))}")
    except AccessProblem as problem:
        return Finding(name, "bad", str(problem), _FILE)


def _judge_keys(jwt: TokenSettings) -> Finding:
    name = KEY if jwt.public_key is not None else SECRET
    try:
        keys.check_installed()
        if jwt.public_key is not None:
            keys.public_keys(read_text("public keys", jwt.public_key))
            return Finding(name, "ok", f"{jwt.public_key} can be used")
        if jwt.secret is not None:
            keys.shared_secret(jwt.secret)
    except AccessProblem as problem:
        return Finding(name, "bad", str(problem), _FILE)
    return Finding(name, "ok", "the secret can be used")


async def check_issuer(fetch: IFetch, url: str) -> Finding:
    """The finding about the keys of ``--auth-jwks``. Never raises."""
    name, server = ISSUER, server_of(url)
    advice = f"Compare --auth-jwks with the jwks_uri of your issuer, and see that it can be reached from here. {_DOCS}"
    try:
        keys.check_installed()
        answer = await fetch.get(url, {"accept": ("application/jwk-set+json, application/json",)})
        if answer.status != 200:
            raise FetchFailed(f"it answers {answer.status}")
        found = keys.parse_jwks(answer.body)
    except AccessProblem as problem:
        return Finding(name, "bad", str(problem), "Install what is missing, and run this again.")
    except (FetchFailed, ValueError) as problem:
        return Finding(name, "bad", f"no keys from {server}: {problem}", advice)
    return Finding(name, "ok", f"{server} has {len(found)} keys that can be used")


async def check_decider(fetch: IFetch, rules: ForwardRules, base_path: str) -> Finding:
    """The finding about the server of ``--auth-forward``, asked whether somebody without credentials may create an
    upload. Never raises."""
    name, server = DECIDER, server_of(rules.url)
    try:
        answer = await fetch.get(rules.url, _question(base_path))
    except FetchFailed as problem:
        advice = "See that it runs and can be reached from here: meanwhile clients get 503."
        return Finding(name, "bad", f"{server} doesn't answer: {problem}", advice)
    if answer.status in (401, 403):
        return Finding(name, "ok", f"{server} refuses who has no credentials, with {answer.status}")
    if 200 <= answer.status < 300:
        what = f"{server} lets in somebody without credentials, with {answer.status}"
        return Finding(name, "warn", what, "See that this is meant: it may go by the address.")
    what = f"{server} answers {answer.status}, which lets nobody in"
    return Finding(name, "bad", what, f"Name a URL that answers 2xx, 401 or 403 to GET. {_DOCS}")


def _question(base_path: str) -> Mapping[str, Sequence[str]]:
    told = {"x-original-method": "POST", "x-original-uri": base_path, "x-forwarded-method": "POST"}
    return {name: (line,) for name, line in {**told, "x-forwarded-uri": base_path, "x-upload-action": "create"}.items()}


async def check_access(settings: Settings, fetch: Any) -> list[Finding]:
    """All findings about access. ``fetch``: closed by whoever made it."""
    access, findings = settings.access, [judge_rule(settings), *judge_files(settings.access)]
    if access.jwt is not None and access.jwt.jwks_url is not None:
        findings.append(await check_issuer(fetch, access.jwt.jwks_url))
    if access.forward is not None:
        findings.append(await check_decider(fetch, access.forward, settings.base_path))
    return findings
