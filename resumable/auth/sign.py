"""``python -m resumable.auth.sign KEYS IDENTITY PATH SECONDS [ACTIONS [MAX_SIZE]]`` prints a token for signed URLs.

For scripts and for trying it out. KEYS is the file of keys, ACTIONS has commas between (default: all that a token can
grant), MAX_SIZE is in bytes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from resumable.auth.secret import read_text
from resumable.auth.signed import Grant, parse_keys, sign
from resumable.model.principal import EVERYDAY, Action


def token(arguments: Sequence[str], now: float) -> str:
    """The token; ValueError names the error in one line."""
    if not 4 <= len(arguments) <= 6:
        raise ValueError("what is needed: KEYS IDENTITY PATH SECONDS [ACTIONS [MAX_SIZE]]")
    file, identity, path, seconds, *further = arguments
    actions = frozenset(map(Action, further[0].split(","))) if further else EVERYDAY
    largest = int(further[1]) if len(further) == 2 else None
    keys = parse_keys(read_text("keys of signed URLs", Path(file)))
    return sign(keys[0], Grant(actions, path, identity, int(now) + int(seconds), largest))


if __name__ == "__main__":
    try:
        print(token(sys.argv[1:], time.time()))
    except ValueError as problem:
        raise SystemExit(f"resumable: {problem}") from None
