"""One upload at the server, from its creation to its last byte: a whole file, or one of its parallel parts.

Invariants: a byte is sent only at the offset that the server has told; after anything that isn't a plain success the
server is asked for the offset before more is sent; a source is looked at again before that, so that two versions of it
never meet in one upload. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import evolve

from resumable.client.client_transfer import ClientTransfer, Meter
from resumable.client.effects import BodyStretch, CutShort, Exchange, HttpReply, Lost, Steps, Work
from resumable.client.events import StartedOver
from resumable.client.exceptions import (
    ANEW,
    DigestDiffers,
    NothingThere,
    NotResumable,
    SizeRefused,
    SourceChanged,
    has_changed,
)
from resumable.client.offers import checksum_of
from resumable.client.patience import Failed, is_of_the_way, judged
from resumable.client.piece_bound import LAST, WITH_CHECKSUM, LateDigest, PieceBound
from resumable.client.sources import SendSource, Window
from resumable.client.speech import Speech, Standing, ToCreate, announced, new_url, number, speech_of

AGAIN: Final = 3
"""How often an upload may be gone, or a checksum be wrong, with no byte acknowledged in between."""


class Strand:
    """Sends ``source`` from ``start`` on, as one upload; ``size`` None: until it ends.

    ``new``: how it is created; ``url``: where it is, if it has been begun; ``keep``: steps that remember its URL;
    ``begun``: told when the offset at which it begins is known, and whether it is resumed; ``late``: the digest of the
    whole, which comes while bytes are sent, and goes with the last.
    """

    def __init__(
        self,
        transfer: ClientTransfer,
        source: SendSource,
        new: ToCreate,
        speech: Speech | None,
        *,
        start: int = 0,
        url: str | None,
        keep: Callable[[Strand], Steps[None]],
        begun: Callable[[Strand, int, bool], None],
        checksum: str | None,
        late: LateDigest | None,
        pieces: PieceBound,
        meter: Meter,
    ) -> None:
        self.url, self.speech, self.resumed_from = url, speech, 0
        self._transfer, self._source, self._new, self._start = transfer, source, new, start
        self._keep, self._told, self._pieces, self._meter = keep, begun, pieces, meter
        self._checksum, self._late = checksum, late
        self._patience = transfer.patience()
        self._standing: Standing | None = None
        self._begun = False
        self._highest = self._informed = 0
        self._losses = self._mismatches = 0

    @property
    def size(self) -> int | None:
        """Its bytes; None: not known yet."""
        return self._new.size

    def run(self) -> Steps[None]:
        """Send all. Raises what ends the transfer."""
        while True:
            try:
                yield from self._patience.window()
                if self.url is None:
                    yield from self._create()
                elif self._standing is None:
                    yield from self._locate()
                elif (yield from self._append(self._standing)):
                    return
            except NothingThere as gone:
                yield from self._start_over(gone)
            except Lost as trouble:
                self._standing = None
                yield from self._patience.after(trouble, begun=self.url is not None and not self._source.once)
            except CutShort:
                self._standing = None

    # -- its beginning

    def _create(self) -> Steps[None]:
        reply, base, speech = yield from self._creation()
        self.url, self.speech = new_url(base, judged(reply, base)), speech
        yield from self._keep(self)
        standing = speech.standing(reply, 0)  # neither protocol has an offset in this answer for sure
        # nothing of a creation without content can be there, and a final one has all
        self._learn(evolve(standing, length=self.size if standing.length is None else standing.length))
        self._begin(resumed=False)

    def _creation(self) -> Steps[tuple[HttpReply, str, Speech]]:
        """The answer to the creation, by the first protocol that is spoken there."""
        asked = self._transfer.options.protocol
        refused: list[tuple[HttpReply, str]] = []
        for name in _names(asked, self.speech):
            speech = speech_of(name)
            exchange = Exchange(method="POST", url=self._transfer.address, fields=speech.creation(self._new))
            reply, base = yield from self._transfer.ask(exchange)
            if speech.speaks(reply) or is_of_the_way(reply):
                return reply, base, speech
            refused.append((reply, base))
        reply, base = refused[0]
        if reply.status in (404, 410):
            judged(reply, base)
        names = {"auto": "neither tus 1.0 nor the draft", "tus": "no tus 1.0", "draft": "not the draft"}
        raise NotResumable(
            f"{base} answers {reply.status}, and speaks {names[asked]}: give the URL at which uploads are created"
        )

    def _locate(self) -> Steps[None]:
        """Ask for the offset."""
        assert self.url is not None and self.speech is not None
        try:
            yield Work(self._source.recheck)
        except SourceChanged as error:
            raise has_changed(self._transfer.name, self.url, self._highest) from error
        exchange = Exchange(method="HEAD", url=self.url, fields=self.speech.asking())
        reply, self.url = yield from self._transfer.ask(exchange)
        standing = self.speech.standing(judged(reply, self.url), None)
        if self.size is not None and (standing.offset > self.size or standing.length not in (None, self.size)):
            raise SourceChanged(
                f"{self._transfer.name} has {self.size} bytes, and {self.url} another length; {ANEW}",
                *(self._transfer.name, self.url, standing.offset),
            )
        if standing.complete and self.size is not None and standing.offset != self.size:
            raise self._ended_early(standing)
        self._learn(standing)
        self._patience.contact(standing.offset)
        self._begin(resumed=True)

    def _ended_early(self, standing: Standing) -> SourceChanged:
        name, url, offset = self._transfer.name, self.url, standing.offset
        return SourceChanged(f"{url} is complete with {offset} bytes, and {name} has more; {ANEW}", name, url, offset)

    def _begin(self, resumed: bool) -> None:
        if not self._begun and self._standing is not None:
            self._begun = True
            self.resumed_from = self._standing.offset if resumed else 0
            self._told(self, self._standing.offset, resumed)

    def _learn(self, standing: Standing) -> None:
        """What the server has now."""
        if self.speech is not None and self.speech.name == "tus" and standing.offset == self.size:
            standing = evolve(standing, complete=True)
        self._standing = standing
        self._pieces.bound(standing.most)
        if standing.complete and self._meter.total is None:
            self._meter.total = standing.offset
        if self._begun:
            self._meter.acknowledged(self, standing.offset)
        else:
            self._meter.known(self, standing.offset)
            if not self._losses:  # bytes that were lost aren't progress when they are there once more
                self._highest = standing.offset
        if standing.offset > self._highest:
            self._highest = standing.offset
            self._losses = self._mismatches = 0
            self._patience.moved()
        self._source.acknowledge(self._start + standing.offset)

    def _start_over(self, gone: NothingThere) -> Steps[None]:
        """The upload isn't there any more."""
        self._losses += 1
        if self._losses > 1:
            yield from self._patience.after(Failed(str(gone)))
        if self.url is None or self._losses > AGAIN or (self._source.size is None and self._highest > 0):
            raise gone
        self._transfer.tell(StartedOver(source=self._transfer.name, reason=f"the server no longer has it: {gone}"))
        self.url, self._standing, self._begun, self.resumed_from = None, None, False, 0
        yield from self._keep(self)

    # -- its bytes

    def _append(self, standing: Standing) -> Steps[bool]:
        """One request; True: all is there."""
        if standing.complete and self.size is not None:
            return True
        window = yield from self._window(standing.offset)
        if standing.complete:
            if window.size or not window.last:
                raise self._ended_early(standing)
            return True
        total = standing.offset + window.size if window.last else None
        # a source that has changed is noticed while the upload isn't finished: it is looked at before the last bytes go
        check = self._source.recheck if window.last else None
        body = BodyStretch(self._source, self._start + standing.offset, window.size, check)
        reply = yield from self._patch(standing, body, window, total)
        if reply is None:
            return False
        assert self.speech is not None
        now = yield from self._after(reply, window, standing.offset + window.size)
        if not standing.offset <= now.offset <= standing.offset + window.size:
            raise Failed(f"the server tells an impossible offset: {now.offset}")
        ended = now.complete or (self.speech.name == "tus" and now.offset == total)
        if ended and now.offset != total:
            raise Failed(f"the server says that it is complete with {now.offset} bytes, and there are more")
        if now.offset == standing.offset and not ended:
            raise Failed("the server has taken nothing")
        if total is not None and self._meter.total is None:
            self._meter.total = total
        self._learn(evolve(now, length=standing.length if total is None else total, complete=ended))
        return ended

    def _after(self, reply: HttpReply, window: Window, expected: int) -> Steps[Standing]:
        """What the server has after a PATCH that succeeded: its answer says so, or else that to HEAD."""
        assert self.url is not None and self.speech is not None
        now = self.speech.standing(reply, expected)
        # A draft's last answer may be that of what takes the upload, without an offset: complete means all bytes.
        whole = self.speech.name == "draft" and now.complete and window.last
        if whole or number(reply, "upload-offset") is not None:
            return now
        exchange = Exchange(method="HEAD", url=self.url, fields=self.speech.asking())
        found, self.url = yield from self._transfer.ask(exchange)
        if window.last and found.status in (404, 410):
            return now  # a server may take a finished upload away at once: there is only the success of the PATCH
        return self.speech.standing(judged(found, self.url), None)

    def _patch(
        self, standing: Standing, body: BodyStretch, window: Window, total: int | None
    ) -> Steps[HttpReply | None]:
        """The answer of a success; None: the request was too long, and the next is shorter."""
        assert self.url is not None and self.speech is not None
        checksum = None
        if (algorithm := self._checksum) is not None and body.size:
            checksum = algorithm, (yield Work(lambda: checksum_of(algorithm, body)))
        announcement = yield from self._announcement(window)
        untold = total if self.size is None and standing.length is None else None
        told = standing.offset

        def moved(count: int) -> None:
            self._meter.flying(self, max(0, standing.offset + count - told))

        def informed(_: int, interim: HttpReply) -> None:
            nonlocal told
            assert self.speech is not None
            offset = number(interim, "upload-offset")
            if offset is not None and told < offset <= standing.offset + body.size:
                told = offset
                self._meter.acknowledged(self, told)
                if told > self._informed:  # not what an answer has denied since
                    self._informed = told
                    self._patience.moved()

        exchange = Exchange(
            method="PATCH",
            url=self.url,
            fields=[*self.speech.appending(standing.offset, window.last, untold, checksum), *announcement],
            body=body,
            moved=moved,
            informed=informed,
            may_go=self._transfer.options.may_send,
        )
        try:
            reply, self.url = yield from self._transfer.ask(exchange)
        except SourceChanged as error:
            raise has_changed(self._transfer.name, self.url, told) from error
        if reply.status == 413 and not self._is_ours(reply):
            self._standing = None
            if (yield from self._pieces.shrink(body.size)):
                return None
            raise SizeRefused(413, "", f"something on the way refuses requests of {body.size} bytes", self.url)
        if _is_mismatch(reply):
            self._mismatches += 1
            ours = announced(self._new.sha256)[1] if self._new.sha256 else announcement[0][1] if announcement else None
            if ours is not None and (checksum is None or self._mismatches > AGAIN):
                raise DigestDiffers(self._transfer.name, self.url, ours, None)
            if checksum is not None and self._mismatches <= AGAIN:
                raise Failed("the bytes arrived damaged: their checksum is another")
        return judged(reply, self.url)

    def _announcement(self, window: Window) -> Steps[list[tuple[str, str]]]:
        if not window.last or self._new.partial or not self._transfer.options.verify:
            return []
        if self._late is not None:
            return [announced((yield from self._late.wait()))]
        if self.size is None:  # a stream, whose digest is known at its end
            return [announced(digest) for digest in self._source.digests(["sha-256"], lambda _: None).values()]
        return []

    def _window(self, offset: int) -> Steps[Window]:
        most = self._pieces.most
        if self._checksum is not None:
            most = WITH_CHECKSUM if most is None else min(most, WITH_CHECKSUM)
        if self.size is None:
            window = lambda: self._source.window(self._start + offset, most)  # noqa: E731
            found: Window = yield Work(window, self._source.close)
            return found
        left = self.size - offset
        size = left if most is None else min(left, most)
        if self._late is not None and self._late.value is None and size == left:
            size = max(0, left - LAST) or size  # the digest is computed while these bytes go, and goes with the last
        return Window(size, size == left)

    def _is_ours(self, reply: HttpReply) -> bool:
        """Whether the upload server itself has answered, and nothing before it."""
        assert self.speech is not None
        return self.speech.speaks(reply) and "problem+json" in (reply.get("content-type") or "problem+json")


def _names(asked: str, known: Speech | None) -> list[str]:
    """The protocols to try."""
    if known is not None and asked in ("auto", known.name):
        return [known.name]
    return ["tus", "draft"] if asked == "auto" else [asked]


def _is_mismatch(reply: HttpReply) -> bool:
    return reply.status == 460 or (reply.status == 400 and b"#digest-mismatching-values" in reply.body)
