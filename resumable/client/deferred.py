"""The Deferred face: the same core on the reactor that it is given.

Invariant: a Deferred that is cancelled leaves nothing running, and in the state file what goes on.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadable import isInIOThread
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from resumable.client.blocking import OnEvent, Sendable, default_metadata, getting
from resumable.client.client_options import ClientOptions
from resumable.client.client_transfer import ClientTransfer, Surroundings
from resumable.client.driving import Driver
from resumable.client.events import Downloaded, Tiers, TransferEvent, Uploaded
from resumable.client.exceptions import BadOption
from resumable.client.looking import look
from resumable.client.pace import TokenBucket
from resumable.client.putting import offset_steps, put_steps, remove_steps
from resumable.client.sources import SendSource, source_of
from resumable.client.state_file import Leftover, StateFile
from resumable.httpclient.agent import LightAgent
from resumable.httpclient.connections import ClientEndpoints

CONNECT, KEPT_FOR, KEPT = 30.0, 15.0, 4
"""Seconds to connect, and for which an idle connection is kept; idle connections of one host."""
T = TypeVar("T")


class AsyncClient:
    """As `Client`, with Deferreds. Events come in the reactor's thread. A proxy isn't used, and one that was asked for
    is a BadOption; the draft's progress shows at the end of a request.
    """

    def __init__(
        self,
        reactor: Any,
        options: ClientOptions | None = None,
        *,
        on_event: OnEvent | None = None,
        state: StateFile | None = None,
    ) -> None:
        self.options = options or ClientOptions()
        if self.options.proxy:
            raise BadOption("the Deferred face uses no proxy: use the blocking one, in a thread")
        self.state = state or StateFile()
        self._reactor, self._on_event = reactor, on_event
        rate = self.options.limit_rate
        bucket = None if rate is None else TokenBucket(rate, reactor.seconds)
        endpoints = ClientEndpoints(reactor, reactor, _policy(self.options), min(CONNECT, self.options.timeout))
        self._agent = LightAgent(reactor, reactor, endpoints, kept=KEPT, kept_for=KEPT_FOR, repeats=True)
        self._driver = Driver(reactor, self._agent, self.options.timeout, bucket)

    def put(
        self,
        source: Sendable,
        endpoint: str,
        *,
        metadata: Mapping[str, str | bytes] | None = None,
        name: str | None = None,
        on_event: OnEvent | None = None,
        fresh: bool = False,
    ) -> Deferred[Uploaded]:
        """See `Client.put`."""
        pairs = default_metadata(source) if metadata is None else metadata

        def begin(kept: SendSource) -> Deferred[Uploaded]:
            try:
                transfer = self._transfer(kept.name, endpoint, on_event)
            except BadOption:
                kept.close()
                raise
            return self._driver.run(put_steps(transfer, kept, pairs, fresh))

        opened: Deferred[SendSource] = self._in_thread(partial(source_of, source, name, self.options.buffer))
        return opened.addCallback(begin)

    def get(
        self,
        url: str,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        on_event: OnEvent | None = None,
        overwrite: bool = False,
    ) -> Deferred[Downloaded]:
        """See `Client.get`."""
        try:
            return self._driver.run(getting(self._transfer(url, url, on_event), target, overwrite))
        except BadOption:
            return fail()

    def status(self, url: str) -> Deferred[Tiers | None]:
        """See `Client.status`."""
        try:
            transfer = self._transfer(url, url, None)
        except BadOption:
            return fail()
        return self._driver.run(transfer.patiently(lambda: look(transfer, transfer.address)))

    def leftovers(self, endpoint: str | None = None) -> Deferred[list[Leftover]]:
        """See `Client.leftovers`."""
        found: Deferred[list[Leftover]] = self._in_thread(self.state.entries)
        return found.addCallback(lambda all_: [each for each in all_ if endpoint in (None, each.endpoint)])

    def remove(self, leftover: Leftover) -> Deferred[None]:
        """See `Client.remove`."""
        try:
            return self._driver.run(
                remove_steps(self._transfer(leftover.source, leftover.endpoint, None), leftover.key)
            )
        except BadOption:
            return fail()

    def forget(self, leftover: Leftover) -> Deferred[None]:
        """See `Client.forget`."""
        return self._in_thread(partial(self.state.forget, leftover.key))

    def offset(self, leftover: Leftover) -> Deferred[int | None]:
        """See `Client.offset`."""
        try:
            transfer = self._transfer(leftover.source, leftover.endpoint, None)
        except BadOption:
            return fail()
        return self._driver.run(offset_steps(transfer, leftover))

    def close(self) -> Deferred[None]:
        """Close the idle connections; fires when they are closed."""
        return self._agent.close()

    def _in_thread(self, call: Callable[[], T]) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call)

    def _transfer(self, name: str, address: str, on_event: OnEvent | None) -> ClientTransfer:
        told = on_event or self._on_event

        def tell(event: TransferEvent) -> None:
            if told is None:
                return
            if isInIOThread():
                told(event)
            else:
                self._reactor.callFromThread(told, event)

        around = Surroundings(wall=time.time, now=self._reactor.seconds, random=random.random)
        return ClientTransfer(name, address, self.options, self.state, tell, around)


@implementer(IPolicyForHTTPS)
class _Unverified:
    """For ``insecure``: whoever answers is taken for the server."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return _UnverifiedCreator(hostname)


@implementer(IOpenSSLClientConnectionCreator)
class _UnverifiedCreator:
    def __init__(self, hostname: bytes) -> None:
        self._hostname = hostname

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        from OpenSSL.SSL import Connection
        from twisted.internet.ssl import CertificateOptions

        connection = Connection(CertificateOptions(verify=False).getContext(), None)
        connection.set_app_data(tlsProtocol)
        connection.set_tlsext_host_name(self._hostname)
        connection.set_connect_state()
        return connection


def _policy(options: ClientOptions) -> IPolicyForHTTPS:
    """Raises BadOption."""
    if options.insecure:
        return _Unverified()
    if options.ca_file is None:
        policy: IPolicyForHTTPS = BrowserLikePolicyForHTTPS()
        return policy
    from twisted.internet.ssl import Certificate, trustRootFromCertificates

    try:
        text = Path(options.ca_file).read_bytes()
        end = b"-----END CERTIFICATE-----"
        certificates = [Certificate.loadPEM(each + end) for each in text.split(end)[:-1]]
    except Exception as error:  # what pyOpenSSL raises has no common class
        raise BadOption(f"the certificates in {options.ca_file} can't be read: {error}") from error
    if not certificates:
        raise BadOption(f"{options.ca_file} has no certificate")
    own: IPolicyForHTTPS = BrowserLikePolicyForHTTPS(trustRootFromCertificates(certificates))
    return own
