"""Endpoint strings: taken apart, checked before the start, and made into endpoints to listen on.

Invariants: where client certificates are to be verified, no TLS endpoint is without; where a proxy speaks for clients,
it is a trusted one. A relative path starts at the directory in which the string was read. No socket that a check opens
stays open. The upload directory tells where its socket for operators is; only the daemon's own user may connect to a
Unix socket for operators, unless its endpoint says otherwise.
Spec: https://docs.twisted.org/en/stable/core/howto/endpoints.html, unix(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint

from resumable.aio.system import LONGEST_SOCKET_PATH
from resumable.listening.proxy_protocol import ProxiedFactory
from resumable.listening.tls import Certificate, CertificateFiles
from resumable.listening.twisted_tls import TlsFactory
from resumable.model.errors import StartupError
from resumable.networks import LOOPBACK, Network, belongs

_TLS = ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters")
"""The arguments of Twisted's ``ssl:``, in its order."""

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel's own limit (somaxconn) may be lower."""

LISTEN = "--port or --listen"
"""The flags that set the endpoints for clients, in messages."""
ADMIN_LISTEN = "--admin-listen"
"""The flag that sets the endpoints for operators."""
PROXIED = "haproxy:"
"""Begins the string of an endpoint whose connections begin with a header of the PROXY protocol."""
LONGEST_PATH: Final = LONGEST_SOCKET_PATH


@frozen
class Terms:
    """Common to all endpoints. ``client_ca``, ``required``: see `CertificateFiles`.

    ``trusted``: proxies that may tell for which client a connection is.
    """

    client_ca: Path | None = None
    required: bool = True
    trusted: tuple[Network, ...] = ()


@frozen
class ListeningPoint:
    """An endpoint that is not bound yet. ``make`` makes Twisted's endpoint. ``certificate``: None without TLS.

    ``trusted``: proxies whose headers count; None: no header is expected. ``handed_over``: a Unix socket that systemd
    has made, and keeps.
    """

    description: str
    make: Callable[[], IStreamServerEndpoint]
    certificate: Certificate | None = None
    trusted: tuple[Network, ...] | None = None
    handed_over: bool = False

    def listen(self, reactor: Any, site: IProtocolFactory) -> Deferred[IListeningPort]:
        """Bind it. Raises ValueError for a socket that systemd has not handed over."""
        try:
            endpoint = self.make()
        except LookupError:
            raise ValueError("systemd has handed over no such socket; does its .socket unit name it?") from None
        return endpoint.listen(self.factory(reactor, site))

    def factory(self, reactor: Any, site: IProtocolFactory) -> IProtocolFactory:
        """The site, behind TLS and the proxy's header, which comes first on the wire."""
        if self.certificate is not None:
            site = TlsFactory(self.certificate, site, reactor)
        return site if self.trusted is None else ProxiedFactory(site, self.trusted, self.description)


def listening_point(reactor: Any, description: str, terms: Terms, wall: Callable[[], float]) -> ListeningPoint:
    """Make one from its endpoint string; reads certificates. Raises ValueError, which says how to correct it."""
    inner = description.removeprefix(PROXIED)
    trusted = None if inner == description else terms.trusted
    if trusted == ():
        raise ValueError("it needs --behind-proxy: whoever connects could claim any address")
    kind, arguments, named = split_endpoint(inner)
    if kind == "ssl":
        endpoint, files = _tls(reactor, arguments, named, terms)
        return ListeningPoint(description, lambda: endpoint, Certificate(files, wall), trusted)
    if kind == "unix":
        inner = _absolute(arguments, named)
    handed_over = kind == "systemd" and "UNIX" in (named.get("domain"), *arguments[:1])
    return ListeningPoint(description, lambda: serverFromString(reactor, inner), None, trusted, handed_over)


def _absolute(arguments: list[str], named: dict[str, str]) -> str:
    """A unix socket's description, its path made absolute."""
    path, *others = [*([named["address"]] if "address" in named else []), *arguments, ""]
    parts = [os.path.abspath(path), *others[:-1], *(f"{k}={v}" for k, v in named.items() if k != "address")]
    return ":".join(["unix", *map(quoted, parts)])


def _tls(
    reactor: Any, arguments: list[str], named: dict[str, str], terms: Terms
) -> tuple[IStreamServerEndpoint, CertificateFiles]:
    given = dict(zip(_TLS, arguments, strict=False)) | named
    if unknown := given.keys() & {"sslmethod", "dhParameters"} or given.keys() - set(_TLS):
        raise ValueError(f"TLS here has no {', '.join(sorted(unknown))}; it is 1.2 or 1.3, with ephemeral keys")
    port, backlog = given.get("port", ""), given.get("backlog", str(BACKLOG))
    if not (port.isdigit() and int(port) < 65536 and backlog.isdigit()):
        raise ValueError("it needs a port, like ssl:8443:privateKey=key.pem:certKey=chain.pem")
    key = Path(os.path.abspath(given.get("privateKey", "server.pem")))
    chain = given.get("extraCertChain")
    files = CertificateFiles(
        Path(os.path.abspath(given["certKey"])) if "certKey" in given else key,
        key,
        None if chain is None else Path(os.path.abspath(chain)),
        terms.client_ca,
        terms.required,
    )
    return TCP4ServerEndpoint(reactor, int(port), int(backlog), given.get("interface", "")), files


