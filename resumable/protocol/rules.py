"""Whether a request fits its upload, and how far it may go.

Invariant of every `AppendPlan`: ``start <= commit_ceiling <= ceiling``, where None stands for no bound; so no byte that
is committed before the end of a body ever has to be taken back. Spec: tus 1.0.0, PATCH, Creation, Creation With Upload,
Checksum, Concatenation.

Offsets are absolute and count bytes: the offset n means that the bytes 0 to n-1 are there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from resumable.protocol.errors import BadRequest, InconsistentLength, OffsetMismatch, PastLength, TooLarge, TusError
from resumable.protocol.fields import LARGEST
from resumable.protocol.requests import Append, Creation


@dataclass(frozen=True, slots=True)
class AppendPlan:
    """How far one admitted append may go.

    start
        The offset of its first byte.
    length
        The upload's length, None while it is unknown; includes the one that this append brings.
    ceiling
        The offset that no byte may pass: the length, or the maximum while the length is unknown. Only a chunked
        body can try; then the answer is 413, and the append neither finishes the upload nor records a length.
    commit_ceiling
        The highest offset that may be committed before the end of the body arrives.
    may_finish
        Whether the upload can be finished by this append: it has a length, and the body may reach it.
    new_length
        The length to record with the commit at the end of the body; None if there is none to record.
    early_length
        The length to record with a commit before that; None unless the body can no longer be refused.
    finishes
        Whether the upload is finished when the offset reaches the length: the draft's are only when a request says so.
    ends
        Whether the end of the body is the end of the upload (the draft): the length is where it ends, or must be.
    fatal
        Whether a body that runs past the length makes the upload invalid (the draft).
    """

    start: int
    length: int | None
    ceiling: int | None
    commit_ceiling: int | None
    may_finish: bool
    new_length: int | None = None
    early_length: int | None = None
    finishes: bool = True
    ends: bool = False
    fatal: bool = False

    def overrun(self) -> TusError:
        """The refusal of a body that runs past the ceiling."""
        if self.fatal and self.length is not None and self.ceiling == self.length:
            return PastLength(self.length)
        return TooLarge("The body runs past the upload's length or the maximum.")

    def length_at(self, end: int) -> int | None:
        """The length to record when the body has come to its end at that offset; None if there is none to record."""
        return end if self.ends and self.length is None else self.new_length

    def overruns(self, end: int) -> bool:
        """Whether a body that has reached the offset ``end`` is to be refused with 413."""
        return self.ceiling is not None and end > self.ceiling

    def committable(self, end: int) -> int:
        """How many of the bytes received up to the offset ``end`` may be committed before the body's end arrives.

        So many may also be kept when the body is lost or runs past the ceiling.
        """
        return end if self.commit_ceiling is None else min(end, self.commit_ceiling)


def finished(offset: int, length: int | None) -> bool:
    """Whether all bytes are there; a zero length is there at once (T23), an unknown one never."""
    return length is not None and offset == length


def admit_creation(creation: Creation, content_length: int | None, max_size: int | None) -> AppendPlan:
    """The plan for the body of a POST, an empty one included; TooLarge if it cannot fit.

    Not for a final upload, which takes no body: see `final_length`.
    """
    if creation.length is not None:
        # "If the length of the upload exceeds the maximum ... the Server MUST respond with the 413"
        _check_maximum(creation.length, max_size, None)
    # "In this case, similar rules as for the PATCH request and response apply."
    if creation.draft:
        _check_content(0, creation.length, creation, content_length)
    plan = _plan(0, creation.length, content_length, max_size, creation.is_checked, refused_at=None)
    return _of_draft(plan, creation, creation.completes) if creation.draft else plan


def admit_append(
    offset: int,
    length: int | None,
    append: Append,
    content_length: int | None,
    max_size: int | None,
    *,
    by_length: bool = True,
) -> AppendPlan:
    """The plan for a PATCH to an upload with this committed ``offset`` and ``length``.

    ``by_length``: the upload is finished when it reaches its length, whoever gets it there; else an append of the draft
    must say so. Raises OffsetMismatch, BadRequest or InconsistentLength (another length than the recorded one) or
    TooLarge, in this order; after any of them nothing may be recorded.
    """
    # "The Upload-Offset header's value MUST be equal to the current offset of the resource."
    if append.offset != offset:
        raise OffsetMismatch(offset, append.offset)
    if append.draft:
        return _admit_draft(offset, length, append, content_length, max_size, by_length)
    if append.length is None or append.length == length:
        new_length = None
    elif length is not None:
        # "Once set the length MUST NOT be changed."
        raise BadRequest(f"Upload-Length is {length} already and cannot become {append.length}.")
    elif append.length < offset:
        raise TooLarge(f"Upload-Length {append.length} is below the {offset} bytes that are here.", offset=offset)
    else:
        new_length = append.length
        _check_maximum(new_length, max_size, offset)
    known = length if new_length is None else new_length
    checked = append.is_checked
    return _plan(offset, known, content_length, max_size, checked, refused_at=offset, new_length=new_length)


def _admit_draft(
    offset: int, length: int | None, append: Append, content_length: int | None, max_size: int | None, by_length: bool
) -> AppendPlan:
    known = append.length if length is None else length
    if append.length is not None and append.length != known:
        raise InconsistentLength(known or 0, append.length)
    if known is not None and known < offset:
        raise InconsistentLength(known, offset)
    if known is None and append.completes and content_length is not None:
        known = offset + content_length
    _check_content(offset, known, append, content_length)
    new_length = None if known == length else known
    if new_length is not None:
        _check_maximum(new_length, max_size, offset)
    plan = _plan(offset, known, content_length, max_size, append.is_checked, refused_at=offset, new_length=new_length)
    return _of_draft(plan, append, append.completes or by_length)


def _check_content(start: int, length: int | None, request: Creation | Append, content_length: int | None) -> None:
    """Raises InconsistentLength where the declared content runs past the length, or must end there and doesn't."""
    if length is None or content_length is None:
        return
    end = start + content_length
    if end > length or (request.completes and end != length):
        # "If indicators (1) and (2) are both present in the same request, their indicated lengths MUST match."
        raise InconsistentLength(length, end)


