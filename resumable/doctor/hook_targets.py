"""Hooks and guards: whether each can be reached, run or imported, as the daemon's user and from this machine.

Invariant: no event and no question is sent, no command is run. A Python hook is imported, as the daemon does it.
"""

from __future__ import annotations

import os
from typing import Any, Final

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from resumable.config.options import Settings
from resumable.doctor.findings import Finding
from resumable.hooks import IGuard, IHook
from resumable.hooks.command import find_program
from resumable.hooks.hooks import load_hook
from resumable.hooks.settings import HookSettings, HookTarget
from resumable.httpclient.errors import error_for

NAME: Final = "hooks"
PATIENCE: Final = 10.0
_AWAY: Final = {
    "hook": "Events wait until it answers, for --hook-give-up-after at most.",
    "guard": "Until it answers, clients get 503.",
}


async def check_hooks(reactor: Any, settings: Settings, patience: float = PATIENCE) -> list[Finding]:
    """A finding for each hook and guard. Never raises. ``patience``: seconds to connect in."""
    hooks = settings.hooks
    targets = [*(("hook", each) for each in hooks.hooks), *(("guard", each) for each in hooks.guards)]
    if not targets:
        return [Finding(NAME, "ok", "there is none")]
    asked = [Deferred.fromCoroutine(_check(reactor, hooks, kind, each, patience)) for kind, each in targets]
    return list(await gatherResults(asked))


async def _check(reactor: Any, hooks: HookSettings, kind: str, target: HookTarget, patience: float) -> Finding:
    name = kind if target.name == kind else f"{kind} {target.name}"
    match target.kind:
        case "command":
            return _judge_command(name, target)
        case "python":
            return _judge_python(name, kind, target)
    wrong = await unreached(reactor, target.address, hooks.policy, patience)
    if wrong is not None:
        advice = f"See that it runs and can be reached from here, or correct --{kind}. {_AWAY[kind]}"
        return Finding(name, "bad", f"{target.shown}: {wrong}", advice)
    signed = "; requests are signed" if hooks.secrets and target.kind == "http" else ""
    return Finding(name, "ok", f"{target.shown} takes connections{signed}; what it answers was not looked at")


def _judge_command(name: str, target: HookTarget) -> Finding:
    try:
        program = find_program(target.arguments[0], os.environ.get("PATH", os.defpath))
    except ValueError as problem:
        what, _, advice = str(problem).partition(": ")
        return Finding(name, "bad", what, f"{advice[0].upper()}{advice[1:]}." if advice else "Correct the command.")
    return Finding(name, "ok", f"{program} can be run; it was not")


def _judge_python(name: str, kind: str, target: HookTarget) -> Finding:
    role = IGuard if kind == "guard" else IHook
    advice = "Correct the name, or install its package where this program is installed. See docs/hooks.md."
    try:
        hook = load_hook(target.address)
    except ValueError as problem:
        return Finding(name, "bad", str(problem), advice)
    if not role.providedBy(hook):
        return Finding(
            name, "bad", f"{target.shown} doesn't provide {role.__name__}", "Implement it: see docs/hooks.md."
        )
    return Finding(name, "ok", f"{target.shown} is imported, and provides {role.__name__}")


async def unreached(reactor: Any, url: str, policy: IPolicyForHTTPS | None, patience: float) -> str | None:
    """Why no connection to the URL's server can be made, with TLS where that is asked for; None where it can. Nothing
    is sent through it. ``policy``: the authorities that are trusted; None: the system's."""
    uri = URI.fromBytes(url.encode("ascii"))
    endpoint: Any = HostnameEndpoint(reactor, uri.host, uri.port, timeout=patience)
    if secure := uri.scheme == b"https":
        trust = policy or BrowserLikePolicyForHTTPS()
        endpoint = wrapClientTLS(trust.creatorForNetloc(uri.host, uri.port), endpoint)
    knock = _Knock(secure)
    connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(lambda: knock))
    met = connecting.addCallback(lambda _: knock.met).addTimeout(patience, reactor)
    try:
        await met
    except (TimeoutError, CancelledError, error.TimeoutError):
        return f"no connection within {patience:g} s"
    except Exception as problem:  # the layers below have no common class of errors
        refused = isinstance(problem, error.ConnectionRefusedError)
        return "nobody listens there" if refused else str(error_for(problem))
    finally:
        knock.leave()
    return None


@implementer(IHandshakeListener)
class _Knock(Protocol):
    """``met`` fires when the connection is made, or with TLS when the handshake is over."""

    def __init__(self, secure: bool) -> None:
        self.met: Deferred[None] = Deferred()
        self._secure = secure
        self._open = self._made = False

    def connectionMade(self) -> None:
        self._open = True
        if not self._secure:
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        self._made = True
        if not self.met.called:
            self.met.callback(None)

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008
        self._open = False
        if not self.met.called:
            self.met.errback(reason)

    def leave(self) -> None:
        """Close it, if it is open. A handshake that isn't over would wait for the other side."""
        if not self._open or self.transport is None:
            return
        if self._made:
            self.transport.loseConnection()
        elif ITCPTransport.providedBy(self.transport):
            ITCPTransport(self.transport).abortConnection()
