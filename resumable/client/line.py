"""A line to a daemon: the Unix socket or the port on which it answers operators.

Changes when daemons are reached in another way. Invariant: whatever goes wrong is one sentence that says what to try.
Blocks; spec: RFC 9110.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from attrs import frozen

from resumable.masking import has_user, masked

PATIENCE: Final = 60.0
_LIKE: Final = "it looks like http://127.0.0.1:9090 or unix:/path"


class NoDaemon(Exception):
    """Nobody listens there, or what answers isn't ours."""


class BadUrl(NoDaemon):
    """It says nowhere where anybody could listen."""


@frozen
class Reply:
    """``document``: what the JSON says, or the text where it is none."""

    status: int
    document: Any


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


@frozen
class Line:
    """``where``: ``unix:/path`` or an http(s) URL. ``token``: sent as a bearer's. ``patience``: seconds of silence."""

    where: str
    token: str | None = None
    patience: float = PATIENCE

    def ask(self, method: str, path: str, query: Mapping[str, str] | None = None) -> Reply:
        """Each question on a connection of its own. Raises NoDaemon."""
        link, base = self._link()
        headers = {"Accept": "application/json", "Connection": "close"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        target = f"{base}{path}" + (f"?{urlencode(query, errors='surrogateescape')}" if query else "")
        try:
            link.request(method, target, headers=headers)
            answer = link.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except ssl.SSLCertVerificationError as error:
            raise NoDaemon(f"{masked(self.where)}: the certificate isn't trusted ({error.verify_message})") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NoDaemon(f"no daemon answers at {masked(self.where)} ({reason})") from error
        finally:
            link.close()
        try:
            return Reply(answer.status, json.loads(text))
        except ValueError:
            return Reply(answer.status, text)

    def _link(self) -> tuple[http.client.HTTPConnection, str]:
        if self.where.startswith("unix:"):
            return _Local(self.where.removeprefix("unix:"), self.patience), ""
        try:
            parts = urlsplit(self.where)
            host = parts.hostname
        except ValueError as error:
            raise BadUrl(f"that is no URL; {_LIKE}") from error
        try:
            port = parts.port
        except ValueError as error:
            raise BadUrl(f"the port of {masked(self.where)} is no number from 0 to 65535") from error
        if has_user(self.where):
            raise BadUrl("a URL takes no user and password here: give the token with --token-file")
        if parts.scheme not in ("http", "https") or not host:
            raise BadUrl(f"{masked(self.where) or 'an empty text'} is no URL; {_LIKE}")
        base = parts.path.rstrip("/")
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self.patience), base
        return http.client.HTTPConnection(host, port, timeout=self.patience), base
