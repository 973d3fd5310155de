"""The configuration file of ``--config``: TOML, where each option has its flag's name.

    port = 8080
    max-size = "10G"
    remote = ["s3://bucket/prefix"]
    auth-jwt-secret = { file = "/run/secrets/jwt" }
    catalog = { env = "DATABASE_URL" }

Invariants: a mistake is one line that names the file, the key and what is expected. No message repeats a value that may
be a secret. Nothing is skipped: an unknown key is an error, because nobody would notice that it isn't heeded.
Spec: https://toml.io/en/v1.0.0.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from attrs import evolve, field, frozen

from resumable.config.option import Option, did_you_mean, nearest_name
from resumable.model import values

CONFIG: Final = Option(
    "config",
    "FILE",
    "",
    "TOML file with options by their names; flags and variables win over it",
    "It is read at the start. `resumable config init` writes one to fill in, `resumable config check` checks it. See"
    " [the configuration file](configuration.md#the-configuration-file).",
    values.file,
)
_EXPECTED: Final[Mapping[str, str]] = {
    "PORT": "a whole number",
    "NUMBER": "a whole number or a string",
    "SIZE": 'a size like "10G" or a number of bytes',
    "TIME": 'a time like "7d" or a number of seconds',
    "MODE": 'a string like "640"',
}
"""By metavars; for others it is a string."""
_NUMBERS: Final = ("PORT", "NUMBER", "SIZE", "TIME")
"""Metavars of options that take TOML's numbers too. Modes are octal, and TOML's numbers aren't."""
_KINDS: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction",
    str: "a string",
    list: "an array",
    dict: "a table",
}
_PLACE: Final = re.compile(r" \(at (line \d+, column \d+|end of document)\)$")
_ELSEWHERE: Final = ({"file"}, {"env"})


class BadConfig(ValueError):
    """The file can't be used; the text is one line."""


@frozen
class ConfigFile:
    """What it says. ``data``: its bytes. ``texts``: the values of each option that it sets, as a flag would give them;
    ``variables``, ``files``: those that it takes values from; ``hidden``: options with such a value, which no message
    repeats; ``warnings``: of secrets that others can read."""

    name: str = ""
    data: bytes = field(default=b"", repr=False)
    texts: Mapping[str, list[str]] = field(factory=dict, repr=False)
    variables: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    def as_environment(self, flags: Collection[str]) -> dict[str, str]:
        """These options as variables; for commands that ask where the server is."""
        named = {flag: Option(flag, "", "", "", "", str).variable for flag in flags if flag in self.texts}
        return {variable: " ".join(self.texts[flag]) for flag, variable in named.items()}

    def given(self, option: Option) -> tuple[str, list[str]] | None:
        """How to call the place where it sets the option, and the texts; None where it doesn't."""
        texts = self.texts.get(option.flag)
        return None if texts is None else (f"{option.flag} in {self.name}", texts)


