"""``az://container/prefix?options``: from an operator's URL to a working remote.

Invariant: the SDK is imported when a remote is made, not when its URL is read; reading it finds out whether it is
there. Neither a URL nor a specification holds a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from resumable.masking import has_user
from resumable.model import values
from resumable.remotes.azure.records import FILES, Auth
from resumable.remotes.urls import BackendServices, RemoteSpec, Scheme, flag

if TYPE_CHECKING:
    from resumable.remotes.azure.access import AzureAccess
    from resumable.remotes.azure.azure_spool import AzureSpoolStore
    from resumable.remotes.azure.calls import Calls
    from resumable.remotes.azure.remote import AzureRemote
    from resumable.remotes.azure.store import AzureStore

EXTRA = "pip install 'resumable-server[azure]'"
TIERS = {"hot": "Hot", "cool": "Cool", "cold": "Cold", "archive": "Archive"}

OPTIONS = {
    "account": "name of the storage account (default `AZURE_STORAGE_ACCOUNT`, else the connection string's)",
    "endpoint": "URL of the blob service, for other clouds and emulators (default the account's in the public cloud)",
    "auth": f"kind of credentials: `auto`, `{'`, `'.join(auth.value for auth in Auth)}` (default `auto`: the first that"
    " is set)",
    "connection-string-file": "file with the connection string (default `AZURE_STORAGE_CONNECTION_STRING`)",
    "key-file": "file with the account key (default `AZURE_STORAGE_KEY`)",
    "sas-file": "file with the SAS token (default `AZURE_STORAGE_SAS_TOKEN`); read again when Azure refuses it",
    "client-id": "client id of the managed or workload identity (default `AZURE_CLIENT_ID`, else the only one)",
    "part-size": "size of blocks, from 64K to 4000M (default `--part-size`)",
    "tier": f"access tier of the blobs: `{'`, `'.join(TIERS)}` (default the account's)",
    "encryption-scope": "encryption scope of the blobs (default the container's)",
    "metadata": "`no`: the blobs don't get the metadata of the uploads (default `yes`)",
    "abort": "`drop`: blocks of aborted uploads are removed at once; `expire`: Azure removes them after a week"
    " (default `drop`)",
    "api-version": "version of the service's API, as `2025-11-05` (default the SDK's)",
}
ENVIRONMENT = {
    "account": ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
}
_part_size = values.size_between("64K", "4000M")
CHOICES = {
    "auth": ("auto", *(auth.value for auth in Auth)),
    "tier": tuple(TIERS),
    "abort": ("drop", "expire"),
}


def check_options(container: str, options: Mapping[str, str]) -> None:
    """Raise ValueError, in one line."""
    if not all(_there(name) for name in ("azure.storage.blob", "azure.identity")):
        raise ValueError(f"azure-storage-blob and azure-identity are not installed: {EXTRA}")
    if not re.fullmatch(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]|\$root|\$web", container):
        raise ValueError("a container's name has 3 to 63 lower-case letters, digits and single hyphens")
    for name, allowed in CHOICES.items():
        if options.get(name, allowed[0]) not in allowed:
            raise ValueError(f"{name} is one of {', '.join(allowed)}")
    if options.get("account") and not re.fullmatch(r"[a-z0-9]{3,24}", options["account"]):
        raise ValueError("an account's name has 3 to 24 lower-case letters and digits")
    given = [option for option in FILES.values() if option in options]
    auth = options.get("auth", "auto")
    if len(given) > 1 or any(FILES.get(Auth(auth)) != option for option in given if auth != "auto"):
        raise ValueError(f"one kind of credentials, not {', '.join([*given, f'auth={auth}'])}")
    if any(not options[option].startswith("/") for option in given):
        raise ValueError("files are named by their absolute paths")
    if "api-version" in options and not re.fullmatch(r"\d{4}-\d\d-\d\d", options["api-version"]):
        raise ValueError("api-version looks like 2025-11-05")
    if "endpoint" in options:
        _check_endpoint(options["endpoint"], auth)
    part_size(options, 0)


def part_size(options: Mapping[str, str], default: int) -> int:
    """Bytes of a block. Raises ValueError."""
    try:
        return _part_size(options["part-size"]) if "part-size" in options else default
    except ValueError as error:
        raise ValueError(f"part-size is {error}") from None


def _check_endpoint(endpoint: str, auth: str) -> None:
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError:
        raise ValueError("the endpoint is no URL") from None
    bare = not (has_user(endpoint) or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
        # it isn't repeated: it may hold a signature
        raise ValueError("an endpoint looks like https://host; credentials have options and variables of their own")
    if parts.scheme == "http" and auth == Auth.IDENTITY.value:
        raise ValueError("tokens of identities go over https only")


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


READERS = 8
"""Threads for downloads, so that a slow reader holds up no upload."""
SPARE = 2
"""Threads beside those for parts, so that small requests don't wait for slow ones."""


def make(spec: RemoteSpec, services: BackendServices) -> AzureRemote:
    """The backend. Raises ValueError: no credentials, or wrong ones. Reads files."""
    from resumable.remotes.azure.remote import AzureRemote
    from resumable.remotes.azure.store import AzureReading

    access, calls, readers = _connected(spec, services)
    return AzureRemote(
        _store(calls, spec),
        calls,
        services.journal,
        services.now,
        AzureReading(_store(readers, spec), readers, access, services.now),
        template=spec.template,
        client_metadata=flag(spec.options, "metadata", True),
        part_size=part_size(spec.options, services.part_size),
    )


def make_store(spec: RemoteSpec, services: BackendServices) -> AzureSpoolStore:
    """The same as a spool. Raises ValueError."""
    from resumable.remotes.azure.azure_spool import AzureSpoolStore

    if spec.options.get("tier") == "archive":
        raise ValueError("tier=archive: what a spool has must be readable at once")
    access, calls, readers = _connected(spec, services)
    return AzureSpoolStore(
        _store(calls, spec),
        calls,
        readers,
        access,
        services.now,
        services.rng,
        prefix=spec.template.prefix,
        client_metadata=flag(spec.options, "metadata", True),
        part_size=part_size(spec.options, services.part_size),
    )


def _connected(spec: RemoteSpec, services: BackendServices) -> tuple[AzureAccess, Calls, Calls]:
    """Credentials, and threads for uploads and for downloads."""
    from resumable.remotes.azure.access import AzureAccess
    from resumable.remotes.azure.calls import Calls

    threads = services.parts + SPARE
    access = AzureAccess(
        spec.bucket, spec.options, services.environ, timeout=services.timeout, connections=threads + READERS
    )
    calls = Calls(services.reactor, access, threads, services.now, services.memory)
    return access, calls, Calls(services.reactor, access, READERS, services.now)


def _store(calls: Calls, spec: RemoteSpec) -> AzureStore:
    from resumable.remotes.azure.records import BlobOptions
    from resumable.remotes.azure.store import AzureStore

    blobs = BlobOptions(TIERS.get(spec.options.get("tier", "")), spec.options.get("encryption-scope"))
    return AzureStore(calls, spec.bucket, blobs, spec.replace, spec.options.get("abort", "drop") == "drop")


def _check(spec: RemoteSpec) -> None:
    check_options(spec.bucket, spec.options)
    flag(spec.options, "metadata", True)


SCHEME = Scheme("az", make, "bucket", OPTIONS, _check, ENVIRONMENT, make_store)
