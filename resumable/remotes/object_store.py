"""An object store as the spool uses it: where acknowledged bytes live, not copies of them.

`resumable.testing.contract.spool_stores` tests every promise made here. An `IObjectStore` decides nothing: it has no
journal, and does what it is asked once, without repeating it. Every method answers with a Deferred and never blocks.
Failures are `RemoteError`. Whether a call that failed, was cancelled or whose answer was lost has had its effect is
unknown, and it may have it later.

Keys and names are whole: the prefix of the URL is in them. Objects carry the upload's id and a *token* in their
metadata: whoever makes an object gives it a token of its own, so that an object that is found tells who made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import fields, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute

from resumable.remotes.interfaces import IProbe, IRegion, Unfinished
from resumable.remotes.reading import IObjectStream, Presented


@frozen
class ObjectProperties:
    """What an upload's object is made with. ``metadata``: the upload's, keys and decoded values; a store that refuses
    some of it gets the object without (see `resumable.remotes.metadata`). ``token``: printable ASCII."""

    upload_id: str
    token: str
    metadata: Mapping[str, bytes]


@frozen
class Made:
    """An object that the store has for good. See `Stored`; ``token``: that of its maker, ``upload_id``: the one in its
    metadata; empty where it carries none."""

    key: str
    size: int
    token: str
    upload_id: str
    etag: str | None = None
    version: str | None = None
    checksum: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Its fields; `made_from` reads them back."""
        return {each.name: getattr(self, each.name) for each in fields(Made)}


def made_from(value: Mapping[str, Any]) -> Made:
    """See `Made.to_json`."""
    return Made(**value)


@frozen
class SentPart:
    """One part of a list for `IObjectStore.complete`."""

    number: int
    name: str
    size: int
    receipt: str


@frozen
class Listed:
    """An object in a list. ``changed_at``: seconds since the epoch."""

    key: str
    size: int
    changed_at: float


class IObjectStore(IProbe):
    """A bucket or container, under one prefix."""

    prefix = Attribute("str: what all keys begin with; empty, or with a slash at its end")
    limits = Attribute("PartLimits: of parts and objects; `equal`: all parts but the last have the same size")
    part_size = Attribute("int: the size of parts that the operator wants")
    conditional = Attribute(
        "bool: whether `put` with ``only_new`` is safe beside other writers: an object stays, and so do the parts of a"
        " multipart for it"
    )
    numbered = Attribute("bool: whether parts are told apart by their numbers; else by their names")
    part_objects = Attribute("bool: whether a part is an object of its own, called by its name, to be removed later")
    copies_ranges = Attribute(
        "bool: whether `copy_part` copies any bytes of an object; else only all of them, of objects of any size"
    )
    lifetime = Attribute("float | None: seconds after which the store drops the parts of what isn't complete")

    def put(key: str, data: IRegion, properties: ObjectProperties, only_new: bool) -> Deferred[Made]:
        """Make an upload's object of all its bytes (of none, too) with one request.

        ``only_new``: Conflict, and nothing happens, where there is an object under the key. Without it another object
        is replaced.
        """

    def begin(key: str, properties: ObjectProperties) -> Deferred[str]:
        """Begin a multipart for the object; answers its handle, which has all that `complete` needs to know, the token
        too. No request where the store has no such thing: handles differ all the same."""

    def write_part(key: str, handle: str, number: int, name: str, data: IRegion) -> Deferred[str]:
        """Write a part; its receipt. NotThere: the store knows no such multipart (any more)."""

    def copy_part(key: str, handle: str, number: int, name: str, source: str, start: int, size: int) -> Deferred[str]:
        """The same with ``size`` bytes, from ``start`` on, of the object ``source``, copied inside the store. NotThere
        also where the source isn't there. CannotCopy: this store can't, or not these bytes (see `copies_ranges`);
        nothing has happened, and the same bytes may be read and written."""

    def complete(
        key: str, handle: str, properties: ObjectProperties, parts: Sequence[SentPart], only_new: bool
    ) -> Deferred[Made]:
        """Make the object of these parts, in this order. ``properties``: those of `begin`, but for the token, which is
        the handle's. ``only_new``: as in `put`, where the store has a condition for it; else another is replaced.

        Conflict as `put`. NotThere: the multipart isn't known: it may have been completed (see `find`). A part whose
        receipt the store takes for another's (InvalidPart) is looked up, and counts where its checksum matches; else
        Permanent. Repeated with the same arguments it says the same to the store.
        """

    def token_of(handle: str) -> str:
        """The token that the object of this multipart will have. No I/O, and no Deferred."""

    def abandon(key: str, handle: str, names: Sequence[str]) -> Deferred[None]:
        """Remove a multipart that isn't complete, with the parts of these names where `part_objects`. Idempotent; does
        nothing for one that is complete or unknown. A store with a `lifetime` may leave it to that."""

    def find(key: str) -> Deferred[Made | None]:
        """The object that everybody sees under the key."""

    def write(name: str, data: IRegion) -> Deferred[None]:
        """Make an object of these bytes for ourselves: a piece, whose name nobody else writes."""

    def open(key: str, start: int, size: int) -> Deferred[IObjectStream]:
        """``size`` bytes (at least one) from ``start`` on, of any object. NotThere. The stream is the caller's to
        close."""

    def remove(keys: Sequence[str]) -> Deferred[None]:
        """Remove these objects, with as few requests as the store can do it; fine for those that aren't there. At most
        1,000 at a time."""

    def signed_url(key: str, presented: Presented) -> Deferred[str | None]:
        """See `ISigning.signed_url`; no look at the object."""

    def list(prefix: str, after: str, limit: int) -> Deferred[Sequence[Listed]]:
        """The next objects at most under this prefix, by key, those behind the key ``after``. It may be stale: lack
        what is there, and have what is gone."""

    def list_unfinished(limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """As `ISweeper.list_unfinished`. ``handle`` there is the store's own name, see `works_with`. Empty where the
        store has no multiparts to list."""

    def works_with(handle: str, found: Unfinished) -> bool:
        """Whether what was listed is the multipart of this handle. No I/O, and no Deferred."""

    def drop(found: Unfinished) -> Deferred[None]:
        """Remove what `list_unfinished` has found. Idempotent."""

    def probe() -> Deferred[None]:
        """See IProbe."""

    def close() -> Deferred[None]:
        """Give connections and threads back."""
