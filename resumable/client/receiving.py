"""A call of get: a file is received beside its name, gone on with by Range, checked, synced, and then renamed.

Invariants: the name appears only with the whole content; what was received before is only gone on with if the server
says, by If-Range, that it is still the same. Specs: RFC 9110, 13 and 14 (conditions, ranges); RFC 9530 (digests);
RFC 6266 (file names).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from resumable.client.client_transfer import PACE, ClientTransfer
from resumable.client.effects import CutShort, Exchange, HttpReply, Lost, Steps, Work
from resumable.client.events import Begun, Checked, Downloaded, Noted, Received, StartedOver
from resumable.client.exceptions import DigestDiffers, TargetExists, TargetUnwritable
from resumable.client.looking import WANTED, digest_text, told_digests
from resumable.client.patience import Failed, judged
from resumable.client.sources import HASHES
from resumable.client.state_file import StateFile
from resumable.protocol import names

_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_EXTENDED: Final = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)
_PLAIN: Final = re.compile(r'filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]+))', re.IGNORECASE)


def get_steps(transfer: ClientTransfer, target: Path, overwrite: bool) -> Steps[Downloaded]:
    """Receive the transfer's address into ``target``, a file or a directory. Raises every ClientError but those of
    sources."""
    if (yield Work(lambda: _is_directory(target))):
        target = target / (yield from transfer.patiently(lambda: _name(transfer), begun=False))
    if not overwrite and os.path.lexists(target):
        raise TargetExists(f"{target} is there already")
    key = StateFile.key("get", os.path.abspath(target))
    claim = yield Work(lambda: transfer.state.claim(key, str(target)))
    receiving = None
    try:
        receiving = yield Work(lambda: Receiving(transfer, target, overwrite, key))
        done: Downloaded = yield from receiving.run()
        return done
    finally:
        if receiving is not None:
            receiving.close()
        claim.release()


class Receiving:
    """Receives into ``target`` + ".part". Raises TargetUnwritable."""

    def __init__(self, transfer: ClientTransfer, target: Path, overwrite: bool, key: str) -> None:
        self._transfer, self._target, self._overwrite, self._key = transfer, target, overwrite, key
        self._part = target.with_name(f"{target.name}.part")
        self._file: BinaryIO | None = None
        self._tag: str | None = None
        self._offset = 0
        self._open()
        self._resumed_from = self._begun_at = self._offset
        self._run = 0
        self._total: int | None = None
        self._digests: dict[str, bytes] = {}
        self._begun = self._whole = False
        self._told = transfer.around.now()
        self._patience = transfer.patience()

    def _open(self) -> None:
        """Find what is there already."""
        known = self._transfer.state.download(self._key)
        try:
            self._file = _opened(self._part)
            self._offset = self._file.tell()
        except OSError as error:
            why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise TargetUnwritable(f"{self._part} can't be written: {why}") from error
        # ours is known before its first byte; an empty one may be of a call that got no answer
        if self._offset and not known and not self._overwrite:
            self.close()
            raise TargetUnwritable(
                f"{self._part} is there already, and no download of ours: move it away, or overwrite=True replaces it"
            )
        self._tag = known.get("etag") if known.get("url") == self._transfer.address else None
        if self._tag is None:
            self._restart()

    def run(self) -> Steps[Downloaded]:
        """See `get_steps`."""
        transfer = self._transfer
        while not self._whole:
            try:
                yield from self._patience.window()
                yield from self._ask()
            except Lost as trouble:
                yield from self._patience.after(trouble, begun=self._offset > 0)
            except CutShort:
                continue
        yield Work(self._flush)
        self._tell()
        digest, checked = yield from self._check()
        yield Work(self._place)
        yield Work(lambda: self._remember(None))
        return Downloaded(
            url=transfer.address,
            path=self._target,
            size=self._offset,
            received=self._run,
            resumed_from=self._resumed_from,
            seconds=transfer.seconds,
            digest=digest,
            checked=checked,
        )

    def close(self) -> None:
        """Keep what is there. May be repeated."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _ask(self) -> Steps[None]:
        fields = [("Accept", "*/*"), ("Accept-Encoding", "identity"), WANTED]
        if self._offset and self._tag is not None:
            fields += [("Range", f"bytes={self._offset}-"), ("If-Range", self._tag)]
        exchange = Exchange(
            method="GET",
            url=self._transfer.address,
            fields=fields,
            accept=self._accept,
            may_go=self._transfer.options.may_send,
        )
        reply, url = yield from self._transfer.ask(exchange)
        if reply.status == 416:
            yield from self._unsatisfiable(reply)
            return
        if reply.status == 206 and self._range(reply) is None:
            self._anew("the server answers another range than was asked for")
            raise Failed(f"{url} answers another range than was asked for")
        judged(reply, url)
        if self._total is not None and self._offset != self._total:
            raise Failed(f"{url} ends after {self._offset} bytes, not {self._total}")
        self._whole = True

    def _range(self, reply: HttpReply) -> int | None:
        """The length of the whole, if the answer's range goes on where we are."""
        found = _RANGE.fullmatch(reply.get("content-range") or "")
        if found is None or found[1] is None or found[3] == "*" or int(found[1]) != self._begun_at:
            return None
        return int(found[3])

    def _accept(self, reply: HttpReply) -> Callable[[bytes], None] | None:
        """Where the content goes. A 206 is what If-Range has allowed, a 200 is another file, or the first answer."""
        self._begun_at = self._offset
        if reply.status == 206:
            total = self._range(reply)
            if total is None or reply.get("etag") not in (None, self._tag):
                return None
            self._total = total
        elif reply.status == 200:
            if self._offset:
                self._anew("the file at the server has changed, or can't be gone on with")
            length = reply.get("content-length")
            self._total = int(length) if length is not None and length.isdigit() else None
            tag = reply.get("etag")
            self._tag = tag if tag is not None and not tag.startswith("W/") else None
            self._remember({"url": self._transfer.address, "etag": self._tag})
        else:
            return None
        self._digests = told_digests(reply)
        self._tell_begun()
        return self._write

    def _unsatisfiable(self, reply: HttpReply) -> Steps[None]:
        """A 416: all is here, or what is here is no part of the file."""
        found = _RANGE.fullmatch(reply.get("content-range") or "")
        if found is not None and found[3] == str(self._offset):
            self._total = self._offset
            head = Exchange(method="HEAD", url=self._transfer.address, fields=[WANTED])
            answer, url = yield from self._transfer.ask(head)
            if judged(answer, url).get("etag") in (None, self._tag):
                self._digests = told_digests(answer)
                self._tell_begun()
                self._whole = True
                return
        self._anew("the file at the server has changed")

    def _tell_begun(self) -> None:
        if not self._begun:
            self._begun = True
            self._transfer.tell(
                Begun(
                    source=self._transfer.name,
                    url=self._transfer.address,
                    offset=self._offset,
                    total=self._total,
                    resumed=self._offset > 0,
                    protocol="http",
                )
            )
        elif self._run:
            self._patience.contact(self._offset)

    def _anew(self, reason: str) -> None:
        self._transfer.tell(StartedOver(source=self._transfer.name, reason=reason))
        self._restart()
        self._resumed_from = 0

    def _restart(self) -> None:
        assert self._file is not None
        try:
            self._file.truncate(0)
        except OSError as error:
            raise TargetUnwritable(f"{self._part} can't be written: {error.strerror}") from error
        self._offset = self._begun_at = 0

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(data)
        except OSError as error:
            raise TargetUnwritable(f"{self._part} can't be written: {error.strerror}") from error
        self._offset += len(data)
        self._run += len(data)
        self._patience.moved()
        if self._transfer.around.now() - self._told >= PACE:
            self._tell()

    def _flush(self) -> None:
        assert self._file is not None
        try:
            self._file.flush()
        except OSError as error:
            raise TargetUnwritable(f"{self._part} can't be written: {error.strerror}") from error

    def _tell(self) -> None:
        self._told = self._transfer.around.now()
        event = Received(source=self._transfer.name, received=self._offset, total=self._total, run=self._run)
        self._transfer.tell(event)

    def _check(self) -> Steps[tuple[str | None, bool]]:
        transfer = self._transfer
        if not transfer.options.verify:
            return None, False
        if not self._digests:
            transfer.tell(Noted(source=transfer.name, message="the server tells no digest: the bytes weren't compared"))
            return None, False
        name, theirs = next(iter(self._digests.items()))
        ours: bytes = yield Work(lambda: self._digest(name))
        if ours != theirs:
            yield Work(self._drop)
            told = digest_text({name: ours}), digest_text({name: theirs})
            raise DigestDiffers(str(self._target), transfer.address, *told, advice="receive it again")
        text = digest_text({name: theirs})
        transfer.tell(Checked(source=transfer.name, digest=text))
        return text, True

    def _digest(self, name: str) -> bytes:
        with open(self._part, "rb") as file:
            return hashlib.file_digest(file, HASHES[name]).digest()

    def _drop(self) -> None:
        self.close()
        self._part.unlink(missing_ok=True)
        self._remember(None)

    def _remember(self, known: dict[str, str | None] | None) -> None:
        """For the next call."""
        self._transfer.state.remember_download(self._key, known)

    def _place(self) -> None:
        """Sync, and give the file its name."""
        assert self._file is not None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self.close()
            if self._overwrite:
                os.replace(self._part, self._target)
            else:
                _rename_new(self._part, self._target)
            directory = os.open(self._target.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except FileExistsError as error:
            raise TargetExists(f"{self._target} is there already; what was received is in {self._part}") from error
        except OSError as error:
            raise TargetUnwritable(f"{self._target} can't be written: {error.strerror}") from error


def safe_name(reply: HttpReply, url: str) -> str:
    """The file name that an answer or else its URL gives; it names no path and hides nothing."""
    disposition = reply.get("content-disposition") or ""
    given = ""
    if (extended := _EXTENDED.search(disposition)) is not None:
        given = unquote(extended[1], errors="replace")
    elif (plain := _PLAIN.search(disposition)) is not None:
        given = re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
    last = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    found = names.shown(given) or names.shown(last) or ""
    return found.lstrip(".") or "download"  # none that a shell or a file manager doesn't show


def _name(transfer: ClientTransfer) -> Steps[str]:
    reply, url = yield from transfer.ask(Exchange(method="HEAD", url=transfer.address, fields=[("Accept", "*/*")]))
    return safe_name(judged(reply, url), url)


def _opened(part: Path) -> BinaryIO:
    """The file to append to, made if there is none: never another one through a link, and no pipe or device."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
    file = os.open(part, flags, 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is no regular file")
    return open(file, "ab")


def _is_directory(path: Path) -> bool:
    return path.is_dir()


def _rename_new(part: Path, target: Path) -> None:
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        os.rename(part, target)
    else:
        os.unlink(part)
