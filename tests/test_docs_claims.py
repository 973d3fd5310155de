"""What the docs claim of the code is held against the code: pages, anchors, commands, paths, defaults, versions.

What can only be seen in a running server is in tests/e2e/test_docs_commands.py; tables of options, flags and variables
are in test_docs.py, metrics in tests/daemon.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

from resumable import __version__
from resumable.cli import dashboard, examples, get, moving, put
from resumable.cli.checkup import DoctorOptions
from resumable.cli.configure import ShowOptions
from resumable.cli.main import OWN, parsed, parser
from resumable.cli.serve import ServeOptions
from resumable.config import OPTIONS
from resumable.config.options import Options
from resumable.hooks.hooks import GROUP as HOOKS
from resumable.model import values as option_values
from resumable.remotes.s3.endpoint import CAUTIOUS, DIALECTS
from resumable.remotes.urls import GROUP as REMOTES

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS])
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEFAULTS = {option.flag: option.default for option in OPTIONS}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)


def linked(page: str, folder: str) -> set[str]:
    """The pages of docs/ that lists on this one lead to."""
    return set(re.findall(rf"^- .*?\]\({folder}([a-z-]+\.md)\)", page, re.MULTILINE))


def test_the_readme_has_the_same_list_of_pages_as_the_index() -> None:
    index = [line for line in read(ROOT / "docs" / "index.md").splitlines() if line.startswith("- ")]
    assert "\n".join(index).replace("](", "](docs/") in read(ROOT / "README.md")


# -- pages and links


def test_the_readme_and_the_index_list_every_page():
    there = {path.name for path in DOCS} - {"index.md"}
    assert linked(read(ROOT / "docs" / "index.md"), "") == there
    assert linked(README.partition("\n## Documentation\n")[2], "docs/") == there


def anchors(page: str) -> set[str]:
    """As GitHub makes them of headings."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.*?)#*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        kept = "".join(c for c in text if c in " -_" or unicodedata.category(c)[0] in "LNM").replace(" ", "-")
        found[kept] = found.get(kept, -1) + 1
        if found[kept]:
            found[f"{kept}-{found[kept]}"] = 0
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_and_every_anchor_leads_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(read(page))):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        leads = (page.parent / path).resolve() if path else page
        if not leads.exists() or (anchor and anchor not in anchors(read(leads))):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_path_of_the_project_that_is_named_exists(page):
    places = "docs|examples|resumable|tests|bench|twisted"
    named = set(re.findall(rf"[`(]((?:\.\./)?(?:{places})/[\w./-]*\w/?)[`)]", read(page)))
    made = set(read(ROOT / ".gitignore").split())
    missing = [each for each in named - made if not (ROOT / each.removeprefix("../")).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_module_that_is_named_exists(page):
    for dotted in set(re.findall(r"\b(resumable(?:\.[a-z_]+)+)\b", read(page))):
        if dotted.split(".")[1] in ("upload", "service", "socket", "env", "pid", "log", "toml", "yaml", "fish"):
            continue  # types of events, units of systemd, files
        if dotted in (HOOKS, REMOTES):
            continue
        place = ROOT.joinpath(*dotted.split("."))
        assert place.is_dir() or place.with_suffix(".py").exists(), dotted


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_target_of_make_that_is_named_exists(page):
    targets = set(re.findall(r"^([a-z][a-z-]*):", read(ROOT / "Makefile"), re.MULTILINE))
    code = "\n".join(re.findall(r"`(make [^`\n]+)`", read(page)) + re.findall(r"^ *(make [a-z-]+)", read(page), re.M))
    named = {word for line in code.splitlines() for word in line.split()[1:] if re.fullmatch(r"[a-z-]+", word)}
    assert named - targets - {"run", "everything"} == set()


# -- commands


def code_of(page: str) -> Iterator[str]:
    """Each line of shell on it, continued ones joined: blocks of sh and console, and what is indented."""
    fenced = [(lang, text) for lang, text in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)]
    lines = [line for lang, text in fenced if lang == "sh" for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    lines += [line[2:] for lang, text in fenced if lang == "console" for line in text.splitlines() if line[:2] == "$ "]
    outside = re.sub(r"\\\n\s*", "", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE))
    lines += [line.strip() for line in re.findall(r"^ {4}(?! |[-*\d])(.*)$", outside, re.MULTILINE)]
    lines += re.findall(r"`((?:twistd|resumable) [^`\n]+)`", outside)
    yield from lines


def is_ours(word: str) -> bool:
    """Whether a word of a command is our program; a flag may hold a path that ends like it."""
    return Path(word).name == "resumable" and not word.startswith("-")


