"""An upload server as a service of another Twisted program, and the resources that it gives to that one's sites.

Invariants: nothing is opened before the start, but for a look at the upload directory; nothing of the process is
changed: no signal handler, no log, no limit, no garbage collection. Any number of servers with directories of their own
live in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import evolve
from klein.resource import KleinResource
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from resumable.config.options import Settings
from resumable.daemon.service import check_directories, with_run_directory
from resumable.embed.arguments import settings_of
from resumable.embed.embedded_service import EmbeddedService
from resumable.embed.resource import AdminResource, UploadResource, unavailable
from resumable.embed.shared_request import EmbeddedRequest
from resumable.embed.streaming import StreamingTree
from resumable.hooks.functions import EVENTS, QUESTIONS, HookFunction, Kind, gathered, keeping
from resumable.hooks.settings import HookTarget
from resumable.http.h1 import Fields
from resumable.http.site import Root
from resumable.listening.endpoints import ADMIN_LISTEN, check_ports
from resumable.model.errors import StartupError

F = TypeVar("F", bound=Callable[..., object])
log = Logger()
NO_SITE = (
    "no site can pass uploads on yet: make your site with `server.site(root)` in place of "
    "`twisted.web.server.Site(root)`, or give the upload server a port of its own: UploadServer(port=...)"
)
CODE = "code"
"""The name of the hook that is made of the program's own functions, under which events wait."""


class UploadServer(MultiService):
    """Takes uploads into a directory, and sends them on, as ``twistd resumable`` with these options would.

    ``options`` have the names of the flags, with underscores: ``upload_dir="uploads"``, ``max_size="10G"``,
    ``remote=["s3://bucket"]``. Ports are opened only by ``port``, ``listen`` and ``admin_listen``. Each method, and the
    start, raises StartupError for what can't be used; its message is one line.

    ``resource``: the uploads, for the place ``base_path`` in a tree of resources. ``admin``: the admin API, for any
    place in it; it needs ``admin_token_file``. ``reactor``: Twisted's own, unless another is given.
    """

    def __init__(self, *, reactor: Any = None, **options: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if reactor is None:
            from twisted.internet import reactor
        self.reactor = reactor
        self.settings = settings_of(options)
        check_directories(self.settings)
        check_ports(self.settings.listen)
        check_ports(self.settings.admin_listen, ADMIN_LISTEN)
        #: The segments of the base path.
        self.base = [segment.encode() for segment in self.settings.base_path.split("/") if segment]
        self.resource = UploadResource(self)
        self.admin = AdminResource(self)
        self._functions: list[HookFunction] = []
        self._service: EmbeddedService | None = None
        self._mounted = False

    # Functions as hooks

    def on(self, *events: str, thread: bool | None = None) -> Callable[[F], F]:
        """As `resumable.hooks.on`, for this server; before its start."""
        return self._keeping(EVENTS, events, thread)

    def before(self, *questions: str, thread: bool | None = None) -> Callable[[F], F]:
        """As `resumable.hooks.before`, for this server; before its start."""
        return self._keeping(QUESTIONS, questions, thread)

    def _keeping(self, known: Mapping[str, Kind], names: Sequence[str], thread: bool | None) -> Callable[[F], F]:
        if self._service is not None:
            raise StartupError("functions are given to an upload server before its start")
        try:
            return keeping(self._functions.append, known, names, thread)
        except ValueError as problem:
            raise StartupError(str(problem)) from None

    # Sites

    def site(self, root: IResource | None = None) -> StreamingTree:
        """A site of the tree ``root``, in which ``resource`` is at its place; in place of Twisted's ``Site(root)``.
        Without ``root``, one for the uploads alone. `resumable.embed.site` makes one for several servers."""
        return StreamingTree(_Alone(self) if root is None else root, self, alone=root is None)

    def mounted(self) -> None:
        """See `RequestOwner.mounted`."""
        self._mounted = True

    @property
    def tree(self) -> Root | None:
        """What answers requests for uploads; None while it doesn't run."""
        return self._service.parts.root if self._service is not None and self._service.open else None

    @property
    def admin_tree(self) -> KleinResource | None:
        """What answers operators; None while it doesn't run."""
        return self._service.parts.operators.tree if self._service is not None and self._service.open else None

    def refusal_fields(self, origins: Sequence[bytes]) -> Fields:
        """See `StreamingSite`."""
        return () if self._service is None else self._service.site.refusal_fields(origins)

    def refused(self, status: int) -> None:
        """See `RequestObserver.refused`."""
        if self._service is not None:
            self._service.parts.operators.watch.refused(status)

    def began(self, request: EmbeddedRequest) -> None:
        """See `RequestOwner`."""
        if self._service is not None:
            self._service.began(request)

    def ended(self, request: EmbeddedRequest, seconds: float) -> None:
        """See `RequestOwner`."""
        if self._service is not None:
            self._service.ended(request, seconds)

    # The service

    def start(self) -> None:
        """Start now, and stop with the reactor: for a program that isn't made of services. Raises StartupError."""
        self.privilegedStartService()
        self.startService()
        self.reactor.addSystemEventTrigger("before", "shutdown", self.stop)

    def stop(self) -> Deferred[None]:
        """Fires when every byte that was received is committed, and nothing runs any more. May be called again."""
        if not self.running:
            return succeed(None)
        return maybeDeferred(self.stopService).addCallback(lambda _: None)

    def privilegedStartService(self) -> None:
        """Bind the ports, if there are any. Raises StartupError."""
        self._make()
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Lock the directory and recover it. Blocks. Raises StartupError."""
        if self._make():
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except BaseException:
            self.running = 0
            raise
        self.reactor.callWhenRunning(self._look_for_site)

    def _look_for_site(self) -> None:
        if self.running and not self._mounted and not self.settings.listen:
            log.warn("{advice}", advice=NO_SITE)

    def _make(self) -> bool:
        """Make the parts, if they aren't there. Raises StartupError."""
        if self._service is not None:
            if self._service.stopped:
                raise StartupError("an upload server starts once: make another one")
            return False
        settings, run = with_run_directory(self._with_functions())
        self._service = EmbeddedService(settings, self.reactor, run)
        self._service.setServiceParent(self)
        return True

    def _with_functions(self) -> Settings:
        if not self._functions:
            return self.settings
        try:
            found = gathered(self._functions)
        except ValueError as problem:
            raise StartupError(str(problem)) from None
        hooks = self.settings.hooks
        if CODE in {target.name for target in (*hooks.hooks, *hooks.guards)}:
            raise StartupError(f"the hook {CODE} is the one of this program's functions: give the other another name")
        target = HookTarget(CODE, "python", "functions", functions=found)
        more = evolve(
            hooks,
            hooks=(*hooks.hooks, *([target] if found.events else [])),
            guards=(*hooks.guards, *([target] if found.questions else [])),
        )
        return evolve(self.settings, hooks=more)


class _Alone(Resource):
    """The whole address space of a site, with ``/healthz`` and ``/readyz``."""

    isLeaf = True

    def __init__(self, server: UploadServer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._server = server

    def render(self, request: Any) -> bytes | int:
        tree = self._server.tree
        return unavailable(request) if tree is None else tree.render(request)
