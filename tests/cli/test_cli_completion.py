"""``resumable completion``: real shells take its scripts, and bash really completes with them."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from resumable.cli import completion, flags
from resumable.cli.completion import SHELLS, script
from resumable.cli.described import describe
from resumable.cli.main import OWN, OwnCommand, main
from resumable.config import OPTIONS

#: Calls the function that the script has registered, as bash does when somebody presses Tab.
PRESS_TAB = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
COMP_LINE="${{COMP_WORDS[*]}}"
COMP_POINT=${{#COMP_LINE}}
"$(complete -p {program} | sed -E 's/.*-F ([^ ]+).*/\\1/')" {program} "${{COMP_WORDS[COMP_CWORD]}}" 2> /dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here")
    return found


def completed(words: Sequence[str], home: Path, *, twistd: bool = False) -> set[str]:
    """What bash offers for the last of these words."""
    path = home / "script"
    path.write_text(script("bash", twistd=twistd))
    told = PRESS_TAB.format(script=path, words=shlex.join(words), program=words[0])
    done = subprocess.run([need("bash"), "--norc", "-c", told], cwd=home, capture_output=True, text=True, timeout=300)
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["resumable", "con"], ["config"]),
        (["resumable", "config", ""], ["check", "show", "init"]),
        (["resumable", "config", "check", "--max-si"], ["--max-size"]),
        (["resumable", "ls", "--st"], ["--state"]),
        (["resumable", "catalog", ""], ["move"]),
        (["resumable", "catalog", "move", "--up"], ["--upload-dir"]),
        (["resumable", "doctor", "--place-c"], ["--place-collision"]),
        (["resumable", "doctor", "--wri"], ["--write", "--writers"]),
        (["resumable", "doctor", "--place-collision", "re"], ["refuse", "replace"]),
        (["resumable", "completion", ""], SHELLS),
        (["resumable", "config", "check", "--config", "tok"], ["tokens.toml"]),
        (["resumable", "config", "check", "--upload-dir", "upl"], ["uploads"]),
    ],
    ids=" ".join,
)
def test_bash_completes_commands_flags_words_and_files(words, offered, tmp_path):
    (tmp_path / "tokens.toml").touch()
    (tmp_path / "uploads").mkdir()
    assert completed(words, tmp_path).issuperset(offered)


@pytest.mark.process
def test_bash_completes_twistd_and_the_flags_of_the_server(tmp_path):
    assert completed(["twistd", "--nod"], tmp_path, twistd=True) == {"--nodaemon"}
    assert completed(["twistd", "resu"], tmp_path, twistd=True) == {"resumable"}
    assert completed(["twistd", "-n", "resumable", "--upload"], tmp_path, twistd=True) == {"--upload-dir"}


@pytest.mark.process
@pytest.mark.parametrize("twistd", [False, True])
@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_read_its_script(shell, twistd, tmp_path):
    path = tmp_path / "script"
    path.write_text(script(shell, twistd=twistd))
    checked = [need(shell), "--no-execute" if shell == "fish" else "-n", str(path)]
    done = subprocess.run(checked, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_has_every_command_and_every_option_of_the_server(shell, capsys):
    assert main(["completion", shell], {}) == 0
    text = capsys.readouterr().out
    for word in (*OWN, "ls", "show", "retry", *(option.flag for option in OPTIONS)):
        assert word in text, word
    assert main(["completion", shell, "--twistd"], {}) == 0
    text = capsys.readouterr().out
    assert all(option.flag in text for option in OPTIONS) and "pidfile" in text


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_shell_shows_one_sentence_for_each(shell):
    text = script(shell)
    assert "largest upload in bytes" in text and "Clients see it as" not in text


@pytest.mark.process
def test_fish_completes_too(tmp_path):
    (tmp_path / "resumable").write_text("#!/bin/sh\n")
    (tmp_path / "resumable").chmod(0o755)
    (tmp_path / "script").write_text(script("fish"))
    environ = {"HOME": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    told = "source script; complete -C 'resumable config '; complete -C 'resumable config check --max-si'"
    command = [need("fish"), "-c", told]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | environ, capture_output=True, text=True, timeout=300)
    offered = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert {"check", "show", "init", "--max-size"} <= offered, done.stderr


def test_an_unknown_shell_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["completion", "csh"], {})
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "bash" in said and completion.parser().prog in said


# -- where the commands come from


def test_every_command_of_the_command_line_is_described():
    found = describe(flags.all_commands())
    assert {*OWN, "ls", "show", "retry", "rm", "replay", "drain"} <= set(found.commands)
    assert all(each.help and each.description for each in found.commands.values())
    assert {each for each in found.commands["catalog"].commands} == {"move"}
    told = {flag for each in found.commands["doctor"].arguments for flag in each.flags}
    assert {f"--{option.flag}" for option in OPTIONS} | {"--url", "--header", "--write"} <= told


def test_a_command_whose_module_has_no_parser_is_known_by_its_name(monkeypatch):
    empty = ModuleType("resumable.cli.empty")
    modules = {"resumable.cli.empty": empty}
    monkeypatch.setattr(flags, "OWN", {"one": OwnCommand("empty", "do one thing"), "two": OwnCommand("gone", "two")})
    monkeypatch.setattr("resumable.cli.main.OWN", flags.OWN)

    def imported(name: str) -> ModuleType:
        if name not in modules:
            raise ImportError(name)
        return modules[name]

    monkeypatch.setattr(flags, "import_module", imported)
    found = describe(flags.all_commands()).commands
    assert found["one"].help == found["one"].description == "do one thing" and found["two"].arguments == ()
    empty.parser = lambda: argparse.ArgumentParser("resumable one", description="Better told.")  # type: ignore[attr-defined]
    assert describe(flags.all_commands()).commands["one"].description == "Better told."
