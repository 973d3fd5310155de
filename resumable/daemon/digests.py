"""The checksum algorithms the server offers: the standard library's, and crc32c from a library."""

from __future__ import annotations

from collections.abc import Callable

from google_crc32c import Checksum as Crc32c

from resumable.protocol.checksum import STANDARD, Digest

#: By name, in order of preference (T43, T44).
ALGORITHMS: dict[str, Callable[[], Digest]] = {**STANDARD, "crc32c": Crc32c}
