"""``--help``: the usual options in a screen, all of them by subject on demand."""

from __future__ import annotations

import pytest

from resumable.cli.checkup import DoctorOptions
from resumable.cli.serve import ServeOptions
from resumable.config import BY_FLAG, OPTIONS
from resumable.config.help import USUAL, full_help, short_help, subjects
from resumable.config.options import Options


def shown(options, flag, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        options.parseOptions([flag])
    assert not end.value.code
    return capsys.readouterr().out


def test_the_help_has_the_usual_options_each_in_a_line_of_a_terminal(capsys, monkeypatch):
    text = shown(ServeOptions({}), "--help", capsys, monkeypatch)
    lines = text.splitlines()
    options = [line for line in lines if line.startswith("  --")]
    assert 18 <= len(options) <= 24 and len(lines) <= 42 and max(map(len, lines)) <= 80
    assert not [line for line in lines if line.startswith("    ")], "no line goes on"
    assert lines[0] == "Usage: resumable serve [options]"
    assert "[8080]" in text and "--help-all shows all" in text and str(len(OPTIONS)) in text


def test_every_usual_option_exists():
    flags = [flag for section in USUAL.values() for flag in section]
    assert len(set(flags)) == len(flags)
    assert set(flags) - set(BY_FLAG) <= {"config", "page"}


def test_each_option_has_one_subject():
    found = [option.flag for table in subjects().values() for option in table]
    assert sorted(found) == sorted(BY_FLAG)


def test_all_options_are_shown_with_default_and_variable_below_their_subject(capsys, monkeypatch):
    text = " ".join(shown(Options({}), "--help-all", capsys, monkeypatch).split())
    for option in OPTIONS:
        assert f"--{option.flag} {option.metavar}".rstrip() in text
        assert f"({option.variable})" in text
        if option.default:
            assert f"[{option.default}] ({option.variable})" in text
    places = [text.index(f"{subject}: --") for subject in subjects()]
    assert places == sorted(places)
    assert text.index("Remotes: --") < text.index("--part-size") < text.index("Access: --")


def test_a_commands_own_flags_come_first(capsys, monkeypatch):
    for flag in ("--help", "--help-all"):
        text = shown(DoctorOptions({}), flag, capsys, monkeypatch)
        assert text.index("--url URL") < text.index("--port PORT")
        assert "--header 'NAME: VALUE'" in text and "--json" in text


@pytest.mark.parametrize("made", [short_help, full_help])
@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_of_the_help_is_longer_than_the_terminal(made, width):
    lines = made("Usage: x", "About it.", {"json": "as JSON"}, width).splitlines()
    assert max(len(line) for line in lines if max(map(len, line.split()), default=0) < 30) <= width


@pytest.mark.parametrize("options", [Options, ServeOptions])
def test_a_misspelt_help_is_told_what_was_meant(options):
    with pytest.raises(Exception, match="did you mean --help-all"):
        options({}).parseOptions(["--help-al"])
