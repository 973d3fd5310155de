"""What is installed is what is meant to be, and ``twistd`` finds it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from resumable import __version__

ROOT = Path(__file__).parent.parent
# Name of what is imported, where it isn't the distribution's.
DISTRIBUTIONS = {
    "OpenSSL": "pyopenssl",
    "prometheus_client": "prometheus-client",
    "azure": "azure-storage-blob",
    "zope": "zope.interface",
    "google_crc32c": "google-crc32c",
    "attr": "attrs",
    "google": "google-auth",
    "jwt": "PyJWT",
}
TWISTD = "from twisted.scripts.twistd import run; run()"


def python(*arguments: str, **environ: str) -> str:
    """What a Python process away from the source tree prints; it must end well."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("RESUMABLE_")}
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT.anchor,
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module", params=[pytest.param("wheel", marks=pytest.mark.process)])
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the tree, so that nothing is left behind in it."""
    if int(version("setuptools").split(".")[0]) < 71:
        pytest.skip("building needs setuptools 71 or later here; make test has it")
    there = tmp_path_factory.mktemp("source")
    for entry in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / entry, there)
    for entry in ("resumable", "twisted"):
        shutil.copytree(ROOT / entry, there / entry, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    out = tmp_path_factory.mktemp("wheel")
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(out)]
    python("-m", "pip", "wheel", *flags, str(there))
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_has_the_package_the_plugin_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "resumable").rglob("*.py")}
    assert sources <= names
    assert {"twisted/plugins/resumable_plugin.py", "resumable/py.typed"} <= names
    assert any(name.endswith("/LICENSE") for name in names)
    assert wheel.name.startswith(f"resumable-{__version__}-")


def test_the_wheel_takes_no_file_of_twisted_and_none_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & set(names)
    assert {name.split("/")[0] for name in names} <= {"resumable", "twisted", f"resumable-{__version__}.dist-info"}


def test_twistd_lists_the_command_once_the_wheel_is_installed(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    where = "import twisted.plugins.resumable_plugin as plugin; print(plugin.__file__)"
    assert python("-c", where, PYTHONPATH=str(tmp_path)).startswith(str(tmp_path))
    assert re.search(
        r"^ +resumable +A resumable", python("-c", TWISTD, "--help", PYTHONPATH=str(tmp_path)), re.MULTILINE
    )


@pytest.mark.process
def test_twistd_lists_the_command_in_the_source_tree():
    listing = python("-c", TWISTD, "--help", PYTHONPATH=str(ROOT))
    assert re.search(r"^ +resumable +A resumable", listing, re.MULTILINE)


def test_the_wheel_brings_the_command_for_operators(wheel, tmp_path):
    (listed,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/entry_points.txt")]
    text = zipfile.ZipFile(wheel).read(listed).decode()
    assert "[console_scripts]\nresumable = resumable.client.main:main" in text
    zipfile.ZipFile(wheel).extractall(tmp_path)
    run = "import sys; from resumable.client.main import main; sys.exit(main(['--help']))"
    for command in (["-c", run], ["-m", "resumable", "--help"]):
        assert "doctor" in python(*command, PYTHONPATH=str(tmp_path))


def test_no_init_file_hides_twisted_itself():
    assert not list((ROOT / "twisted").rglob("__init__.py"))


def test_everything_imported_is_required():
    imported = set()
    for path in (ROOT / "resumable").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - sys.stdlib_module_names - {"resumable"}
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    required = set(
        re.findall(r'^    "([a-zA-Z0-9_.-]+)(?:\[[a-z0-9,]+\])?[><=]', setup.split("TEST = [")[0], re.MULTILINE)
    )
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} <= required


@pytest.mark.parametrize("path", ["Makefile", "Dockerfile", "README.md", "examples/resumable.service"])
def test_whatever_starts_twistd_in_the_foreground_writes_no_pid_file(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    starts = [line for line in text.splitlines() if re.search(r'twistd"?,? "?-n', line)]
    assert starts
    assert all("--pidfile=" in line for line in starts)


def test_ci_runs_what_people_run():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    ran = [line.split()[1] for line in lines if line.startswith("make ")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\ntest-all: {' '.join(ran)}\n" in makefile
    assert ran[0] == "test"