def check_ports(endpoints: Sequence[str], flag: str = LISTEN) -> None:
    """Check that each TCP port and Unix socket of these endpoint strings, which ``flag`` sets, can be bound.

    Raises StartupError.
    """
    for description in endpoints:
        kind, arguments, named = split_endpoint(description.removeprefix(PROXIED))
        address = _tcp_address(kind, arguments, named)
        if address is not None:
            _check_port(description, flag, *address)
        elif kind == "unix" and (arguments or "address" in named):
            _check_socket(description, flag, os.path.abspath(named.get("address") or arguments[0]))


def split_endpoint(description: str) -> tuple[str, list[str], dict[str, str]]:
    """Kind, arguments and named arguments of an endpoint string (twisted.internet.endpoints)."""
    kind, *parts = (re.sub(r"\\(.)", r"\1", each) for each in re.split(r"(?<!\\):", description))
    arguments = [each for each in parts if "=" not in each]
    return kind, arguments, dict(each.split("=", 1) for each in parts if "=" in each)


def quoted(argument: str) -> str:
    """An argument as it stands in an endpoint string."""
    return argument.replace("\\", r"\\").replace(":", r"\:")


def _tcp_address(kind: str, arguments: list[str], named: dict[str, str]) -> tuple[int, str, int] | None:
    """Family, interface and port of an endpoint that listens on TCP; None for any other, or port 0."""
    if kind not in ("tcp", "tcp4", "tcp6", "ssl"):
        return None
    port = named.get("port") or (arguments or [""])[0]
    interface = named.get("interface", "::" if kind == "tcp6" else "")
    if not port.isdigit() or port == "0":
        return None
    return (socket.AF_INET6 if kind == "tcp6" or ":" in interface else socket.AF_INET), interface, int(port)


def _check_port(description: str, flag: str, family: int, interface: str, port: int) -> None:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
            probe.listen(1)
        except OSError as error:
            raise StartupError(why_not_bound(description, error, flag)) from error


def _check_socket(description: str, flag: str, path: str) -> None:
    """Check that nobody listens at ``path`` and a socket can be made there; remove the one that a killed daemon has
    left."""
    place = os.path.dirname(path)
    try:
        if not os.path.isdir(place):
            raise OSError(errno.ENOTDIR, f"there is no directory {place}")
        if not os.access(place, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, f"the directory {place} can't be written")
        with socket.socket(socket.AF_UNIX) as probe:
            answer = probe.connect_ex(path)
        if answer == errno.ENOENT:
            return
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "there is something else of that name")
        if answer != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, "somebody listens there")
        # Twisted would ask whether the process named in the lock lives; in a container that is PID 1, which is us.
        os.unlink(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.lock")
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartupError(f"Can't listen on {description}: {reason}; choose another with {flag}.") from error


def why_not_bound(description: str, error: object, flag: str = LISTEN) -> str:
    """One line for an endpoint that can't listen; ``flag``: the one to change."""
    number = getattr(error, "errno", None) or getattr(getattr(error, "socketError", None), "errno", None)
    reason = {
        errno.EADDRINUSE: "the port is in use",
        errno.EACCES: "a port below 1024 needs more rights",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(number or 0, str(error).splitlines()[0] if str(error) else type(error).__name__)
    if number == errno.EADDRNOTAVAIL and flag == LISTEN:
        flag = "--host or --listen"
    return f"Can't listen on {description}: {reason}; choose another with {flag}."


def widen_backlog(port: object) -> None:
    """Let connections that come all at once wait in the kernel: Twisted's 50 make the 51st wait for a second."""
    listening = getattr(port, "socket", None)
    if isinstance(listening, socket.socket):
        listening.listen(BACKLOG)


def admin_socket_path(upload_dir: Path) -> Path:
    """The path of an upload directory's socket for operators."""
    return upload_dir / ".resumable" / "admin.sock"


def admin_endpoint(upload_dir: Path) -> str:
    """The endpoint string of an upload directory's socket. ValueError: its path is too long for a socket.

    It needs no lock of Twisted's, as the upload directory has one.
    """
    path = admin_socket_path(upload_dir)
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(f"the path {path} is too long for a socket, which has room for {LONGEST_PATH} bytes")
    return f"unix:address={quoted(str(path))}:mode=600:lockfile=0"


def private_socket(description: str) -> str:
    """The endpoint string; for a Unix socket without a mode, with one that lets in the daemon's own user only.

    Twisted would let everybody in, whatever the umask is.
    """
    kind, arguments, named = split_endpoint(description)
    has_mode = "mode" in named or len(arguments) + ("address" in named) > 1
    return f"{description}:mode=600" if kind == "unix" and not has_mode else description


def only_loopback(endpoints: Sequence[str]) -> bool:
    """Whether each of these endpoints surely takes connections of this machine alone. A Unix socket, or one of systemd,
    has a proxy before it as a rule."""
    return bool(endpoints) and all(map(_is_loopback, endpoints))


def _is_loopback(endpoint: str) -> bool:
    kind, _, named = split_endpoint(endpoint)
    host = named.get("interface", "")
    return kind in ("tcp", "tcp4", "tcp6", "ssl") and (host == "localhost" or belongs(host, LOOPBACK))
