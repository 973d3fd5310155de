"""What the id of an upload may look like.

Reason to change: the grammar of ids. Invariant: a valid id is one safe URL segment and one safe file name: no dot,
slash, percent sign or leading dash. Spec: RFC 3986 section 2.3 (unreserved characters), less "." and "~".
"""

from __future__ import annotations

import re
from typing import Final

ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{15,127}")


def valid(upload_id: str) -> bool:
    """Whether all of ``upload_id`` is an id: 16 to 128 characters."""
    return ID.fullmatch(upload_id) is not None
