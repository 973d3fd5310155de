"""The options of sight: flags, variables, and what they refuse."""

from __future__ import annotations

import pytest
from twisted.python.usage import UsageError

from resumable.option_table.sight import SIGHT
from resumable.options import Options, Settings

EXAMPLES = [
    ("admin-listen", "tcp:9090:interface=127.0.0.1", ("tcp:9090:interface=127.0.0.1",)),
    ("ready-remotes", "required", "required"),
    ("log-format", "json", "json"),
    ("log-level", "debug", "debug"),
    ("access-log", "info", "info"),
]


def parse(*flags: str, **environ: str) -> Settings:
    options = Options(environ)
    options.parseOptions(list(flags))
    return options.settings()


def test_every_option_has_an_example_above() -> None:
    assert [flag for flag, *_ in EXAMPLES] == [option.flag for option in SIGHT]


@pytest.mark.parametrize(("flag", "text", "value"), EXAMPLES)
def test_flags_and_variables_set_the_same_field(flag: str, text: str, value: object) -> None:
    field = flag.replace("-", "_")
    assert getattr(parse(f"--{flag}", text), field) == value
    assert getattr(parse(**{f"RESUMABLE_{field.upper()}": text}), field) == value


def test_nothing_listens_for_operators_unless_it_is_asked_for() -> None:
    assert parse().admin_listen == ()


def test_several_listeners() -> None:
    wanted = ("tcp:1", "unix:/tmp/s")
    assert parse("--admin-listen", "tcp:1", "--admin-listen", "unix:/tmp/s").admin_listen == wanted
    assert parse(RESUMABLE_ADMIN_LISTEN="tcp:1  unix:/tmp/s").admin_listen == wanted


@pytest.mark.parametrize(
    "flags",
    [
        ["--admin-listen", "9090"],
        ["--ready-remotes", "some"],
        ["--log-format", "xml"],
        ["--log-level", "loud"],
        ["--access-log", "yes"],
    ],
)
def test_anything_else_is_refused(flags: list[str]) -> None:
    with pytest.raises(UsageError, match=flags[0]):
        parse(*flags)
