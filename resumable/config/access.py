"""Options of access: authorizers, permissions, quotas and rates."""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

_LINES = "In the variable write one name per line."
_PAGE = "[access.md](access.md)"

WAYS: tuple[Option, ...] = (
    Option(
        "auth-htpasswd",
        "FILE",
        "",
        "users and passwords, as `htpasswd -B` writes them, for HTTP Basic",
        "It needs `pip install 'resumable-server[basic]'`. As soon as one way to authenticate is set, requests without"
        f" valid credentials are refused: {_PAGE}.",
        values.file,
    ),
    Option(
        "auth-tokens",
        "FILE",
        "",
        "bearer tokens, one per line with a name: `token name [action,action]`",
        "For scripts and other servers. A token has at least 20 characters.",
        values.file,
    ),
    Option(
        "auth-jwks",
        "URL",
        "",
        "URL of the keys that sign JWTs",
        "It needs `pip install 'resumable-server[jwt]'`. Rotated keys are noticed. While the URL is down, known keys"
        " stay valid for a day.",
        values.web_url,
        secret=True,
    ),
    Option(
        "auth-jwt-key",
        "FILE",
        "",
        "file with the public keys that sign JWTs, PEM or JWKS",
        "It replaces `--auth-jwks` and is read at the start.",
        values.file,
    ),
    Option(
        "auth-jwt-secret-file",
        "FILE",
        "",
        "file with the secret that signs JWTs (HMAC)",
        "It replaces `--auth-jwks`. It has at least 32 bytes. Everybody who knows it can make tokens.",
        values.file,
    ),
    Option(
        "auth-jwt-secret",
        "TEXT",
        "",
        "the secret itself",
        "Other users of this machine can see flags: prefer the variable, or better a file.",
        values.text,
        secret=True,
    ),
    Option(
        "auth-jwt-issuer",
        "TEXT",
        "",
        "issuer (`iss`) that JWTs must have",
        "Unset, the tokens of any issuer are valid if the keys have signed them.",
        values.word,
    ),
    Option(
        "auth-jwt-audience",
        "TEXT",
        "",
        "audience (`aud`) of JWTs: at least one of these must be there; repeatable",
        "Unset, tokens with an audience are refused, because they are for another service.",
        values.words,
        separator=" ",
    ),
    Option(
        "auth-jwt-scope",
        "SCOPE",
        "",
        "scope of JWTs: all of these must be there; repeatable",
        "The server reads the claims `scope` and `scp`. A token without one of the scopes is answered 403.",
        values.words,
        separator=" ",
    ),
    Option(
        "auth-jwt-admin-scope",
        "SCOPE",
        "",
        "scope of admins",
        "An admin sees and deletes everybody's uploads.",
        values.word,
    ),
    Option(
        "auth-jwt-algorithm",
        "NAME",
        "",
        "signature algorithm of JWTs, like RS256; repeatable",
        "Unset, all algorithms for the kind of key. `none` is never valid.",
        values.words,
        separator=",",
    ),
    Option(
        "auth-jwt-leeway",
        "TIME",
        "30s",
        "how far the issuer's clock may differ from ours",
        "Expired tokens stay valid for this time.",
        values.duration,
    ),
    Option(
        "auth-jwt-name-claim",
        "NAME",
        "sub",
        "claim with the identity, which owns the uploads",
        "Its value must never pass to another person, as an e-mail address may.",
        values.word,
    ),
    Option(
        "auth-jwt-size-claim",
        "NAME",
        "max_size",
        "claim with the largest size of an upload in bytes",
        "A token without it sets no limit.",
        values.word,
    ),
    Option(
        "auth-forward",
        "URL",
        "",
        "URL of a server that decides about each request, as nginx does with `auth_request`",
        "2xx allows the request. While that server is down, requests are answered 503. The URL has no user and"
        " password; a secret in its path or query isn't logged.",
        values.web_url,
        secret=True,
    ),
    Option(
        "auth-forward-header",
        "NAME",
        "authorization,cookie",
        "header of the client that is passed on to `--auth-forward`; repeatable",
        "List only headers that the server uses: answers are cached for each combination.",
        values.field_names,
        separator=",",
    ),
    Option(
        "auth-forward-name",
        "NAME",
        "remote-user",
        "header of that server's answer with the identity; none if it has none",
        "With `none` uploads have no owner, and that server must decide who may use which upload.",
        values.optional_field_name,
    ),
    Option(
        "auth-forward-timeout",
        "TIME",
        "5s",
        "how long to wait for that server's answer",
        "After this time the request is answered 503, and clients try again.",
        values.positive_duration,
    ),
    Option(
        "auth-forward-cache",
        "TIME",
        "5s",
        "how long to cache that server's permission; 0 for no cache",
        "A longer time spares that server, but a withdrawn permission stays valid for as long.",
        values.duration,
    ),
    Option(
        "auth-tls",
        "cn|dn|dns|email|uri",
        "",
        "field of the client's certificate that is the identity",
        "It needs `--tls-client-ca`.",
        values.choice("cn", "dn", "dns", "email", "uri"),
    ),
    Option(
        "auth-tls-name",
        "NAME",
        "",
        "identity of certificates that are allowed; repeatable",
        f"Unset, every certificate of that authority is allowed. {_LINES}",
        values.names,
        separator="\n",
    ),
    Option(
        "tls-client-ca",
        "FILE",
        "",
        "authorities (PEM) of valid client certificates, for all TLS endpoints",
        "Clients without one can't connect.",
        values.file,
    ),
    Option(
        "tls-client-optional",
        "",
        "",
        "let clients without a certificate connect too",
        "Use it together with another way to authenticate.",
        values.switch,
    ),
    Option(
        "auth-signed-keys",
        "FILE",
        "",
        "file with the keys of signed URLs, one per line; the first one signs",
        "A key has at least 32 characters. Everybody who knows one can sign.",
        values.file,
    ),
    Option(
        "admin",
        "NAME",
        "",
        "identity that may do everything with all uploads; repeatable",
        _LINES,
        values.names,
        separator="\n",
    ),
)


