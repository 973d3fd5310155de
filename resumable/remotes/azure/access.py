"""Credentials for a storage account, and a client of the SDK made of them.

Invariant: a secret has no representation. The SDK neither tries again by itself nor waits longer than we say:
the remote decides that. Secrets in files are read again when they were refused, so they can be renewed in place.
Source: https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string and
https://learn.microsoft.com/python/api/azure-identity/azure.identity.defaultazurecredential
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from attrs import field, frozen
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    ContainerClient,
    UserDelegationKey,
    generate_blob_sas,
)
from requests.adapters import HTTPAdapter

from resumable.model.telemetry import REQUEST
from resumable.remotes.azure.records import FILES, VARIABLES, Auth
from resumable.remotes.metadata import PLAIN
from resumable.remotes.reading import Presented
from resumable.remotes.regions import STEP

KEY_LIFETIME = timedelta(hours=1)
"""For which a key that signs for an identity is kept and used again."""
SCOPE = "https://storage.azure.com/.default"
SKEW = 300.0
"""Seconds that this machine's clock may be ahead of the store's."""


@frozen
class AzureSecret:
    """``value`` is empty for an identity. ``path``: the file it was read from."""

    auth: Auth
    value: str = field(default="", repr=False)
    path: str | None = None


def secret_from(options: Mapping[str, str], environ: Mapping[str, str]) -> AzureSecret:
    """The first that is there: a file that an option names, a variable, an identity. Raises ValueError."""
    wanted = Auth(options["auth"]) if options.get("auth", "auto") != "auto" else None
    for auth, option in FILES.items():
        if option in options and wanted in (None, auth):
            return AzureSecret(auth, _read(options[option]), options[option])
    for auth, variable in VARIABLES.items():
        if environ.get(variable) and wanted in (None, auth):
            return AzureSecret(auth, environ[variable].strip())
    if wanted in (None, Auth.IDENTITY):
        return AzureSecret(Auth.IDENTITY)
    raise ValueError(f"auth={wanted.value} needs {FILES[wanted]}= or {VARIABLES[wanted]}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"{path} cannot be read: {problem}") from None


class AzureAccess:
    """Makes clients of one container. ``timeout``: seconds of silence; ``connections``: how many are kept.

    Blocks: `client` and `renew` are called in threads, except for the first time.
    """

    def __init__(
        self,
        container: str,
        options: Mapping[str, str],
        environ: Mapping[str, str],
        *,
        timeout: float = 60.0,
        connections: int = 16,
    ) -> None:
        self._container = container
        self._options = options
        self._secret = secret_from(options, environ)
        self._account = options.get("account", "")
        self._transport = _transport(timeout, connections)
        self._service: BlobServiceClient
        self._delegated: tuple[UserDelegationKey, datetime] | None = None
        self.client = self._connect()

    def renew(self, refused: ContainerClient) -> bool:
        """Look for new credentials, since those of ``refused`` weren't taken; whether there are any."""
        if self.client is not refused:
            return True
        if self._secret.path is None:
            return False  # tokens of identities are renewed by the SDK; variables don't change
        found = AzureSecret(self._secret.auth, _read(self._secret.path), self._secret.path)
        if found == self._secret:
            return False
        self._secret = found
        self.client = self._connect()
        return True

    def signed_url(self, key: str, presented: Presented, now: float) -> str | None:
        """A URL with a SAS that lets anybody read this blob. ``now``: seconds since the epoch. None: see ISigning.

        A SAS that we were given ourselves signs nothing, and is never given on.
        """
        client = self.client
        until = datetime.fromtimestamp(now + presented.lifetime, UTC)
        account_key = getattr(client.credential, "account_key", None)
        signing: dict[str, Any] = {"account_key": account_key}
        if self._secret.auth is Auth.IDENTITY:
            signing = {"user_delegation_key": self._delegation_key(now, until)}
        elif not account_key:
            return None
        blob = client.get_blob_client(key)
        signature = generate_blob_sas(
            blob.account_name or self._account,
            blob.container_name,
            blob.blob_name,
            permission=BlobSasPermissions(read=True),
            expiry=until,
            content_type=presented.content_type,
            content_disposition=presented.disposition,
            cache_control="private, no-store",
            protocol="https" if blob.url.startswith("https:") else None,
            **signing,
        )
        return f"{blob.url}?{signature}"

    def source(self, key: str, now: float) -> tuple[str, str | None]:
        """A URL of this blob for the store itself, which copies from there, and the header that lets it in, if it needs
        one. ``now``: seconds since the epoch. Both are secrets."""
        client = self.client
        blob = client.get_blob_client(key)
        if self._secret.auth is Auth.IDENTITY:
            return blob.url, f"Bearer {client.credential.get_token(SCOPE).token}"
        if self._secret.auth is Auth.SAS:
            return f"{blob.url}?{self._secret.value.lstrip('?')}", None
        signed = self.signed_url(key, Presented(PLAIN, "", KEY_LIFETIME.total_seconds()), now)
        return signed or blob.url, None  # a connection string's SAS is in the URL

    def _delegation_key(self, now: float, until: datetime) -> UserDelegationKey:
        """One that is good until then, with which an identity signs."""
        if self._delegated is None or self._delegated[1] < until:
            start, end = datetime.fromtimestamp(now - SKEW, UTC), until + KEY_LIFETIME
            self._delegated = self._service.get_user_delegation_key(start, end), end
        return self._delegated[0]

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _connect(self) -> ContainerClient:
        more: dict[str, Any] = {"transport": self._transport, "retry_total": 0}
        if "api-version" in self._options:
            more["api_version"] = self._options["api-version"]
        try:
            if self._secret.auth is Auth.CONNECTION_STRING:
                service = BlobServiceClient.from_connection_string(self._secret.value, **more)
                self._check_account(service)
            else:
                service = BlobServiceClient(self._url(), self._credential(), **more)
            self._service, self._delegated = service, None
            return service.get_container_client(self._container)
        except ValueError as error:
            # the SDK's words may repeat secrets
            own = isinstance(error, WrongAccount) or self._secret.auth is not Auth.CONNECTION_STRING
            raise ValueError(str(error) if own else "the connection string is none") from None

    def _check_account(self, service: BlobServiceClient) -> None:
        wanted = self._options.get("account")
        if wanted and service.account_name != wanted:
            raise WrongAccount(f"the connection string is for the account {service.account_name}, not {wanted}")

    def _url(self) -> str:
        endpoint = self._options.get("endpoint")
        if endpoint:
            return endpoint
        if not self._account:
            raise ValueError("which account? say account=, or AZURE_STORAGE_CONNECTION_STRING")
        return f"https://{self._account}.blob.core.windows.net"

    def _credential(self) -> Any:
        if self._secret.auth is Auth.SAS:
            return AzureSasCredential(self._secret.value.lstrip("?"))
        if self._secret.auth is Auth.IDENTITY:
            client = self._options.get("client-id")
            more = {"managed_identity_client_id": client, "workload_identity_client_id": client} if client else {}
            return DefaultAzureCredential(exclude_interactive_browser_credential=True, **more)
        if not self._account:
            raise ValueError("whose key is it? say account=")
        try:
            base64.b64decode(self._secret.value, validate=True)
        except binascii.Error:
            raise ValueError("the account key is not base64") from None
        return AzureNamedKeyCredential(self._account, self._secret.value)


class WrongAccount(ValueError):
    """The connection string is for another account than the URL says."""


class _LargeWrites(HTTPAdapter):
    """Takes bodies from us in pieces of 256 KiB; http.client's own 16 KiB make four times the system calls."""

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, blocksize=STEP)

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        """Not as one of the ``x-ms-`` headers, which have been signed by now."""
        if name := REQUEST.get():
            request.headers["X-Request-ID"] = name
        return super().send(request, *args, **more)


def _transport(timeout: float, connections: int) -> RequestsTransport:
    session = requests.Session()
    session.auth = lambda request: request  # else it looks into ~/.netrc each time, and replaces the SDK's signature
    for scheme in ("http://", "https://"):
        session.mount(scheme, _LargeWrites(pool_connections=1, pool_maxsize=connections, max_retries=0))
    return RequestsTransport(session=session, connection_timeout=timeout, read_timeout=timeout)
