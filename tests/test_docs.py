"""What is written for people holds: tables, links, names of flags, commands to paste, numbers of obligations."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tusclient.uploader import Uploader

from resumable.config import MAIN, OPTIONS
from resumable.config.__main__ import rewrite
from resumable.config.option import OF_CLIENTS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WITH_TABLES = [ROOT / "README.md", ROOT / "docs" / "configuration.md"]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_file())
# upload.py has flags of its own.
FOR_OPERATORS = [
    *PAGES,
    *(path for path in EXAMPLES if path.name != "upload.py"),
    ROOT / "Dockerfile",
    ROOT / "Makefile",
]
OBLIGATIONS = {"T": range(1, 63), "R": range(1, 51)}
OF_TESTS = {"RESUMABLE_LONG", "RESUMABLE_RELEASE_BEFORE", *OF_CLIENTS}

# Flags in our pages that belong to other programs.
TWISTD = {"help", "help-all", "uid", "pidfile", "logfile", "logger", "syslog", "rundir", "reactor"}
DOCKER = {
    "rm",
    "name",
    "user",
    "ulimit",
    "stop-timeout",
    "read-only",
    "profile",
    "build",
    "build-arg",
    "console-address",
    "from",
    "entrypoint",
}
HEALTHCHECK = {"interval", "timeout", "start-period"}
NPM = {"ignore-scripts"}
PIP = {"editable", "no-cache-dir", "disable-pip-version-check", "quiet"}
OTHERS = {"unix-socket", "data-binary", "limit-rate", "max-time", "fix", "check", "strict", "now", "endpoint"}
# Those of the command resumable that the daemon doesn't have.
OPERATORS = {"url", "origin", "header", "json", "token-file", "yes", "all", "limit", "newest"}
OPERATORS |= {"output", "write", "user", "force", "twistd", "watch", "help-all", "full-id", "no-browser"}
OPERATORS |= {"state", "parked", "owner", "older-than", "idle", "min-size", "to"}
SENDERS = {"name", "meta", "follow", "restart", "jobs", "parallel", "chunk-size", "checksum", "announce", "protocol"}
SENDERS |= {"wait", "ca-file", "insecure", "retry-for", "only-at", "limit-rate", "verbose", "list", "forget", "remove"}
SENDERS |= {"output", "overwrite"}
PYTEST = {"ignore", "dist", "no-loadscope-reorder"}
SOAK = {"shape"}
OTHERS_FLAGS = SENDERS | PYTEST | SOAK | OPERATORS | TWISTD | DOCKER | HEALTHCHECK | PIP | NPM | OTHERS


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def marked_block(page: str, mark: str) -> str:
    """The fenced block after ``<!-- run: mark -->``, for those who want to run it."""
    match = re.search(rf"<!-- run: {mark} -->\n```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert match, f"no block marked {mark}"
    return match[1]


@pytest.mark.parametrize("page", WITH_TABLES, ids=name)
def test_the_tables_of_options_are_those_of_the_code(page):
    assert "<!-- options: " in read(page)
    assert rewrite(read(page)) == read(page), "run: make docs"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.flag)
def test_each_option_is_in_the_full_table_and_the_main_ones_in_the_readme(option):
    assert (f"| `--{option.flag}` |" in read(ROOT / "README.md")) is (option in MAIN)
    assert f"| `{option.variable}` |" in read(ROOT / "docs" / "configuration.md")


@pytest.mark.parametrize("page", FOR_OPERATORS, ids=name)
def test_every_variable_and_flag_that_is_named_exists(page):
    text = read(page)
    assert set(re.findall(r"\bRESUMABLE_[A-Z0-9_]+\b", text)) <= {option.variable for option in OPTIONS} | OF_TESTS
    known = {option.flag for option in OPTIONS} | OTHERS_FLAGS
    if page.name in ("benchmarks.md", "scaling.md"):
        for module in ("__main__.py", "store.py"):
            known |= set(re.findall(r'"--([a-z-]+)"', read(ROOT / "bench" / module)))
    assert set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", text)) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(page)):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_page_of_the_docs_is_linked_from_the_index(page):
    if page.parent == ROOT / "docs" and page.name != "index.md":
        assert f"]({page.name})" in read(ROOT / "docs" / "index.md")


@pytest.mark.process
def test_the_commands_to_paste_are_a_shell_script_of_creation_patch_and_head():
    script = marked_block(read(ROOT / "README.md"), "curl")
    for part in ("-X POST", "-X PATCH", "curl -sS -I", "http://127.0.0.1:8080/files/"):
        assert part in script
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash to check the syntax with")
    subprocess.run([bash, "-n"], input=script, text=True, check=True, timeout=300)


def test_the_python_snippets_are_tuspy_as_it_is_and_the_first_program_that_embeds_the_server():
    snippet, embedded = blocks(read(ROOT / "README.md"), "python")
    assert embedded == blocks(read(ROOT / "docs/embedding.md"), "python")[0], "the one that a test runs"
    calls = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Call)]
    (call,) = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "uploader"]
    inspect.signature(Uploader).bind("big.bin", client=None, **{keyword.arg: None for keyword in call.keywords})


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.svg")), ids=name)
def test_pictures_are_well_formed(path):
    assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_dev_container_is_json_with_comments():
    text = re.sub(r"^\s*//.*$", "", read(ROOT / ".devcontainer" / "devcontainer.json"), flags=re.MULTILINE)
    assert "postCreateCommand" in json.loads(text)


@pytest.mark.process
def test_the_example_client_explains_itself():
    command = [sys.executable, str(ROOT / "examples" / "upload.py"), "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "--endpoint" in run.stdout


@pytest.mark.parametrize("letter", OBLIGATIONS)
def test_conformance_lists_every_obligation_once(letter):
    numbers = re.findall(rf"^\| {letter}(\d+) \|", read(ROOT / "docs" / "conformance.md"), re.MULTILINE)
    assert sorted(map(int, numbers)) == list(OBLIGATIONS[letter])
