"""What the core asks of the program round it: a step is a generator that yields these, and is sent what came of them.

The core does no I/O, knows no clock of its own and no reactor; `blocking` and `deferred` run the same steps.
Invariant: an effect ends with its result, or an exception raised at the ``yield``: `Lost` for a request that has no
whole answer, `CutShort` for one that was ended since nothing may be sent now.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from attrs import field, frozen

Fields: TypeAlias = Sequence[tuple[str, str]]
TAIL: Final = 64 << 10
"""The last bytes of a content, which `BodyStretch.before_last` is called before."""
T = TypeVar("T")


class Lost(Exception):
    """There is no answer, or none that is whole: the words say why. Whether the server did it isn't known."""


class CutShort(Exception):
    """The request was ended: nothing may be sent for so many seconds."""

    def __init__(self, wait: float) -> None:
        self.wait = wait
        super().__init__(wait)


class ByPosition(Protocol):
    """Bytes by position."""

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, or fewer at the end. Raises SourceUnreadable. Blocks."""

    def fileno(self) -> int | None:
        """A file that has the same bytes at the same positions; None: there is none."""


@frozen
class BodyStretch:
    """A part of a source, as the content of a request.

    ``before_last`` is called each time when some of the last `TAIL` bytes have been read and aren't sent yet: what it
    raises ends the request without them. It blocks for moments at most.
    """

    source: ByPosition
    offset: int
    size: int
    before_last: Callable[[], None] | None = None

    def is_tail(self, end: int) -> bool:
        """Whether the content up to ``end`` has some of the last bytes, which are looked after."""
        return self.before_last is not None and end > self.size - TAIL

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes of the content, or fewer where the source ends. Raises SourceError. Blocks."""
        data = self.source.read(self.offset + offset, size)
        if self.before_last is not None and self.is_tail(offset + size):
            self.before_last()
        return data


@frozen(kw_only=True)
class Exchange:
    """A request; its result is a `HttpReply`.

    ``moved`` is told how many bytes of the content the network has taken; ``informed`` of each informational response;
    ``may_go`` is asked while the content is sent, and answers seconds as ``ClientOptions.may_send``. ``accept``: told
    the status and fields of the final answer, it says where the content goes; None: into the reply.
    """

    method: str
    url: str
    fields: Fields = ()
    body: BodyStretch | None = None
    moved: Callable[[int], None] | None = None
    informed: Callable[[int, HttpReply], None] | None = None
    may_go: Callable[[], float] | None = None
    accept: Callable[[HttpReply], Callable[[bytes], None] | None] | None = None


@frozen
class HttpReply:
    """An answer. ``fields``: names in lower case. ``body`` has a megabyte at most, the rest is dropped."""

    status: int
    fields: Fields = field(factory=tuple)
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """The value of the field, of several lines joined; None without it. ``name`` in lower case."""
        values = [value for key, value in self.fields if key == name]
        return ", ".join(values) if values else None


@frozen
class Pause:
    """Wait so many seconds."""

    seconds: float


@frozen
class Work:
    """Call this where it may block; the result is its result. ``abandon`` makes it end soon, from any thread."""

    call: Callable[[], Any]
    abandon: Callable[[], None] = lambda: None


@frozen
class Together:
    """Run these steps at once; the results in order. The first failure ends the others, and is raised.

    ``beside``: steps that run with them and are ended when all those are done.
    """

    steps: Sequence[Steps[Any]]
    beside: Sequence[Steps[None]] = ()


Effect: TypeAlias = Exchange | Pause | Work | Together
Steps: TypeAlias = Generator[Effect, Any, T]