def _of_draft(plan: AppendPlan, request: Creation | Append, finishes: bool) -> AppendPlan:
    """The plan for a request of the draft."""
    ceiling, commit_ceiling = plan.ceiling, plan.commit_ceiling
    if request.at_most is not None:
        bound = plan.start + request.at_most
        ceiling = bound if ceiling is None else min(ceiling, bound)
        commit_ceiling = bound if commit_ceiling is None else min(commit_ceiling, bound)
    return AppendPlan(  # dataclasses.replace takes as long as all the rest
        *(plan.start, plan.length, ceiling, commit_ceiling),
        may_finish=request.completes or (finishes and plan.may_finish),
        new_length=plan.new_length,
        early_length=plan.early_length,
        finishes=finishes,
        ends=request.completes,
        fatal=True,
    )


def final_length(lengths: Iterable[int | None], max_size: int | None) -> int | None:
    """The length of a final upload from those of its partials, None while one is unknown; TooLarge over the maximum.

    T52: "The length of the final upload MUST be the sum of the length of all partial uploads."
    """
    total = 0
    known = True
    for length in lengths:
        known = known and length is not None
        total += length or 0
    # The sum of the known lengths is a lower bound: over the maximum, the unknown ones don't matter.
    _check_maximum(total, max_size, None)
    return total if known else None


def _plan(
    start: int,
    length: int | None,
    content_length: int | None,
    max_size: int | None,
    checked: bool,
    *,
    refused_at: int | None,
    new_length: int | None = None,
) -> AppendPlan:
    ceiling = length
    if length is None and max_size is not None:
        # An operator may have lowered the maximum since: the bytes here stay, no more are added.
        ceiling = max(start, max_size)
    if content_length is not None and start + content_length > (LARGEST if ceiling is None else ceiling):
        what = "maximum size" if length is None else "upload's length"
        bound = LARGEST if ceiling is None else ceiling
        raise TooLarge(
            f"Content-Length {content_length} from offset {start} runs past the {what}, {bound}.", offset=refused_at
        )
    return AppendPlan(
        start=start,
        length=length,
        ceiling=ceiling,
        commit_ceiling=start if checked else _commit_ceiling(start, length, content_length, ceiling),
        may_finish=length is not None and (content_length is None or start + content_length == length),
        new_length=new_length,
        # A checksum that fails, or a chunked body that runs past the length, refuses the append and its length.
        early_length=None if checked or content_length is None else new_length,
    )


def _commit_ceiling(start: int, length: int | None, content_length: int | None, ceiling: int | None) -> int | None:
    """How far an append without a checksum may commit as it goes.

    A declared body was measured before its first byte and its last byte is its end: all of it. A chunked one may
    turn out too long when its last byte should have been seen, and then must not have finished the upload; so the
    last byte of the length waits for the end. Where the length is unknown nothing can be finished: up to the maximum.
    """
    if content_length is not None:
        return start + content_length
    if length is not None:
        return max(start, length - 1)
    return ceiling


def _check_maximum(length: int, max_size: int | None, offset: int | None) -> None:
    bound = LARGEST if max_size is None else max_size
    if length > bound:
        raise TooLarge(f"The upload's length {length} is over the maximum size, {bound}.", offset=offset)
