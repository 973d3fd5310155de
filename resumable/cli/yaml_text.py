"""Values as YAML with comments. A string is quoted as JSON, which is YAML, unless it is a plain word.

Spec: https://yaml.org/spec/1.2.2/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

COMMENT: Final = "#"
"""A key that begins with it is a comment, which is its value; the rest of the key only makes it another one."""
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*|[0-9]+(?:[GM]i|m|s)")
_WORDS: Final = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def yaml_text(value: Mapping[str, Any]) -> str:
    """The lines of a document, with a line end."""
    return "\n".join(_of_mapping(value)) + "\n"


def _of_mapping(value: Mapping[str, Any]) -> Iterator[str]:
    for key, each in value.items():
        if key.startswith(COMMENT):
            yield from (f"# {line}".rstrip() for line in each.splitlines())
        elif isinstance(each, (Mapping, Sequence)) and not isinstance(each, str) and each:
            yield f"{_scalar(key)}:"
            lines = _of_mapping(each) if isinstance(each, Mapping) else _of_list(each)
            yield from (f"  {line}" for line in lines)
        else:
            yield f"{_scalar(key)}: {_scalar(each)}".rstrip()


def _of_list(values: Sequence[Any]) -> Iterator[str]:
    for each in values:
        lines = list(_of_mapping(each)) if isinstance(each, Mapping) else [_scalar(each)]
        yield f"- {lines[0]}"
        yield from (f"  {line}" for line in lines[1:])


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value, ensure_ascii=False)