def _pair(flag: str, metavar: str, what: str, advice: str, parse: values.Parse[float | None]) -> tuple[Option, Option]:
    user = "All uploads without an owner count as one identity's. "
    return (
        Option(f"{flag}-per-user", metavar, "0", f"{what}, for each identity; 0 for no limit", user + advice, parse),
        Option(flag, metavar, "0", f"{what}, in all; 0 for no limit", advice, parse),
    )


_TO_FIT = "The answer is 507, or 413 if it can never fit. An upload counts with its whole length from its creation on."
LIMITS: tuple[Option, ...] = (
    *_pair("max-stored", "SIZE", "bytes of all uploads, finished or not", _TO_FIT, values.optional_size),
    *_pair("max-unfinished-size", "SIZE", "bytes of unfinished uploads", _TO_FIT, values.optional_size),
    *_pair(
        "max-unfinished",
        "NUMBER",
        "unfinished uploads at a time",
        "The answer is 429. With too few, a user with abandoned uploads must wait until they expire.",
        values.optional_integer(0, 1_000_000_000, "a number of uploads"),
    ),
    *_pair(
        "max-requests",
        "NUMBER",
        "requests per second",
        "The answer is 429; the requests of one second may come at once. An upload needs at least two requests."
        " Requests without valid credentials count by IP address (IPv6: by /64); refused ones"
        " don't count for the total.",
        values.optional_integer(0, 1_000_000, "a number of requests"),
    ),
    *_pair(
        "max-rate",
        "SIZE",
        "bytes per second that the server receives",
        "Faster clients are slowed down. Below 64K the limit is approximate, as a pause is never longer than 30 s.",
        values.optional_size,
    ),
)

ACCESS: tuple[Option, ...] = (*WAYS, *LIMITS)
