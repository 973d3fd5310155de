"""What a bucket does by itself to objects and to multiparts that aren't complete, as S3 tells of it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLifecycleConfiguration.html and
https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.remotes.errors import RemoteError, Transient
from resumable.remotes.s3.answers import BadXml, Element, parse
from resumable.remotes.s3.client import LIST_SIZE, S3Client

NOT_KNOWN: Final = frozenset({404, 405, 501})
"""How stores answer that there are no rules, or that they have no such thing."""


@frozen
class LifecycleRule:
    """A rule that is in force for keys that begin with ``prefix``. ``aborts_after``: days after which a multipart that
    isn't complete goes; ``removes``: whether it removes objects, or makes them unreadable without a restore."""

    prefix: str
    aborts_after: int | None = None
    removes: bool = False

    def concerns(self, prefix: str) -> bool:
        """Whether it says something of keys that begin with this prefix."""
        return self.prefix.startswith(prefix) or prefix.startswith(self.prefix)


@frozen
class BucketRules:
    """``versioned``: what is removed or replaced stays as an old version."""

    lifecycle: Sequence[LifecycleRule] = ()
    versioned: bool = False


class ITellsRules(Interface):
    """A store whose bucket has such rules."""

    def rules() -> Deferred[BucketRules]:
        """Those of the bucket; none where the store knows no such thing. RemoteError: they can't be read."""


async def read_rules(client: S3Client) -> BucketRules:
    """Those of the client's bucket; none where the store knows no such thing. Raises RemoteError."""
    lifecycle = await _asked(client, "GetBucketLifecycleConfiguration", "lifecycle")
    versioning = await _asked(client, "GetBucketVersioning", "versioning")
    return BucketRules(
        tuple(lifecycle_rules(lifecycle)) if lifecycle is not None else (),
        versioning is not None and is_versioned(versioning),
    )


async def _asked(client: S3Client, operation: str, what: str) -> Element | None:
    try:
        answer, _ = await client.requests.send(operation, "GET", "", [(what, "")], largest=LIST_SIZE)
        return parse(answer.body)
    except RemoteError as error:
        if error.status in NOT_KNOWN:
            return None
        raise
    except BadXml as problem:
        raise Transient(f"{operation}: the answer can't be read: {problem}") from None


def lifecycle_rules(document: Element) -> Iterator[LifecycleRule]:
    """Those of an answer of GetBucketLifecycleConfiguration that are in force."""
    for rule in document.all("Rule"):
        if rule.find("Status") != "Enabled":
            continue
        aborts = next(rule.all("AbortIncompleteMultipartUpload"), None)
        days = None if aborts is None else aborts.find("DaysAfterInitiation")
        removes = any(True for name in ("Expiration", "Transition") for each in rule.all(name) if _concerns_data(each))
        if removes or days:
            yield LifecycleRule(_prefix(rule), int(days) if days and days.isdecimal() else None, removes)


def is_versioned(document: Element) -> bool:
    """As an answer of GetBucketVersioning says."""
    return document.find("Status") == "Enabled"


def _concerns_data(action: Element) -> bool:
    """Not the removal of what only says that an object is gone; and not a transition to a class that can be read."""
    if action.name == "Transition":
        return action.find("StorageClass") in ("GLACIER", "DEEP_ARCHIVE")
    return action.find("Days") is not None or action.find("Date") is not None


def _prefix(rule: Element) -> str:
    """It is in the rule itself, in its filter, or in what the filter joins."""
    places = [rule, *rule.all("Filter"), *(each for filter_ in rule.all("Filter") for each in filter_.all("And"))]
    return next((found for each in places if (found := each.find("Prefix"))), "")