def read_config(
    name: str, options: Collection[Option], environ: Mapping[str, str], only: Collection[str] | None = None
) -> ConfigFile:
    """The file of that path; a relative one starts at the working directory, as do those in it. ``only``: flags whose
    values are wanted; those of others, which may be somebody else's secrets, aren't looked at.

    Raises BadConfig, and OSError where it can't be read.
    """
    path = values.file(name)
    try:
        with open(path, "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read()
        document = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise BadConfig(f"{name}: expected a TOML file in UTF-8") from error
    except RecursionError as error:
        raise BadConfig(f"{name}: its arrays or tables are nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(_told(name, str(error))) from error
    known = {each.flag: each for each in options}
    return evolve(_Reading(name, known, environ, mode).read(document, known if only is None else only), data=data)


def _told(name: str, problem: str) -> str:
    """tomllib's message, with the place first, as compilers write it."""
    place = _PLACE.search(problem)
    what = _PLACE.sub("", problem)
    hint = "" if what.startswith("Expected") else '; expected lines like max-size = "10G", each key once'
    return f"{name}{f', {place[1]}' if place else ''}: {what[:1].lower()}{what[1:]}{hint}"


class _Reading:
    """One document, key by key."""

    def __init__(self, name: str, known: Mapping[str, Option], environ: Mapping[str, str], mode: int) -> None:
        self._name = name
        self._known = known
        self._environ = environ
        self._mode = mode
        self._variables: set[str] = set()
        self._files: set[str] = set()
        self._hidden: set[str] = set()

    def read(self, document: Mapping[str, Any], wanted: Collection[str]) -> ConfigFile:
        """Raises BadConfig for the first mistake."""
        options = {key: self._option(key, value) for key, value in document.items()}
        texts, secrets = {}, []
        for key, value in document.items():
            if key not in wanted:
                self._variables |= _named_variables(value)
                continue
            found = self._texts(options[key], value)
            if found and any(found):  # as with variables, what is empty counts as not set
                texts[key] = found
            if key not in self._hidden and any(holds_secret(options[key], text) for text in found):
                secrets.append(key)
        return ConfigFile(
            name=self._name,
            texts=texts,
            variables=frozenset(self._variables),
            files=frozenset(self._files),
            hidden=frozenset(self._hidden),
            warnings=tuple(self._warnings(secrets)),
        )

    def _option(self, key: str, value: Any) -> Option:
        option = self._known.get(key)
        if option is None:
            hint = did_you_mean(nearest_name(key.lower().replace("_", "-"), self._known))
            flat = "; the file has no tables" if isinstance(value, dict) and not hint else ""
            raise BadConfig(f"{self._name}: {key} is no option{hint}{flat}")
        if option.flag == CONFIG.flag:
            raise BadConfig(f"{self._name}: {key} can't be in a configuration file")
        return option

    def _warnings(self, secrets: list[str]) -> Iterator[str]:
        if secrets and self._mode & stat.S_IROTH:
            yield (
                f"{self._name} has a secret ({', '.join(secrets)}), and every user of this machine can read it:"
                f" chmod o= {self._name}, or name a file or a variable in its place"
            )

    def _texts(self, option: Option, value: Any) -> list[str]:
        if option.is_switch:
            if not isinstance(value, bool):
                raise self._unlike(option, value, "true or false")
            return ["yes"] if value else []
        if not option.separator:
            return [self._text(option, value, _EXPECTED.get(option.metavar, "a string"))]
        each = [self._text(option, item, "strings") for item in (value if isinstance(value, list) else [value])]
        if option.separator != ",":
            return [text for text in each if text]
        return [part for text in each for part in map(str.strip, text.split(",")) if part]

    def _text(self, option: Option, value: Any, expected: str) -> str:
        if isinstance(value, dict) and set(value) in _ELSEWHERE:
            return self._from_elsewhere(option, value)
        if isinstance(value, str):
            return value.strip()
        takes = (int, float) if option.metavar == "TIME" else (int,)
        if option.metavar in _NUMBERS and isinstance(value, takes) and not isinstance(value, bool):
            return f"{value:.15g}" if isinstance(value, float) else str(value)
        raise self._unlike(option, value, expected)

    def _from_elsewhere(self, option: Option, value: Mapping[str, Any]) -> str:
        ((kind, place),) = value.items()
        where = f"{option.flag} in {self._name}"
        if not isinstance(place, str) or not place or "\0" in place:
            raise BadConfig(f'{where}: expected {{ {kind} = "..." }} with the name of a {_called(kind)}')
        self._hidden.add(option.flag)
        if kind == "env":
            self._variables.add(place)
            found = self._environ.get(place, "").strip()
            if not found:
                raise BadConfig(f"{where}: the variable {place} is not set")
            return found
        self._files.add(str(values.file(place)))
        try:
            found = values.file(place).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(f"{where}: {place}: {getattr(error, 'strerror', None) or 'expected UTF-8'}") from error
        if not found:
            raise BadConfig(f"{where}: {place} is empty")
        return found

    def _unlike(self, option: Option, value: Any, expected: str) -> BadConfig:
        if option.separator:
            expected = "a string or an array of strings"
        found = _KINDS.get(type(value), "a date or a time of day")
        if isinstance(value, list) and option.separator:
            found = "an array with something else"
        tables = ', or { file = "..." } or { env = "..." }' if isinstance(value, dict) else ""
        return BadConfig(f"{option.flag} in {self._name}: expected {expected}{tables}, found {found}")


def _named_variables(value: Any) -> set[str]:
    items = value if isinstance(value, list) else [value]
    return {str(each["env"]) for each in items if isinstance(each, dict) and set(each) == {"env"}}


def _called(kind: str) -> str:
    return "variable" if kind == "env" else kind


def holds_secret(option: Option, text: str) -> bool:
    """Whether that value is one that others shouldn't read: a secret itself, or a URL with a password or a query that
    may be one."""
    if not option.secret:
        return False
    if "://" not in text:
        return option.metavar in ("TEXT", "SECRET")
    user = text.partition("://")[2].partition("/")[0].rpartition("@")[0]
    if ":" in user or "password=" in text:
        return True
    return "?" in text and option.flag not in ("remote", "spool", "catalog")
