"""A source on its way: as one strand, or in parallel parts that the server puts together; and what is looked at then.

Invariants: the state file has the URL of an upload before its first byte is sent; the entry leaves it once the server
has all bytes. No I/O here. Spec: tus 1.0.0, Concatenation, for the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

from resumable.client.client_transfer import ClientTransfer, Meter
from resumable.client.effects import Exchange, Steps, Together, Work
from resumable.client.events import Begun, Noted, Sent, Uploaded
from resumable.client.exceptions import ANEW, SourceChanged, has_changed
from resumable.client.looking import digests, until_stored, verified, watch
from resumable.client.offers import chosen_checksum, offered
from resumable.client.patience import judged
from resumable.client.piece_bound import LateDigest, PieceBound
from resumable.client.sources import SendSource
from resumable.client.speech import Speech, ToCreate, TusSpeech, new_url, speech_of
from resumable.client.state_file import UploadEntry
from resumable.client.strand import Strand

SMALLEST_PART = 1 << 20
"""Bytes of a parallel part, at least."""
Keep = Callable[[Strand], Steps[None]]


class SourceSending:
    """Sends ``source`` on from where ``entry`` says that it is."""

    def __init__(
        self, transfer: ClientTransfer, source: SendSource, entry: UploadEntry, metadata: Mapping[str, str | bytes]
    ) -> None:
        self._transfer, self._source, self._entry, self._metadata = transfer, source, entry, metadata
        self._pieces = PieceBound(transfer, None)
        self._meter = Meter(transfer, source.size)
        self._checksum: str | None = None
        self._ours: dict[str, bytes] = {}
        self._late: LateDigest | None = None
        self._strands: list[Strand] = []
        self._begun: dict[Strand, tuple[int, bool]] = {}

    def run(self) -> Steps[Uploaded]:
        """See `putting.put_steps`."""
        transfer, source, entry = self._transfer, self._source, self._entry
        remembered: int | None = yield Work(lambda: transfer.state.piece(transfer.address))
        self._pieces.bound(remembered)
        if transfer.options.announce:
            yield from self._announce()
        parts = yield from self._agree()
        if parts > 1:
            url, speech = yield from self._in_parts(parts)
        else:
            url, speech = yield from self._in_one()
        size = self._meter.total if source.size is None else source.size
        assert size is not None
        try:
            yield Work(source.recheck)
        except SourceChanged as error:
            if entry.parts:  # so that what they were put together to is removed as well
                entry.url = url
                yield Work(lambda: transfer.state.save(entry))
            raise SourceChanged(
                f"{transfer.name} has changed while it was sent, and {url} may have bytes of before and after; {ANEW}",
                *(transfer.name, url, size),
            ) from error
        transfer.tell(Sent(source=transfer.name, url=url, size=size))
        digest, checked = None, False
        if transfer.options.verify:
            digest, checked = yield from verified(transfer, source, url, speech, self._ours)
        yield Work(lambda: transfer.state.forget(entry.key))
        stored = (yield from until_stored(transfer, url)) if transfer.options.wait_stored else None
        resumed_from = sum(strand.resumed_from for strand in self._strands)
        return Uploaded(
            url=url,
            size=size,
            sent=self._meter.gained,
            resumed_from=resumed_from,
            seconds=transfer.seconds,
            protocol=speech.name,
            digest=digest,
            checked=checked,
            stored=stored,
        )

    def _announce(self) -> Steps[None]:
        if self._source.size is None:
            self._note("the digest of a stream isn't known before its end, and isn't announced")
        else:
            self._ours = yield from digests(self._transfer, self._source, ["sha-256"])

    def _agree(self) -> Steps[int]:
        """What the server can do of what was asked for; the number of parts."""
        transfer, entry, options = self._transfer, self._entry, self._transfer.options
        size = self._source.size
        parts = len(entry.parts)
        if not entry.urls and options.parts > 1:
            parts = min(options.parts, (size or 0) // SMALLEST_PART)
            if size is None:
                self._note("a stream is sent as one: its parts aren't known")
        draft = "draft" in (options.protocol, entry.protocol)
        if draft and options.checksum is not None:
            self._checksum = "sha256"  # Content-Digest knows no shorter one
        if draft and parts > 1:
            self._note("the draft has no parallel parts: it is sent as one")
            parts = 1
        # What was begun by another run is compared as a whole before it is finished: only that shows for sure that
        # the bytes of then and those of now are of one file.
        resumed = bool(entry.urls) and size is not None and options.verify and not options.announce
        if not resumed and (draft or (parts <= 1 and options.checksum is None)):
            return parts if parts > 1 else 1
        offer = yield from transfer.patiently(lambda: offered(transfer), begun=bool(entry.urls))
        if resumed and offer.digests:
            self._late = LateDigest()
        if not draft and options.checksum is not None:
            tus = offer.extensions or options.protocol == "tus"
            self._checksum = chosen_checksum(transfer, offer.checksums) if tus else "sha256"
        if parts > 1 and "concatenation" not in offer.extensions:
            self._note("the server puts no parallel parts together: it is sent as one")
            return 1
        return max(1, parts)

    def _compute(self, late: LateDigest) -> Steps[None]:
        self._ours = yield from digests(self._transfer, self._source, ["sha-256"])
        late.value = self._ours["sha-256"]

    # -- as one

    def _in_one(self) -> Steps[tuple[str, Speech]]:
        transfer, entry = self._transfer, self._entry
        new = ToCreate(size=self._source.size, metadata=self._metadata, sha256=self._ours.get("sha-256"))
        speech = speech_of(entry.protocol) if entry.protocol else None

        def keep(strand: Strand) -> Steps[None]:
            entry.url, entry.protocol = strand.url, strand.speech.name if strand.speech else ""
            yield Work(lambda: transfer.state.save(entry))

        strand = self._strand(new, speech, 0, entry.url, keep)
        self._strands = [strand]
        yield from self._all(watch(transfer, lambda: strand.url))
        assert strand.url is not None and strand.speech is not None
        return strand.url, strand.speech

    def _all(self, watcher: Steps[None] | None) -> Steps[None]:
        beside = [watcher] if watcher is not None and self._transfer.options.poll_status is not None else []
        steps = [strand.run() for strand in self._strands]
        if self._late is not None:
            steps.append(self._compute(self._late))
        if len(steps) > 1 or beside:
            yield Together(steps, beside=beside)
        else:
            yield from steps[0]

    # -- in parts

    def _in_parts(self, count: int) -> Steps[tuple[str, Speech]]:
        transfer, entry, speech = self._transfer, self._entry, TusSpeech()
        size = self._source.size
        assert size is not None
        entry.protocol = speech.name
        if not entry.parts:
            edges = [size * number // count for number in range(count + 1)]
            entry.parts = [(start, end - start, None) for start, end in pairwise(edges)]
        for number, (start, length, url) in enumerate(entry.parts):
            new = ToCreate(size=length, metadata={}, partial=True)

            def keep(strand: Strand, number: int = number, start: int = start, length: int = length) -> Steps[None]:
                entry.parts[number] = (start, length, strand.url)
                yield Work(lambda: transfer.state.save(entry))

            self._strands.append(self._strand(new, speech, start, url, keep))
        yield from self._all(None)
        try:
            yield Work(self._source.recheck)
        except SourceChanged as error:
            raise has_changed(transfer.name) from error
        url = yield from transfer.patiently(lambda: self._join(speech))
        return url, speech

    def _join(self, speech: Speech) -> Steps[str]:
        """The final upload. The same request again means the same upload, so that its answer may be lost."""
        urls = [url for _, _, url in self._entry.parts if url is not None]
        new = ToCreate(size=None, metadata=self._metadata, sha256=self._ours.get("sha-256"), final=urls)
        exchange = Exchange(method="POST", url=self._transfer.address, fields=speech.creation(new))
        reply, base = yield from self._transfer.ask(exchange)
        return new_url(base, judged(reply, base))

    # -- both

    def _strand(self, new: ToCreate, speech: Speech | None, start: int, url: str | None, keep: Keep) -> Strand:
        return Strand(
            self._transfer,
            self._source,
            new,
            speech,
            start=start,
            url=url,
            keep=keep,
            begun=self._has_begun,
            checksum=self._checksum,
            late=self._late,
            pieces=self._pieces,
            meter=self._meter,
        )

    def _has_begun(self, strand: Strand, offset: int, resumed: bool) -> None:
        self._begun[strand] = offset, resumed
        if len(self._begun) < len(self._strands):
            return
        assert strand.url is not None and strand.speech is not None
        self._transfer.tell(
            Begun(
                source=self._transfer.name,
                url=strand.url if len(self._strands) == 1 else self._transfer.address,
                offset=sum(each for each, _ in self._begun.values()),
                total=self._source.size,
                resumed=any(each for _, each in self._begun.values()),
                protocol=strand.speech.name,
            )
        )

    def _note(self, message: str) -> None:
        self._transfer.tell(Noted(source=self._transfer.name, message=message))
