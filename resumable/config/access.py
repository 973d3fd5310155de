"""Options of access: who may do what, and how much. Changes when one of these comes, goes or gets another default."""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

_LINES = "Names in the variable are in lines of their own."
_PAGE = "[access.md](access.md)"

WAYS: tuple[Option, ...] = (
    Option(
        "auth-htpasswd",
        "FILE",
        "",
        "users and passwords, as `htpasswd -B` writes them, for HTTP Basic",
        "Needs `pip install 'resumable-server[basic]'`. As soon as one way in is set up, nobody else is let in:"
        f" {_PAGE}.",
        values.file,
    ),
    Option(
        "auth-tokens",
        "FILE",
        "",
        "bearer tokens, one in each line with a name: `token name [action,action]`",
        "For scripts and other servers. Tokens have 20 characters or more.",
        values.file,
    ),
    Option(
        "auth-jwks",
        "URL",
        "",
        "where the keys are that JWTs are signed with",
        "Needs `pip install 'resumable-server[jwt]'`. Keys that rotate are noticed; while the URL is down, known keys"
        " count for a day.",
        values.web_url,
        secret=True,
    ),
    Option(
        "auth-jwt-key",
        "FILE",
        "",
        "public keys that JWTs are signed with, PEM or JWKS",
        "In place of `--auth-jwks`. Read at the start.",
        values.file,
    ),
    Option(
        "auth-jwt-secret-file",
        "FILE",
        "",
        "file with the secret that JWTs are signed with (HMAC)",
        "In place of `--auth-jwks`. 32 bytes at least. Whoever has it can make tokens.",
        values.file,
    ),
    Option(
        "auth-jwt-secret",
        "TEXT",
        "",
        "that secret itself",
        "Better as a variable than as a flag, which others on this machine can see; better still as a file.",
        values.text,
        secret=True,
    ),
    Option(
        "auth-jwt-issuer",
        "TEXT",
        "",
        "issuer (`iss`) that JWTs must name",
        "Unset, any issuer's tokens are taken that those keys have signed.",
        values.word,
    ),
    Option(
        "auth-jwt-audience",
        "TEXT",
        "",
        "audience (`aud`) that JWTs must name, one of these; repeatable",
        "Unset, tokens that name an audience are refused: they are for somebody else.",
        values.words,
        separator=" ",
    ),
    Option(
        "auth-jwt-scope",
        "SCOPE",
        "",
        "scope that JWTs must have, all of these; repeatable",
        "Looked for in `scope` and `scp`. Who lacks one is answered 403.",
        values.words,
        separator=" ",
    ),
    Option(
        "auth-jwt-admin-scope",
        "SCOPE",
        "",
        "scope that makes an admin",
        "An admin sees and ends everybody's uploads.",
        values.word,
    ),
    Option(
        "auth-jwt-algorithm",
        "NAME",
        "",
        "signature algorithm of JWTs, like RS256; repeatable",
        "Unset, all that go with the kind of key. `none` never does.",
        values.words,
        separator=",",
    ),
    Option(
        "auth-jwt-leeway",
        "TIME",
        "30s",
        "how far the issuer's clock may be from ours",
        "Longer keeps expired tokens alive for as long.",
        values.duration,
    ),
    Option(
        "auth-jwt-name-claim",
        "NAME",
        "sub",
        "claim with the identity, which uploads are bound to",
        "It must never be given to somebody else: an e-mail address may.",
        values.word,
    ),
    Option(
        "auth-jwt-size-claim",
        "NAME",
        "max_size",
        "claim with the largest size of an upload in bytes",
        "A token without it has no limit of its own.",
        values.word,
    ),
    Option(
        "auth-forward",
        "URL",
        "",
        "server that is asked about each request, as nginx does with `auth_request`",
        "2xx lets in; while it's down nobody is let in (503). Without user and password in it; a secret in its path or"
        " query isn't logged.",
        values.web_url,
        secret=True,
    ),
    Option(
        "auth-forward-header",
        "NAME",
        "authorization,cookie",
        "client's header that is passed on to `--auth-forward`; repeatable",
        "Only what that server goes by: answers are remembered for each combination.",
        values.field_names,
        separator=",",
    ),
    Option(
        "auth-forward-name",
        "NAME",
        "remote-user",
        "header of that server's answer with the identity; none if it has none",
        "With none, uploads are bound to nobody, and it is up to that server to tell whose is whose.",
        values.optional_field_name,
    ),
    Option(
        "auth-forward-timeout",
        "TIME",
        "5s",
        "time for that server's answer",
        "After it the request is answered 503, and clients come again.",
        values.positive_duration,
    ),
    Option(
        "auth-forward-cache",
        "TIME",
        "5s",
        "how long being let in counts for the same question; 0 for not at all",
        "Longer spares that server; somebody who was shut out stays in for as long.",
        values.duration,
    ),
    Option(
        "auth-tls",
        "cn|dn|dns|email|uri",
        "",
        "what of a client's certificate is the identity",
        "Needs `--tls-client-ca`.",
        values.choice("cn", "dn", "dns", "email", "uri"),
    ),
    Option(
        "auth-tls-name",
        "NAME",
        "",
        "identity that a certificate may have; repeatable",
        f"Unset, whoever has a certificate of that authority is let in. {_LINES}",
        values.names,
        separator="\n",
    ),
    Option(
        "tls-client-ca",
        "FILE",
        "",
        "authorities (PEM) whose client certificates are good, for each endpoint with TLS",
        "Clients without one can't connect.",
        values.file,
    ),
    Option(
        "tls-client-optional",
        "",
        "",
        "let clients without a certificate connect all the same",
        "For when there are other ways in.",
        values.switch,
    ),
    Option(
        "auth-signed-keys",
        "FILE",
        "",
        "keys that signed URLs are signed with, one in each line, the first one signs",
        "32 characters or more each. Whoever has one can sign.",
        values.file,
    ),
    Option(
        "admin",
        "NAME",
        "",
        "identity that may do everything with everybody's uploads; repeatable",
        _LINES,
        values.names,
        separator="\n",
    ),
)


