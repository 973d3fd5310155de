"""What a client wrote into its upload's metadata, as properties of an object.

One reason to change: what of it becomes a property, and how. Pure.

Invariant: whatever the client wrote, what comes out of `described` and `in_ascii` is ASCII without line breaks, fit for
headers and signatures.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

ID_METADATA = "resumable-upload-id"
"""Under this name every object has its upload's id, where the store's names may have hyphens."""


def described(metadata: Mapping[str, bytes]) -> dict[str, str]:
    """Content-Type, always, and Content-Disposition, where there is a file name."""
    kind = _first(metadata, "filetype", "contentType", "content-type", "type")
    if not re.fullmatch(r"[\w.+-]+/[\w.+-]+( *; *[\w.+-]+=[\w.+\"-]+)*", kind, re.ASCII) or len(kind) >= 256:
        kind = "application/octet-stream"
    name = _first(metadata, "filename", "name")
    return {"Content-Type": kind, **({"Content-Disposition": _disposition(name)} if name else {})}


def in_ascii(metadata: Mapping[str, bytes], room: int) -> dict[str, str]:
    """What fits into ``room`` bytes, in order of the names; both names, in lower case, and values count."""
    found = {}
    for name in sorted(metadata):
        plain, value = name.lower(), _ascii(metadata[name])
        if not re.fullmatch(r"[a-z0-9_-]{1,128}", plain) or plain == ID_METADATA:
            continue
        if len(plain) + len(value) <= room:
            room -= len(plain) + len(value)
            found[plain] = value
    return found


def _first(metadata: Mapping[str, bytes], *names: str) -> str:
    return next((metadata[name].decode("utf-8", "replace").strip() for name in names if metadata.get(name)), "")


def _disposition(name: str) -> str:
    """RFC 6266: for old readers in ASCII, for others in UTF-8."""
    name = name.replace("\\", "/").rpartition("/")[2][:200] or "file"
    plain = "".join(c if " " <= c <= "~" and c not in '"%' else "_" for c in name)
    plain = " ".join(plain.split())
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name.encode('utf-8', 'replace'), safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def _ascii(value: bytes) -> str:
    """The value itself where it can be signed and sent as it is; else as RFC 2047 writes it, as S3 would answer."""
    text = value.decode("latin-1")
    if re.fullmatch(r"[ -~]*", text) and text == " ".join(text.split()) and not text.startswith("=?"):
        return text
    return f"=?UTF-8?B?{b64encode(value).decode()}?="
