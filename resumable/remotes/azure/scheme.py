"""``az://container/prefix?options``: from what an operator says to a remote that works.

One reason to change: how the parts of the backend are put together. The options are in `choices`.

Invariant: the SDK is imported when a remote is made, not when its URL is read; reading it finds out whether it is
there. Neither a URL nor a specification holds a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resumable.remotes.azure.choices import ENVIRONMENT, OPTIONS, TIERS, check_options, part_size
from resumable.remotes.schemes import Means, RemoteSpec, Scheme, flag

if TYPE_CHECKING:
    from resumable.remotes.azure.remote import AzureRemote

READERS = 8
"""Threads for downloads, so that who reads slowly holds up no upload."""
SPARE = 2
"""Threads beside those for parts, so that what is small doesn't wait for what is slow."""


def make(spec: RemoteSpec, means: Means) -> AzureRemote:
    """The backend. Raises ValueError: no credentials, or wrong ones. Reads files."""
    from resumable.remotes.azure.access import Access
    from resumable.remotes.azure.calls import Calls
    from resumable.remotes.azure.properties import BlobOptions
    from resumable.remotes.azure.reading import Reading
    from resumable.remotes.azure.remote import AzureRemote
    from resumable.remotes.azure.store import Store

    options = spec.options
    threads = means.parts + SPARE
    access = Access(spec.bucket, options, means.environ, timeout=means.timeout, connections=threads + READERS)
    calls = Calls(means.reactor, access, threads, means.now, means.memory)
    readers = Calls(means.reactor, access, READERS, means.now)
    blobs = BlobOptions(TIERS.get(options.get("tier", "")), options.get("encryption-scope"))
    drops = options.get("abort", "drop") == "drop"
    store, read = (Store(each, spec.bucket, blobs, spec.replace, drops) for each in (calls, readers))
    return AzureRemote(
        store,
        calls,
        means.journal,
        means.now,
        Reading(read, readers, access, means.now),
        template=spec.template,
        client_metadata=flag(options, "metadata", True),
        part_size=part_size(options, means.part_size),
    )


def _check(spec: RemoteSpec) -> None:
    check_options(spec.bucket, spec.options)
    flag(spec.options, "metadata", True)


SCHEME = Scheme("az", make, "bucket", OPTIONS, _check, ENVIRONMENT)
