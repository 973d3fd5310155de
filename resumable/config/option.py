"""One option of the command line and the environment; and variables that begin like ours and are none of ours.

Invariant: a variable that is probably meant for us, and has no effect, never goes unreported; the variables that
Kubernetes sets for a Service named ``resumable`` never keep the daemon from starting. Pure.
Source: https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from attrs import frozen

PREFIX: Final = "RESUMABLE_"
#: How alike two names are, from 0 to 1, when one is taken for the other misspelt, and when it's worth a hint. A slip
#: is one however short the name is.
MISSPELT: Final = 0.85
ALIKE: Final = 0.7
#: Variables of ours that commands for people heed, and no server.
OF_CLIENTS: Final = frozenset({"RESUMABLE_TOKEN"})
_OF_A_SERVICE: Final = re.compile(
    r"RESUMABLE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+")


@frozen
class Option:
    """One row of the table.

    ``parse`` gets the text; where ``separator`` is set, which makes the flag repeatable, the list of texts. A comma
    splits flags and variables alike, a blank only variables. ``default`` is text, as a person would write it.
    ``advice`` says what happens at the ends of the scale. ``secret``: it may hold one, so no message repeats it.
    """

    flag: str
    metavar: str
    default: str
    help: str
    advice: str
    parse: Callable[[Any], Any]
    separator: str = ""
    secret: bool = False

    @property
    def variable(self) -> str:
        """Name of the environment variable that sets it."""
        return PREFIX + self.flag.upper().replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return not self.metavar


def help_line(option: Option) -> str:
    """Its line in ``--help``."""
    default = f" [{option.default}]" if option.default else ""
    return f"{option.help}{default} ({option.variable})"


@frozen
class UnknownVariable:
    """A variable that means nothing here. ``meant``: the one that it may be; ``misspelt``: surely enough."""

    name: str
    meant: str | None
    misspelt: bool

    def __str__(self) -> str:
        return f"{self.name} is no variable of this server{did_you_mean(self.meant)}"


def unknown_variables(environ: Mapping[str, str], known: Collection[str]) -> list[UnknownVariable]:
    """Those that are set and that nobody here heeds."""
    heeded = OF_CLIENTS.union(known)
    odd = sorted(name for name, value in environ.items() if name.startswith(PREFIX) and name not in heeded and value)
    return [_told(name, known) for name in odd if not of_a_service(name, environ[name])]


def of_a_service(name: str, value: str) -> bool:
    """Whether Kubernetes sets it, in each pod beside a Service whose name begins with ``resumable``."""
    return bool(_OF_A_SERVICE.fullmatch(name)) or (name.endswith("_PORT") and bool(_ADDRESS.fullmatch(value)))


def mentioned_variables(texts: Iterable[str]) -> set[str]:
    """Variables that these tell somebody to look at."""
    return {name for text in texts for name in re.findall(rf"{PREFIX}\w+", text)}


def nearest_name(word: str, known: Iterable[str]) -> str | None:
    """The one of these names that is meant, if any is."""
    names = list(known)
    slips = (name for name in names if is_slip(word, name))
    return next(slips, None) or next(iter(difflib.get_close_matches(word, names, 1, ALIKE)), None)


def is_slip(word: str, name: str) -> bool:
    """Whether one letter is wrong, missing or too much, or two have changed places (Damerau and Levenshtein's 1)."""
    pairs = enumerate(zip(word, name, strict=False))
    start = next((at for at, (one, other) in pairs if one != other), min(len(word), len(name)))
    word, name = word[start:], name[start:]
    changed = (word[:2], word[2:]) == (name[:2][::-1], name[2:])
    return changed or word[1:] == name[1:] or word[1:] == name or word == name[1:]


def did_you_mean(meant: str | None) -> str:
    """The end of a complaint about a name."""
    return "" if meant is None else f": did you mean {meant}?"


def _told(name: str, known: Collection[str]) -> UnknownVariable:
    plain = {each.removeprefix(PREFIX): each for each in known}
    word = name.removeprefix(PREFIX).upper()
    found = nearest_name(word, plain)
    if found is None:
        return UnknownVariable(name, None, False)
    likeness = difflib.SequenceMatcher(None, found, word).ratio()
    same = found.replace("_", "") == word.replace("_", "")
    return UnknownVariable(name, plain[found], same or is_slip(word, found) or likeness >= MISSPELT)
