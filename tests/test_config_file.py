"""The configuration file: what it may say, what wins over it, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from resumable.config import BY_FLAG, OPTIONS
from resumable.config.file import BadConfig, holds_secret, read_config
from resumable.config.sample import groups, sample
from tests.parsing import SWITCHES, parse, refusal

SECRET = "s" * 40


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, mode: int = 0o600) -> str:
    path = Path("r.toml")
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def settings(text: str, *flags: str, **environ: str):
    return parse("--config", write(text), *flags, **environ)


def mistake(text: str, **environ: str) -> str:
    return refusal("--config", write(text), **environ)


# -- what it may say


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("port = 9000", ["--port", "9000"]),
        ('port = "9000"', ["--port", "9000"]),
        ('max-size = "10G"', ["--max-size", "10G"]),
        ("max-size = 10_000", ["--max-size", "10000"]),
        ("expire-after = 90", ["--expire-after", "90"]),
        ("network-timeout = 0.5", ["--network-timeout", "0.5"]),
        ("retry-delay = 0.25", ["--retry-delay", "250ms"]),
        ("expire-after = 'never'", ["--expire-after", "never"]),
        ('file-mode = "640"', ["--file-mode", "640"]),
        ("disable-download = true", ["--disable-download"]),
        ("disable-download = false", []),
        ('remote = ["memory://a", "memory://b"]', ["--remote", "memory://a", "--remote", "memory://b"]),
        ('remote = "memory://a"', ["--remote", "memory://a"]),
        ('behind-proxy = ["loopback", "10.0.0.0/8"]', ["--behind-proxy", "loopback,10.0.0.0/8"]),
        ('behind-proxy = "loopback, 10.0.0.0/8"', ["--behind-proxy", "loopback,10.0.0.0/8"]),
        ('listen = ["tcp:1", "tcp:2"]', ["--listen", "tcp:1", "--listen", "tcp:2"]),
        ('hook = ["a=exec:x y, z", "b=https://h/"]', ["--hook", "a=exec:x y, z", "--hook", "b=https://h/"]),
        ('upload-dir = "here"', ["--upload-dir", "here"]),
        ("# nothing", []),
        ("", []),
    ],
)
def test_a_key_does_what_its_flag_does(line, flags):
    assert settings(line) == parse(*flags)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.flag)
def test_what_is_empty_counts_as_not_set(option):
    if option.flag == "config" or option.is_switch:
        return
    assert settings(f'{option.flag} = ""') == parse()
    if option.separator:
        assert settings(f"{option.flag} = []") == settings(f'{option.flag} = [""]') == parse()


def test_a_variable_names_the_file_too():
    assert parse(RESUMABLE_CONFIG=write("port = 9000")).listen == ("tcp:9000",)
    assert parse("--config", write("port = 9000"), RESUMABLE_CONFIG="nowhere").listen == ("tcp:9000",)
    assert parse(RESUMABLE_CONFIG="").listen == ("tcp:8080",)


def test_flags_beat_variables_beat_the_file_beats_the_defaults():
    assert settings("writers = 2").writers == 2
    assert settings("writers = 2", RESUMABLE_WRITERS="3").writers == 3
    assert settings("writers = 2", "--writers", "5", RESUMABLE_WRITERS="3").writers == 5
    assert settings("writers = 2", RESUMABLE_WRITERS=" ").writers == 2
    assert settings("writers = 2").parts == parse().parts
    assert settings("disable-download = true", RESUMABLE_DISABLE_DOWNLOAD="no").download is True
    assert settings('remote = ["memory://a"]', "--remote", "memory://b").remotes[0].name == "memory://b"


@pytest.mark.parametrize("option", [each for each in OPTIONS if each.default], ids=lambda option: option.flag)
def test_each_option_can_be_set_by_its_name(option):
    needed = ["--catalog", "postgresql://u@h/d", "--spool", "s3://b"] if option.flag == "scratch-size" else []
    text = option.default
    assert settings(f'{option.flag} = "{text}"', *needed) == parse(f"--{option.flag}", text, *needed)


@pytest.mark.parametrize("flag", sorted(SWITCHES))
def test_each_switch_can_be_set_by_its_name(flag):
    assert settings(f"{flag} = true") == parse(f"--{flag}")


def test_paths_in_it_start_where_the_server_was_started_as_those_of_flags_do(home, monkeypatch):
    (home / "etc").mkdir()
    (home / "etc" / "r.toml").write_text('upload-dir = "up"\n', encoding="utf-8")
    assert parse("--config", "etc/r.toml").upload_dir == home / "up"


# -- values from elsewhere


def test_a_value_may_be_in_a_file_or_in_a_variable(home):
    (home / "jwt").write_text(f"{SECRET}\n", encoding="utf-8")
    (home / "hooks").write_text("whsec_" + "A" * 32, encoding="utf-8")
    text = """
    auth-jwt-secret = { file = "jwt" }
    hook-secret = [{ file = "hooks" }]
    catalog = { env = "DATABASE" }
    """
    found = settings(text, DATABASE="postgresql://u:p@h/d")
    given = ["--auth-jwt-secret", SECRET, "--hook-secret", "whsec_" + "A" * 32, "--catalog", "postgresql://u:p@h/d"]
    assert repr(found) == repr(parse(*given)) and found.catalog == "postgresql://u:p@h/d"
    assert found.access.jwt.secret.reveal() == SECRET.encode()


def test_a_variable_of_ours_that_only_the_file_names_is_no_misspelt_one():
    assert settings('catalog = { env = "RESUMABLE_CATALOGUE" }', RESUMABLE_CATALOGUE="postgresql://u@h/d").catalog
    assert "did you mean" in refusal(RESUMABLE_CATALOGUE="postgresql://u@h/d")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('catalog = { env = "NOWHERE" }', "catalog in r.toml: the variable NOWHERE is not set"),
        ('catalog = { file = "nowhere" }', "catalog in r.toml: nowhere: No such file or directory"),
        ('catalog = { file = "empty" }', "catalog in r.toml: empty is empty"),
        ('catalog = { file = "latin" }', "catalog in r.toml: latin: expected UTF-8"),
        ("catalog = { file = 1 }", 'catalog in r.toml: expected { file = "..." } with the name of a file'),
        ('catalog = { env = "" }', 'catalog in r.toml: expected { env = "..." } with the name of a variable'),
        (
            'catalog = { path = "x" }',
            'catalog in r.toml: expected a string, or { file = "..." } or { env = "..." }, found a table',
        ),
    ],
)
def test_a_value_that_is_not_there_is_named(home, line, said):
    (home / "empty").write_text("\n")
    (home / "latin").write_bytes(b"\xff")
    assert mistake(line) == said


def test_no_message_repeats_a_value_from_elsewhere_or_a_secret(home):
    (home / "key").write_text("hunter2")
    for line in (
        'port = { file = "key" }',
        'max-size = { env = "KEY" }',
        'catalog = "hunter2://u:hunter2@h"',
        'hook-secret = "hunter2"',
        'auth-jwks = "hunter2"',
        'catalog = { file = "key" }',
    ):
        assert "hunter2" not in mistake(line, KEY="hunter2")


# -- mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_size = 1", "r.toml: max_size is no option: did you mean max-size?"),
        ("MAX-SIZE = 1", "r.toml: MAX-SIZE is no option: did you mean max-size?"),
        ("prot = 1", "r.toml: prot is no option: did you mean port?"),
        ("frobnicate = 1", "r.toml: frobnicate is no option"),
        ("[remotes]\na = 1", "r.toml: remotes is no option: did you mean remote?"),
        ("[frobnicate]\na = 1", "r.toml: frobnicate is no option; the file has no tables"),
        ('config = "x"', "r.toml: config can't be in a configuration file"),
        ("port = true", "port in r.toml: expected a whole number, found true or false"),
        ("port = 1.5", "port in r.toml: expected a whole number, found a number with a fraction"),
        ("max-size = [1]", 'max-size in r.toml: expected a size like "10G" or a number of bytes, found an array'),
        (
            "expire-after = 1979-05-27",
            'expected a time like "7d" or a number of seconds, found a date or a time of day',
        ),
        ("file-mode = 0o640", 'file-mode in r.toml: expected a string like "640", found a number'),
        ("file-mode = 640", 'file-mode in r.toml: expected a string like "640", found a number'),
        ("place = 1", "place in r.toml: expected a string, found a number"),
        ("check = 'yes'", "check in r.toml: expected true or false, found a string"),
        ("remote = [1]", "remote in r.toml: expected a string or an array of strings, found a number"),
        ("remote = [['a']]", "remote in r.toml: expected a string or an array of strings, found an array"),
        ("max-size = '10X'", "max-size in r.toml '10X': expected a size below 8 EiB"),
        ("port = 70000", "port in r.toml '70000': expected a port number from 0 to 65535"),
        ("remote = ['s4://b']", "remote in r.toml: remote s4://b: unknown scheme"),
        ("port = 1\nport = 2\n", 'overwrite a value; expected lines like max-size = "10G", each key once'),
        ("port 1", "r.toml, line 1, column 6: expected '=' after a key in a key/value pair"),
        ("port = ", "r.toml, end of document: invalid value; expected lines like"),
        ("upload-dir = uploads", "r.toml, line 1, column 14: invalid value; expected lines like"),
        ("x = " + "[" * 5000, "r.toml: its arrays or tables are nested too deeply"),
    ],
)
def test_a_mistake_is_one_line_with_the_place_and_what_is_expected(text, said):
    assert said in mistake(text)


def test_a_file_that_can_not_be_read_is_named_with_what_names_it(home):
    (home / "bytes.toml").write_bytes(b"\xff\xfe")
    assert refusal("--config", "nowhere.toml") == "--config nowhere.toml: No such file or directory"
    assert refusal(RESUMABLE_CONFIG="nowhere.toml") == "RESUMABLE_CONFIG nowhere.toml: No such file or directory"
    assert refusal("--config", str(home)) == f"--config {home}: Is a directory"
    assert refusal("--config", "bytes.toml") == "bytes.toml: expected a TOML file in UTF-8"
    assert refusal("--config", "") == "--config '': expected the path of a file"


def test_what_contradicts_each_other_is_found_across_file_and_flags():
    assert "--spool needs --catalog" in mistake('spool = "s3://b"')
    assert "--scratch-size needs --spool" in mistake("scratch-size = '1G'")


# -- secrets that others can read


def warnings(text: str, mode: int, **environ: str) -> list[str]:
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        parse("--config", write(text, mode), **environ)
    finally:
        globalLogPublisher.removeObserver(events.append)
    return [formatEvent(each) for each in events if each["log_level"] is LogLevel.warn]


def test_a_secret_in_a_file_that_everybody_can_read_is_warned_of_once():
    text = f'auth-jwt-secret = "{SECRET}"\ncatalog = "postgresql://u:hunter2@h/d"\n'
    (said,) = warnings(text, 0o644)
    assert "auth-jwt-secret, catalog" in said and "chmod o= r.toml" in said
    assert SECRET not in said and "hunter2" not in said
    assert warnings(text, 0o640) == warnings(text, 0o600) == []


def test_secrets_from_elsewhere_and_urls_without_any_need_no_warning():
    text = 'auth-jwt-secret = { env = "KEY" }\nremote = "s3://bucket/prefix?region=eu-central-1"\ncatalog = "sqlite"\n'
    assert warnings(text, 0o644, KEY=SECRET) == []


@pytest.mark.parametrize(
    ("flag", "text", "is_one"),
    [
        ("catalog", "sqlite", False),
        ("catalog", "postgresql://u@h/d", False),
        ("catalog", "postgresql://u:p@h/d", True),
        ("catalog", "postgresql://h/d?user=u&password=p", True),
        ("remote", "s3://b?region=x", False),
        ("hook", "exec:/bin/x", False),
        ("hook", "https://h/path", False),
        ("hook", "https://h/path?token=x", True),
        ("hook-secret", "whsec_x", True),
        ("public-url", "https://h/?x=y", False),
    ],
)
def test_what_counts_as_a_secret(flag, text, is_one):
    assert holds_secret(BY_FLAG[flag], text) is is_one


# -- the file to fill in


def test_every_option_is_in_the_sample_once_and_the_usual_ones_come_first():
    lines = [line for line in sample("r.toml").splitlines() if " = " in line and not line.startswith("# Instead")]
    flags = [line.removeprefix("# ").partition(" = ")[0] for line in lines if line.startswith("# ")]
    assert sorted(each for each in flags if each in BY_FLAG) == sorted(set(BY_FLAG) - {"config"})
    title, usual = next(iter(groups().items()))
    assert title == "The usual ones" and flags[: len(usual)] == [each.flag for each in usual]
    assert {each.flag for each in usual} >= {"port", "upload-dir", "max-size", "remote"}


def test_the_sample_sets_nothing_and_uncommented_it_says_the_defaults():
    assert settings(sample("r.toml")) == parse()
    lines = sample("r.toml").splitlines()
    flags = tuple(f"# {flag} = " for flag in BY_FLAG)
    uncommented = "\n".join(line[2:] if line.startswith(flags) else line for line in lines)
    assert len(read_config(write(uncommented), OPTIONS, {}).texts) > 60
    without = "\n".join(line for line in uncommented.splitlines() if not line.startswith("scratch-size"))
    assert settings(without) == parse()


def test_reading_needs_no_twisted_options():
    with pytest.raises(BadConfig):
        read_config(write("nothing = 1"), OPTIONS, {})