def commands(page: str) -> Iterator[list[str]]:
    """The words of each call of ours: ``twistd resumable ...`` or ``resumable ...``."""
    for line in code_of(page):
        for part in re.split(r"\s*(?:&&|\|\||[|;])\s*", line.partition("  #")[0]):
            try:
                words = shlex.split(part)
            except ValueError:
                continue
            places = [at for at, word in enumerate(words) if is_ours(word)]
            if not places or not re.search(r"\b(twistd|resumable|docker run)\b", part) or "build" in words:
                continue
            if words[0] in ("python3", "pip", "curl", "cd", "git", "systemctl"):
                continue
            yield words[:1] + words[places[-1] :] if "docker" in words else words


def called(words: list[str]) -> tuple[str, list[str]]:
    """Which program with which arguments."""
    at = max(place for place, word in enumerate(words) if is_ours(word))
    rest = words[at + 1 :]
    is_daemon = any(Path(word).name == "twistd" for word in words[:at])
    if words[0] == "docker" and not (rest and not rest[0].startswith("-")):
        is_daemon = True
    return ("twistd resumable" if is_daemon else "resumable"), rest


OURS = sorted({(name(page), tuple(words)) for page in PAGES for words in commands(read(page))})


def test_there_are_commands_to_look_at():
    assert len(OURS) > 25 and {"README.md", "docs/cli.md", "docs/doctor.md"} <= {page for page, _ in OURS}


