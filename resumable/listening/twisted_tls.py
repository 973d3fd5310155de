"""TLS of one connection, whose bytes are passed on in large pieces: all records of one read as one.

The only file that knows private names of twisted.protocols.tls and of pyOpenSSL, whose public `recv` allocates memory
for each record and copies it once more. It changes when they do: `TESTED_PYOPENSSL`, `PRIVATES`.

Invariants: what was decrypted is passed on before anything that ended the connection counts; nothing is passed on after
`abortConnection`. What is kept of a connection doesn't grow with the size of reads: a slice of them in OpenSSL.
Spec: RFC 8446 section 5.1, a record holds 16 KiB at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from resumable.listening.proxy_protocol import SizedReads

TESTED_PYOPENSSL: Final = ("25.2", "26.4")
"""The oldest and the newest version of pyOpenSSL that the tests ran with."""

PRIVATES: Final[Mapping[type, tuple[str, ...]]] = {
    TLSMemoryBIOProtocol: (
        "_aborted",
        "_flushReceiveBIO",
        "_flushSendBIO",
        "_handshakeDone",
        "_lostTLSConnection",
        "_shutdownTLS",
        "_tlsShutdownFinished",
    ),
    SSL.Connection: ("_raise_ssl_error",),
}
"""The names that are used beyond documented interfaces. A test fails when one of them is missing."""

RECORD: Final = 16_384
"""Bytes of the largest record, decrypted."""
SLICE: Final = 65_536
"""Bytes that OpenSSL is given at once: it keeps a buffer of that size for each connection."""
LARGEST: Final = 1 << 20
"""Bytes that are passed on at once, at most."""

_read: Final = lib.SSL_read


class TlsTransport(SizedReads, BufferingTLSTransport):
    """Twisted's, which would pass on each record alone."""

    factory: TlsFactory
    _tlsConnection: Any
    _appSendBuffer: list[bytes]

    def dataReceived(self, data: bytes) -> None:
        """Take what the transport has read."""
        if self._handshakeDone and not self._appSendBuffer:
            view = memoryview(data)
            self._receive(view[at : at + SLICE] for at in range(0, len(data), SLICE))
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def _flushReceiveBIO(self) -> None:
        """Twisted calls it after the handshake, for the bytes that came behind that, and at the end."""
        self._receive((None,))

    def _receive(self, slices: Iterable[memoryview | None]) -> None:
        """Decrypt and pass on these bytes, and what OpenSSL holds already; then heed what ends the connection."""
        if self._lostTLSConnection:
            return
        connection, buffer = self._tlsConnection, self.factory.buffer
        handle, filled = connection._ssl, 0
        failure = None
        for each in slices:
            if each is not None:
                connection.bio_write(each)
            while (size := _read(handle, buffer + filled, RECORD)) > 0:
                filled += size
                if filled > LARGEST:
                    self._pass_on(filled)
                    filled = 0
            try:
                connection._raise_ssl_error(handle, size)
            except SSL.WantReadError:
                continue
            except SSL.Error:
                failure = Failure()
                break
        self._pass_on(filled)
        if failure is not None and not self._lostTLSConnection:
            if failure.check(SSL.ZeroReturnError):
                self._shutdownTLS()  # type: ignore[no-untyped-call]
                failure = None
            self._tlsShutdownFinished(failure)  # type: ignore[no-untyped-call]
        self._flushSendBIO()  # type: ignore[no-untyped-call]

    def _pass_on(self, size: int) -> None:
        """Pass on what the buffer holds."""
        if size and not (self._aborted or self._lostTLSConnection):
            ProtocolWrapper.dataReceived(self, ffi.buffer(self.factory.buffer, size)[:])


class TlsFactory(TLSMemoryBIOFactory):
    """TLS before ``site``. ``buffer``: what all its connections decrypt into, as none keeps anything there."""

    protocol = TlsTransport

    def __init__(self, certificate: IOpenSSLServerConnectionCreator, site: IProtocolFactory, reactor: Any) -> None:
        super().__init__(certificate, False, site, reactor)
        self.buffer = ffi.new("char[]", LARGEST + RECORD)
