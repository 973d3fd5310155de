"""A region that lies in a file, as those of the spool do."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from resumable.remotes.regions import BytesRegion, FileLoan


class FileRegion(BytesRegion):
    """``lent``: loans of the file that were not given back; ``loans``: how many there were."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.lent = self.loans = 0
        self.descriptor = os.memfd_create("region")
        os.write(self.descriptor, b"before" + data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.descriptor)

    def lend_file(self) -> FileLoan:
        self.lent += 1
        self.loans += 1
        return FileLoan((self.descriptor, len(b"before")), self._given_back)

    def _given_back(self) -> None:
        self.lent -= 1
