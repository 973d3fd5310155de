"""Endpoints to listen on, made of their descriptions.

Reason to change: something that Twisted's descriptions can't say. Invariant: where client certificates are to be
verified, no TLS endpoint is without. Spec: https://docs.twisted.org/en/stable/core/howto/endpoints.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import SSL4ServerEndpoint, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from resumable.access.certificates import verifying_options
from resumable.access.secret import AccessProblem
from resumable.startup import BACKLOG, taken_apart


def endpoint(
    reactor: Any, description: str, client_ca: Path | None = None, *, required: bool = True
) -> IStreamServerEndpoint:
    """Raises ValueError: what to change. ``client_ca``: whose clients are let in; ``required``: and nobody else."""
    kind, arguments, named = taken_apart(description)
    if client_ca is None or kind != "ssl":
        plain: IStreamServerEndpoint = serverFromString(reactor, description)
        return plain
    if unknown := named.keys() - {"port", "interface", "privateKey", "certKey", "backlog"}:
        raise AccessProblem(
            f"with --tls-client-ca it can't have {', '.join(sorted(unknown))}; a chain goes into certKey"
        )
    key = named.get("privateKey", "server.pem")
    certificate = Path(named.get("certKey", key))
    options = verifying_options(certificate, Path(key), client_ca, required=required)
    port = int(named.get("port") or arguments[0])
    return SSL4ServerEndpoint(reactor, port, options, int(named.get("backlog", BACKLOG)), named.get("interface", ""))