def _pair(flag: str, metavar: str, what: str, advice: str, parse: values.Parse[float | None]) -> tuple[Option, Option]:
    user = "Uploads that belong to nobody count as one user's. "
    return (
        Option(f"{flag}-per-user", metavar, "0", f"{what}, for each identity; 0 for no limit", user + advice, parse),
        Option(flag, metavar, "0", f"{what}, in all; 0 for no limit", advice, parse),
    )


_TO_FIT = "Answered 507, or 413 where it can never fit. An upload counts with its whole length from its creation on."
LIMITS: tuple[Option, ...] = (
    *_pair("max-stored", "SIZE", "bytes of all uploads, finished or not", _TO_FIT, values.optional_size),
    *_pair("max-unfinished-size", "SIZE", "bytes of unfinished uploads", _TO_FIT, values.optional_size),
    *_pair(
        "max-unfinished",
        "NUMBER",
        "unfinished uploads at a time",
        "Answered 429. With too few, who has left uploads behind waits until they expire.",
        values.optional_integer(0, 1_000_000_000, "a number of uploads"),
    ),
    *_pair(
        "max-requests",
        "NUMBER",
        "requests a second",
        "Answered 429; a second's worth may come at once. An upload is two requests or more. Who isn't known, or isn't"
        " let in, is told apart by the IP address, with IPv6 by its /64; who isn't let in doesn't count in all.",
        values.optional_integer(0, 1_000_000, "a number of requests"),
    ),
    *_pair(
        "max-rate",
        "SIZE",
        "bytes a second that are taken",
        "Who is faster is slowed down. Below 64K it is only roughly kept to, as a pause is never longer than 30 s.",
        values.optional_size,
    ),
)

ACCESS: tuple[Option, ...] = (*WAYS, *LIMITS)
