"""Checksums that the store compares with its own.

Invariant: long regions are read and their checksums computed piece by piece, in threads where it takes long. Values are
base64, as they go over the wire.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from typing import Protocol

from attrs import frozen
from google_crc32c import Checksum as Crc32c

from resumable.aio.threads import IPool
from resumable.remotes.interfaces import IRegion

INLINE = 64 << 10
"""Bytes that are reckoned at once: a thread would cost more."""
SCANNED = 1 << 20
"""Bytes that a thread reads and reckons in one go. More would let others wait for it."""


class Hash(Protocol):
    """As in hashlib."""

    def update(self, data: bytes, /) -> object:
        """Take more bytes."""

    def digest(self) -> bytes:
        """The value of all bytes so far."""


class _Crc64Nvme:
    def __init__(self) -> None:
        # optional: nothing else is fast enough
        self._add: Callable[[bytes, int], int] = import_module("awscrt.checksums").crc64nvme
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._add(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(8, "big")


@frozen
class Algorithm:
    """``header`` carries the value. ``label`` is S3's name for it, empty where it is none of its own.

    ``polynomial`` (reflected, ``bits`` wide) of a CRC, whose values for parts make up the whole's; 0: it is none.
    ``cheap``: it takes microseconds for the bytes of one read.
    """

    header: str
    make: Callable[[], Hash]
    label: str = ""
    polynomial: int = 0
    bits: int = 0
    cheap: bool = False

    @property
    def element(self) -> str:
        """The name in documents, such as ChecksumCRC32C."""
        return f"Checksum{self.label}"


ALGORITHMS: dict[str, Algorithm | None] = {
    "none": None,
    "md5": Algorithm("content-md5", lambda: hashlib.md5(usedforsecurity=False)),
    "crc32c": Algorithm("x-amz-checksum-crc32c", Crc32c, "CRC32C", 0x82F63B78, 32, True),
    "crc64nvme": Algorithm("x-amz-checksum-crc64nvme", _Crc64Nvme, "CRC64NVME", 0x9A6C9329AC4BC9B5, 64),
}


def algorithm(name: str) -> Algorithm | None:
    """The algorithm of that name; None for ``none``. Raises ValueError, also for one that can't be reckoned here."""
    try:
        found = ALGORITHMS[name]
        if found is not None:
            found.make()
    except KeyError:
        raise ValueError(f"no checksum {name!r}; there are {', '.join(ALGORITHMS)}") from None
    except ImportError:
        raise ValueError(f"the checksum {name} needs the package awscrt") from None
    return found


def encoded(digest: bytes) -> str:
    """As it goes over the wire."""
    return b64encode(digest).decode()


async def digest_region(region: IRegion, hashes: Sequence[Hash]) -> None:
    """Feed the whole region to all hashes, in the threads that read it."""
    offset = 0
    while offset < region.size and hashes:
        size = min(SCANNED, region.size - offset)
        await region.scan(offset, size, partial(_update, hashes))
        offset += size


async def digest_bytes(data: bytes, hashes: Sequence[Hash], pool: IPool | None) -> None:
    """Feed these bytes to all hashes; without a pool at once."""
    if len(data) <= INLINE or pool is None:
        _update(hashes, data)
    else:
        await pool.run(_update, hashes, data)


def _update(hashes: Sequence[Hash], data: bytes) -> None:
    for each in hashes:
        each.update(data)


def of_whole(algorithm: Algorithm, parts: Iterable[tuple[str, int]]) -> str:
    """The checksum of an object whose parts have these values and sizes. For CRCs."""
    whole = 0
    for value, size in parts:
        crc = int.from_bytes(b64decode(value), "big")
        whole = _multiply(_shift(size, algorithm.polynomial, algorithm.bits), whole, algorithm) ^ crc
    return encoded(whole.to_bytes(algorithm.bits // 8, "big"))


@lru_cache(maxsize=256)
def _shift(size: int, polynomial: int, bits: int) -> int:
    """x to the power of 8 * ``size``, modulo the polynomial: the effect of so many later bytes on a CRC."""
    one = Algorithm("", hashlib.md5, "", polynomial, bits)
    result, power, left = 1 << (bits - 1), 1 << (bits - 2), 8 * size
    while left:
        if left & 1:
            result = _multiply(power, result, one)
        power = _multiply(power, power, one)
        left >>= 1
    return result


def _multiply(a: int, b: int, algorithm: Algorithm) -> int:
    """The product of two polynomials whose highest bit is the lowest power, modulo the algorithm's."""
    product, mask = 0, 1 << (algorithm.bits - 1)
    while mask and a:
        if a & mask:
            product ^= b
            a ^= mask
        mask >>= 1
        b = (b >> 1) ^ algorithm.polynomial if b & 1 else b >> 1
    return product
