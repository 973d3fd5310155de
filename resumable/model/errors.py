"""Failures that more than one room raises or answers for. The errors for clients are in `resumable.protocol.errors`."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel


class StartupError(Exception):
    """The daemon can't start; the message is for the operator."""


class CatalogUnavailable(Exception):
    """The catalog could not take or prove the change; nothing may be answered from it.

    ``no_space`` tells a full disk.
    """

    def __init__(self, reason: str, no_space: bool = False) -> None:
        super().__init__(reason)
        self.no_space = no_space


def level_of(error: Exception) -> Any:
    """The LogLevel for work that is tried again: the catalog tells of its own failures, once."""
    return LogLevel.debug if isinstance(error, CatalogUnavailable) else LogLevel.warn


class BodyLost(Exception):
    """The body ended before its end: the connection dropped, went silent, or dripped too slowly.

    ``reason`` is one of ``disconnected``, ``idle``, ``slow``, ``malformed``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