@pytest.mark.parametrize(
    ("page", "words"), OURS, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60]
)
def test_every_command_that_is_shown_is_one_that_we_take(page, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program, arguments = called(list(words))
    if any("[" in word and "flags" in " ".join(arguments) for word in arguments) or "--help" in arguments:
        return
    if program == "twistd resumable":
        try_daemon(Options({}), arguments, tmp_path)
    elif arguments[:2] in (["config", "check"], ["config", "show"]):
        try_daemon(ShowOptions({}), arguments[2:], tmp_path)
    elif arguments[:1] in (["config"], ["completion"], ["man"]):
        if arguments[1:] or arguments == ["man"]:
            module = import_module(f"resumable.cli.{OWN[arguments[0]].module}")
            rest = arguments[1:]
            module.parser().parse_args(rest[: rest.index(">")] if ">" in rest else rest)
    elif arguments[:1] == ["serve"]:
        try_daemon(ServeOptions({}), arguments[1:], tmp_path)
    elif arguments[:1] == ["doctor"]:
        try_daemon(DoctorOptions({}), arguments[1:], tmp_path)
    elif arguments[:1] in (["put"], ["get"]):
        words = [word.replace("URL", "https://up.example/files/") for word in arguments[1:]] or ["http://named/"]
        (put if arguments[0] == "put" else get).parser().parse_intermixed_args(words)
    elif arguments[:1] == ["dashboard"]:
        dashboard.parser().parse_args(arguments[1:])
    elif arguments[:1] == ["catalog"]:
        if "--to" in arguments:  # else it is only named
            moving.parser().parse_args(arguments[1:])
    elif arguments[:1] == ["examples"]:
        if arguments[1:]:
            examples.parser().parse_args(arguments[1:])
    elif arguments:
        words_only = [word for word in arguments if word != "..."]
        if words_only == [arguments[0]] and arguments[0] in ("show", "retry", "rm", "replay", "drain"):
            words_only.append("on" if arguments[0] == "drain" else "ID")  # named, not called
        parsed(parser(), [word.removesuffix("...") for word in words_only])


def try_daemon(options: Options, arguments: list[str], home: Path) -> None:
    """Files that are named need to be there."""
    made = [home / word if not word.startswith("/") else None for word in arguments]
    for place in filter(None, made):
        if place.suffix in (".pem", ".txt", ".htpasswd", ".toml"):
            place.touch()
    options.parseOptions(arguments)


@pytest.mark.process
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_of_shell_can_be_read_by_one(page):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash to check the syntax with")
    for block in re.findall(r"^```sh\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE):
        done = subprocess.run([bash, "-n"], input=block, text=True, capture_output=True, timeout=30)
        assert done.returncode == 0, done.stderr + block


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_of_python_is_python(page):
    for block in re.findall(r"^```python\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE):
        compile(block, name(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def started_with(text: str) -> list[str]:
    """The flags that a comment of an example names."""
    found = re.search(r"started with: +(--.*)$", text, re.MULTILINE)
    return shlex.split(found[1]) if found else []


@pytest.mark.parametrize("example", ["nginx.conf", "haproxy.cfg", "Caddyfile"])
def test_the_server_behind_an_example_of_a_proxy_starts_as_it_says(example):
    flags = started_with(read(ROOT / "examples" / example))
    options = Options({})
    options.parseOptions(flags)
    assert options.settings().trusted_proxies and options.settings().listen


def test_the_units_and_the_composition_start_the_server_with_what_it_takes(tmp_path):
    unit = read(ROOT / "examples" / "resumable.service")
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    words = shlex.split(line)
    Options({}).parseOptions(words[words.index("resumable") + 1 :] if "resumable" in words else [])
    environ = dict(re.findall(r'^Environment="?(RESUMABLE_\w+)=([^"\n]*)"?$', unit, re.MULTILINE))
    Options(environ).parseOptions([])
    compose = yaml.safe_load(read(ROOT / "examples" / "docker-compose.yml"))
    service = compose["services"]["resumable"]
    Options({key: str(value) for key, value in service["environment"].items()}).parseOptions([])


# -- values


def findings() -> Iterator[ast.expr]:
    """The names of all that the doctor may find, as the code writes them."""
    for path in (ROOT / "resumable" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                yield node.args[0]


def test_the_page_of_the_doctor_has_every_check():
    told = set(re.findall(r"^\| `([^`]+)` \|", read(ROOT / "docs" / "doctor.md").partition("## The checks")[2], re.M))
    literal = {each.value for each in findings() if isinstance(each, ast.Constant)}
    assert literal - {"remotes"} <= told, "which says that there are none"
    constants = set()
    for path in (ROOT / "resumable" / "doctor").glob("*.py"):
        constants |= set(re.findall(r'^(?:NAME|[A-Z]+)(?:: Final)? = "([A-Za-z -]+)"$', read(path), re.M))
    assert told - {"remote NAME", "hook NAME", "guard NAME"} <= literal | constants


def test_defaults_that_sentences_tell_are_those_of_the_code():
    """As in: `--expire-after` (7 days)."""
    found = 0
    for page in PAGES:
        for flag, told in re.findall(r"`--([a-z][a-z-]+)`\s+\((\d+(?:\.\d+)? ?[A-Za-z]+)\)", read(page)):
            amount, unit = re.fullmatch(r"([\d.]+) ?([A-Za-z]+)", told).groups()
            short = {"days": "d", "day": "d", "minutes": "m", "seconds": "s", "hours": "h", "hour": "h"}.get(unit, unit)
            default = DEFAULTS[flag]
            parse = option_values.duration if short in ("d", "m", "s", "h", "w") else option_values.size
            assert parse(f"{amount}{short}") == parse(default), f"{name(page)}: --{flag} ({told}) is {default}"
            found += 1
    assert found >= 4


def test_versions_that_are_told_are_those_that_there_are():
    setup = read(ROOT / "setup.py")
    lowest = re.search(r'python_requires=">=([\d.]+)"', setup)[1]
    for page in ("README.md", "Makefile"):
        assert f"Python {lowest} or later" in read(ROOT / page)
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            assert set(re.findall(r"\bresumable (\d+\.\d+\.\d+)\b", read(page))) <= {__version__}, name(page)
    assert re.search(r'"twisted\[tls\]>=26\.4', setup) and "Twisted 26.4" in read(ROOT / "docs" / "doctor.md")
    classified = re.findall(r"Python :: (3\.\d+)", setup)
    assert re.search(r"^ARG PYTHON=(.*)$", read(ROOT / "Dockerfile"), re.MULTILINE)[1] in classified


def test_the_groups_of_entry_points_that_are_told_are_those_that_are_looked_at():
    assert f'entry-points."{HOOKS}"' in read(ROOT / "docs" / "hooks.md")
    assert REMOTES in read(ROOT / "docs" / "writing-a-backend.md")
    assert {point.name for point in entry_points(group="console_scripts", name="resumable")} == {"resumable"}


@pytest.mark.parametrize("each", DIALECTS.values(), ids=lambda each: each.name)
def test_the_page_says_how_much_metadata_each_dialect_has_room_for(each):
    (row,) = re.findall(rf"^\| `{each.name}` \|.*$", read(ROOT / "docs" / "remotes.md"), re.MULTILINE)
    room = f"{each.metadata.total >> 10} KB" + (f", {each.metadata.entries} entries" if each.metadata.entries else "")
    assert row.strip("| ").split(" | ")[-1] == room
    assert each.metadata.each in (0, CAUTIOUS.each)


def test_the_readmes_table_of_others_says_what_is_here_today():
    """Its column of ours says "not yet" only of what isn't there."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", README.partition("\n## Why this one\n")[2], re.MULTILINE)
    ours = {what.strip(): told.strip() for what, told in rows}
    assert ours["metrics"].startswith("yes") and (ROOT / "resumable" / "metrics").is_dir()
    assert ours["several servers on one store"].startswith("yes") and (ROOT / "resumable/catalog/postgres").is_dir()
    assert "not yet" not in ours.values()


def test_the_readmes_numbers_of_others_are_those_of_the_benchmarks():
    (row,) = re.findall(r"^\| requests to S3 for 50 MiB sent in 200 pieces \|.*$", README, re.MULTILINE)
    page = read(ROOT / "docs" / "benchmarks.md")
    (told,) = re.findall(r"^\| requests to S3 for 50 MiB in 200 PATCHes .*$", page, re.M)
    (head,) = re.findall(r"^\| work \| unit \| resumable .* \| target \|$", page, re.M)
    cells = row.strip("| ").split(" | ")
    measured = dict(zip(head.strip("| ").split(" | "), told.strip("| ").split(" | "), strict=False))
    assert (cells[1], cells[3]) == (measured["resumable"], measured["@tus/server"])
