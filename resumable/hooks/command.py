"""A hook that is a command: one process for each event or question.

Invariants: no shell sees anything a client has sent: the arguments are the operator's, the event comes as JSON on
stdin. The environment is clean except for `PASSED_ON` and a few facts of our own making. Only exit
status 0, with a verdict or nothing on stdout, is a yes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool, Stopped
from resumable.hooks import messages
from resumable.hooks.interfaces import (
    Allow,
    BadVerdict,
    Event,
    HookFailed,
    IGuard,
    IHook,
    IWatcher,
    Question,
    Refuse,
    Verdict,
)
from resumable.hooks.processes import CommandOutcome, Run
from resumable.model.hooks import Answer

log = Logger()

PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")
CANNOT_RUN = (126, 127)
"""The exit statuses of a shell, or env, that could not start a command."""


def find_program(program: str, path: str) -> str:
    """Where the program is, absolute. Raises ValueError with a line for the operator if it can't be run.

    ``path``: the directories that a name without a slash is looked for in.
    """
    found = os.path.abspath(program) if os.sep in program else shutil.which(program, path=path)
    if found is None:
        raise ValueError(f"there is no program {program} on the PATH: give its path, or install it")
    if not os.path.isfile(found):
        raise ValueError(f"there is no program {found}: correct the path after exec:")
    if not os.access(found, os.X_OK):
        raise ValueError(f"the program {found} can't be run: make it executable (chmod +x)")
    interpreter = _interpreter(found)
    if interpreter and not os.access(interpreter, os.X_OK):
        raise ValueError(f"the program {found} begins with #!{interpreter}, which can't be run: correct its first line")
    return found


def _interpreter(program: str) -> str:
    """The program that runs a script; empty: it is no script, or can't be read."""
    try:
        with open(program, "rb") as file:
            words = file.readline(4096).decode("utf-8", "replace").removeprefix("#!").split()
            file.seek(0)
            return words[0] if words and file.read(2) == b"#!" else ""
    except OSError:
        return ""


@frozen
class Command:
    """``arguments``: the program and its arguments, as they are. ``timeout``: seconds, then its process group is
    killed. ``largest``: bytes of its stdout. ``directory``: where it runs."""

    arguments: Sequence[str]
    timeout: float = 10.0
    largest: int = 256 << 10
    directory: str | None = None


@implementer(IHook, IGuard, IWatcher)
class CommandHook:
    """``pool``: as many threads as commands may run at once; its maker starts and stops it.

    ``environment``: the source of `PASSED_ON`. ``monotonic`` measures the time-out, in a thread.
    """

    def __init__(
        self,
        command: Command,
        pool: IPool,
        *,
        source: str,
        environment: Mapping[str, str],
        monotonic: Callable[[], float],
        target: str = "",
    ) -> None:
        """``target``: the hook's kind and place, for the log."""
        if not command.arguments or not all(command.arguments):
            raise ValueError("a command hook needs a program")
        self._command = command
        self._pool = pool
        self._source = source
        self._environment = {name: environment[name] for name in PASSED_ON if name in environment}
        self._environment.setdefault("PATH", os.defpath)
        self._monotonic = monotonic
        self._target = target

    @deferred
    async def deliver(self, event: Event) -> None:
        """See `IHook.deliver`: exit status 0 says that it arrived."""
        outcome = await self._run(event)
        if outcome.status != 0:
            raise _failed(outcome)

    @deferred
    async def ask(self, question: Question) -> Verdict:
        """See `IGuard.ask`: exit status 0 is yes unless stdout says otherwise, 1 to 125 is no."""
        outcome = await self._run(question)
        if outcome.status is None or outcome.status < 0 or outcome.status in CANNOT_RUN:
            raise _failed(outcome)
        output = _output(outcome)
        if outcome.status == 0:
            return messages.parse(output) if output.strip() else Allow()
        return self._refusal(output)

    def _refusal(self, output: bytes) -> Refuse:
        """The refusal that a refusing command has for the client; an empty one if it gives none in our format."""
        try:
            verdict = messages.parse(output) if output.strip() else Refuse()
        except BadVerdict as error:
            said = "hook {target}: what it refuses with is no verdict: {reason}"
            log.warn(said, target=self._target, reason=error.reason)
            return Refuse()
        return verdict if isinstance(verdict, Refuse) else Refuse(Answer())

    @deferred
    async def watch(self, event: Event) -> Refuse | None:
        """See `IWatcher.watch`: stdout may say stop."""
        outcome = await self._run(event)
        if outcome.status != 0:
            raise _failed(outcome)
        return messages.parse_stop(_output(outcome))

    async def _run(self, message: Event | Question) -> CommandOutcome:
        command = self._command
        attempt = _Attempt(command, {**self._environment, **facts(message)}, self._monotonic)
        data = messages.dumps(messages.document(message, self._source)) + b"\n"
        running = self._pool.run(attempt.run, data)
        # a thread can't be cancelled, its process can be killed: how that ends is then nobody's concern
        waiting: Deferred[CommandOutcome] = Deferred(lambda _: attempt.kill())
        running.addBoth(lambda outcome: None if waiting.called else waiting.callback(outcome))
        try:
            return await waiting
        except Stopped:
            raise HookFailed("no more commands are started") from None
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise HookFailed(f"the command can't be run: {said}", unreached=True) from None


class _Attempt:
    """One run, in a thread, that can be killed from the reactor before, during and after."""

    def __init__(self, command: Command, environment: Mapping[str, str], monotonic: Callable[[], float]) -> None:
        self._command = command
        self._environment = environment
        self._monotonic = monotonic
        self._run: Run | None = None
        self._unwanted = False

    def run(self, data: bytes) -> CommandOutcome:
        command = self._command
        if not self._is_unwanted():
            self._run = Run(command.arguments, self._environment, command.directory)
        if self._run is None:
            return CommandOutcome(None, b"", b"")
        if self._is_unwanted():  # `kill` may not have seen the run
            self._run.kill()
        return self._run.talk(data, command.timeout, command.largest, self._monotonic)

    def _is_unwanted(self) -> bool:
        return self._unwanted

    def kill(self) -> None:
        self._unwanted = True
        if self._run is not None:
            self._run.kill()


def facts(message: Event | Question) -> dict[str, str]:
    """Environment variables for scripts that need no more: a client can choose none of their values freely."""
    upload = message.upload
    found = {"HOOK_EVENT": message.kind.value, "HOOK_ID": message.id, "HOOK_UPLOAD": upload.id}
    found |= {"HOOK_OFFSET": str(upload.offset), "HOOK_LENGTH": "" if upload.length is None else str(upload.length)}
    if isinstance(message, Event) and message.sequence is not None:
        found["HOOK_SEQUENCE"] = messages.sequence_of(message.sequence)
    if isinstance(message, Event) and message.remote is not None:
        found["HOOK_REMOTE"] = message.remote
    return found


def _output(outcome: CommandOutcome) -> bytes:
    if outcome.output is None:
        raise BadVerdict("it said more than it may")
    return outcome.output


def _failed(outcome: CommandOutcome) -> HookFailed:
    """The last line that it wrote to stderr says why; it is the operator's own program."""
    how = "it was killed, it took or said too much" if outcome.status is None else f"it ended with {outcome.status}"
    lines = outcome.said.decode("utf-8", "replace").strip().splitlines()
    last = "".join(char if char.isprintable() else "?" for char in lines[-1][:200]) if lines else ""
    late = outcome.status is None and outcome.output is not None
    return HookFailed(f"{how}: {last}" if last else how, unanswered=late)
