"""``resumable config``: what it checks, shows and writes; and the commands that look into the file for the server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resumable.cli.configure import mask
from resumable.cli.main import main
from resumable.config import BY_FLAG, OPTIONS
from tests.parsing import parse

SECRET = "s" * 40


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> str:
    path = Path("r.toml")
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


# -- check


def test_check_says_ok_and_makes_nothing(home, capsys):
    assert main(["config", "check", "--config", write('upload-dir = "up"\nport = 9000\n')], {}) == 0
    assert capsys.readouterr() == ("ok\n", "")
    assert [path.name for path in home.iterdir()] == ["r.toml"]


@pytest.mark.parametrize(
    ("text", "flags", "environ", "said"),
    [
        ("maxsize = 1", [], {}, "r.toml: maxsize is no option: did you mean max-size?"),
        ("", ["--port", "x"], {}, "--port 'x': expected a port number from 0 to 65535"),
        ("", [], {"RESUMABLE_PROT": "1"}, "RESUMABLE_PROT is no variable of this server: did you mean RESUMABLE_PORT?"),
        ('ack = "remote"', [], {}, "--ack remote needs a --remote that is required: there is none to wait for"),
    ],
)
def test_check_says_what_the_server_would_in_one_line_and_status_1(text, flags, environ, said, capsys):
    assert main(["config", "check", "--config", write(text), *flags], environ) == 1
    assert capsys.readouterr() == ("", f"resumable: {said}\n")


@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.parametrize("arguments", [["--prt", "1"], ["extra"], ["--port"], ["-x"]])
def test_a_command_line_that_makes_no_sense_is_one_line_and_status_2(command, arguments, capsys):
    assert main(["config", command, *arguments], {}) == 2
    out, said = capsys.readouterr()
    assert out == "" and said.count("\n") == 1
    assert said.startswith(f"resumable config {command}: ") and said.endswith(
        f"see resumable config {command} --help\n"
    )


@pytest.mark.parametrize("arguments", [[], ["chekc"], ["init", "a", "b"], ["init", "--frobnicate"]])
def test_what_is_no_command_is_one_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["config", *arguments], {})
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["show", "--config", "x", "--help"]])
def test_help_is_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["config", *arguments], {})
    assert ended.value.code == 0 and "usage: resumable config" in capsys.readouterr().out


# -- show


def rows(capsys, *flags: str, **environ: str) -> dict[str, dict[str, object]]:
    assert main(["config", "show", "--json", *flags], environ) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {each["option"]: each for each in found}


def test_show_tells_each_value_and_where_it_was_set(capsys):
    text = 'max-size = "10G"\nremote = ["memory://a", "memory://b"]\nsidecar = true\nplace = "{id}"\nwriters = 2\n'
    found = rows(capsys, "--config", write(text), "--port", "9000", RESUMABLE_WRITERS="8")
    assert list(found) == ["config", "port", "max-size", "writers", "remote", "place", "sidecar"]
    assert found["port"] == {"option": "port", "value": "9000", "source": "flag", "place": "--port"}
    expected = {"option": "writers", "value": "8", "source": "variable", "place": "RESUMABLE_WRITERS"}
    assert found["writers"] == expected
    assert found["max-size"] == {"option": "max-size", "value": "10G", "source": "file", "place": "r.toml"}
    assert found["remote"]["value"] == ["memory://a", "memory://b"]
    assert found["sidecar"]["value"] is True


def test_show_all_has_every_option_with_its_default(capsys):
    found = rows(capsys, "--all")
    assert set(found) == set(BY_FLAG)
    assert {each["source"] for each in found.values()} == {"default"}
    assert found["port"]["value"] == "8080" and found["tls-cert"]["value"] is None
    assert found["cors-origin"]["value"] == ["*"] and found["check"]["value"] is False


def test_show_is_a_table_for_people(capsys):
    assert main(["config", "show"], {}) == 0
    assert capsys.readouterr().out == "every option has its default; --all shows them\n"
    assert main(["config", "show", "--config", write("port = 9000\ndisable-download = true")], {}) == 0
    assert capsys.readouterr().out.splitlines() == [
        "config            r.toml  --config",
        "port              9000    r.toml",
        "disable-download  true    r.toml",
    ]


@pytest.mark.parametrize("flags", [["--json"], []])
def test_show_shows_no_secret(flags, capsys):
    text = f"""
    catalog = "postgresql://u:hunter2@h/d"
    auth-jwt-secret = "{"hunter2" * 8}"
    hook = ["https://h/hunter2?a=hunter2", "a=exec:/bin/say hunter2"]
    hook-secret = {{ env = "KEY" }}
    """
    key = "whsec_" + "hunter2A" * 4
    assert main(["config", "show", *flags, "--config", write(text)], {"KEY": key}) == 0
    out, said = capsys.readouterr()
    assert "hunter2" not in out + said and "https://h/..." in out


@pytest.mark.parametrize(
    ("flag", "text", "shown"),
    [
        ("catalog", "sqlite", "sqlite"),
        ("catalog", "postgresql://u:p@h/d", "postgresql://...@h/d"),
        ("remote", "s3://b/p?region=x", "s3://b/p?region=..."),
        ("hook", "billing=https://h/x", "billing=https://h/..."),
        ("hook", "tusd+https://h/x?a=b", "tusd+https://h/..."),
        ("hook", "a=exec:/bin/x --key y", "a=exec:/bin/x"),
        ("guard", "python:one.two", "python:one.two"),
        ("auth-jwks", "https://h/keys", "https://h/..."),
        ("hook-secret", "whsec_x=", "..."),
        ("max-size", "10G", "10G"),
    ],
)
def test_what_is_shown_of_a_value(flag, text, shown):
    assert mask(BY_FLAG[flag], text) == shown


def test_show_of_what_the_server_would_refuse_is_its_one_line(capsys):
    assert main(["config", "show", "--port", "x"], {}) == 1
    assert capsys.readouterr() == ("", "resumable: --port 'x': expected a port number from 0 to 65535\n")


# -- init


def test_init_writes_a_file_that_sets_nothing_and_never_overwrites_one(home, capsys):
    assert main(["config", "init"], {}) == 0
    assert "resumable.toml is written" in capsys.readouterr().out
    assert parse("--config", "resumable.toml") == parse()
    text = (home / "resumable.toml").read_text()
    assert all(f"# {option.flag} = " in text for option in OPTIONS if option.flag != "config")
    (home / "resumable.toml").write_text("port = 9000\n")
    assert main(["config", "init"], {}) == 1
    assert "resumable.toml is there already" in capsys.readouterr().err
    assert (home / "resumable.toml").read_text() == "port = 9000\n"
    assert main(["config", "init", "--force"], {}) == 0
    assert (home / "resumable.toml").read_text() == text


def test_init_writes_elsewhere_and_to_the_output(capsys):
    assert main(["config", "init", "other.toml"], {}) == 0
    assert "--config other.toml" in Path("other.toml").read_text()
    capsys.readouterr()
    assert main(["config", "init", "-"], {}) == 0
    assert "# port = 8080\n" in capsys.readouterr().out
    assert main(["config", "init", "no/where.toml"], {}) == 1
    assert capsys.readouterr().err == "resumable: no/where.toml: No such file or directory\n"


# -- the other commands


def test_commands_for_operators_find_the_server_of_the_file(home, capsys):
    (home / "d").mkdir()
    name = write('upload-dir = "d"')
    assert main(["ls"], {"RESUMABLE_CONFIG": name}) == 1
    assert f"{home}/d/.resumable/admin.sock" in capsys.readouterr().err
    assert main(["ls"], {"RESUMABLE_CONFIG": name, "RESUMABLE_UPLOAD_DIR": "e"}) == 1
    assert f"{home}/e/.resumable/admin.sock" in capsys.readouterr().err


def test_they_need_none_of_the_servers_secrets(home, capsys):
    text = 'upload-dir = "d"\nhook-secret = [{ env = "RESUMABLE_HOOK_KEY" }]\nauth-jwt-secret = { file = "/nowhere" }\n'
    assert main(["ls"], {"RESUMABLE_CONFIG": write(text), "RESUMABLE_HOOK_KEY": "x"}) == 1
    said = capsys.readouterr().err
    assert f"{home}/d/.resumable/admin.sock" in said and said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["ls"], ["catalog", "move", "--to", "postgresql://u@h/d"]])
def test_a_file_that_can_not_be_used_is_one_line_for_them_too(arguments, capsys):
    assert main(arguments, {"RESUMABLE_CONFIG": "nowhere"}) == 2
    assert capsys.readouterr().err == "resumable: RESUMABLE_CONFIG nowhere: No such file or directory\n"
    assert main(arguments, {"RESUMABLE_CONFIG": write("maxsize = 1")}) == 2
    assert "did you mean max-size?" in capsys.readouterr().err
