"""``resumable man``: its pages have what the commands take, and what formats them has nothing to complain of."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess

import pytest

from resumable.cli import flags
from resumable.cli.described import describe
from resumable.cli.main import OWN, main
from resumable.cli.manual import page, typeset
from resumable.config import OPTIONS
from resumable.config.sample import groups

COMMANDS = ([], *([each] for each in OWN), ["ls"], ["rm"], ["catalog", "move"], ["config", "init"], ["twistd"])


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["man", *words], {}) == 0
    return capsys.readouterr().out


def plain(text: str) -> str:
    """The text without what troff takes for itself."""
    return re.sub(r"\\f[BIR]|\\&", "", text).replace(r"\-", "-").replace(r"\(dq", '"').replace(r"\(ga", "`")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_page_has_a_name_a_synopsis_and_statuses(words, capsys):
    text = plain(printed(capsys, *words))
    name = "twistd-resumable" if words == ["twistd"] else "-".join(["resumable", *words])
    assert text.startswith(f'.TH {name.upper()} 1 ""')
    sections = re.findall(r"^\.SH (.*)$", text, re.MULTILINE)
    assert sections[:2] == ["NAME", "SYNOPSIS"] and sections[-2:] == ["EXIT STATUS", "SEE ALSO"]
    assert re.search(rf"^{name} - \S", text, re.MULTILINE)


def test_the_first_page_names_every_command_and_leads_to_its_page(capsys):
    text = plain(printed(capsys))
    for each in (*OWN, "ls", "show", "drain"):
        assert f".TP\n{each}\n" in text and f"resumable-{each}(1)" in text


@pytest.mark.parametrize("words", [["twistd"], ["doctor"], ["config", "check"]], ids=" ".join)
def test_pages_of_the_server_have_each_option_under_its_subject(words, capsys):
    text = plain(printed(capsys, *words))
    for title, options in groups().items():
        section = text.partition(f".SH {title.upper()}\n")[2].partition(".SH ")[0]
        for option in options:
            heading = f".TP\n--{option.flag} {option.metavar}".rstrip()
            assert heading + "\n" in section, option.flag
    assert all(plain(typeset(option.help.replace("`", ""))) in text for option in OPTIONS)
    assert "RESUMABLE_MAX_SIZE" in text


def test_what_a_command_takes_is_on_its_page(capsys):
    text = plain(printed(capsys, "rm"))
    assert "resumable rm [options] ID ..." in text and "--yes\ndon\\(aqt ask" in text
    assert "resumable config init [options] [FILE]" in plain(printed(capsys, "config", "init"))


@pytest.mark.parametrize("words", [["nowhere"], ["catalog", "nowhere"], ["ls", "ls"]], ids=" ".join)
def test_a_command_that_there_is_not_is_one_line_and_status_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["man", *words], {})
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("resumable man: there is no command") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a-b", r"a\-b"),
        (".TH is no request", r"\&.TH is no request"),
        ("'tis", r"\(aqtis"),
        (r"a\fB", r"a\efB"),
        ("two\n  lines", "two lines"),
        ("100 %", "100 %"),
    ],
)
def test_no_text_is_taken_for_a_request_or_an_escape(text, written):
    assert typeset(text) == written


def test_helps_are_written_as_argparse_writes_them():
    parser = argparse.ArgumentParser("x", description="X.")
    parser.add_argument("--level", default="high", choices=["high", "low"], help="%(prog)s's, 100 %% [%(default)s]")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    text = plain(page(describe(parser, "do"), "x"))
    assert ".TP\n--level high|low\nx\\(aqs, 100 % [high]\n" in text and "hidden" not in text


@pytest.mark.process
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_formatter_of_man_has_nothing_to_say(words, capsys):
    text = printed(capsys, *words)
    mandoc, groff = shutil.which("mandoc"), shutil.which("groff")
    if mandoc is not None:
        check = [mandoc, "-T", "lint", "-W", "error"]
    elif groff is not None:
        check = [groff, "-man", "-ww", "-z"]
    else:
        pytest.skip("neither mandoc nor groff is installed here")
    done = subprocess.run(check, input=text, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_parser_can_be_described():
    assert describe(flags.all_commands()).commands and describe(flags.twistd_parser()).commands
