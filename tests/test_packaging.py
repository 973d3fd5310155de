"""What is installed is what is meant to be, and ``twistd`` finds it."""

from __future__ import annotations

import ast
import http.client
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from contextlib import closing
from importlib.metadata import metadata, requires, version
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from resumable import __version__
from tests.waiting import eventually, free_port, long

ROOT = Path(__file__).parent.parent
# Name of what is imported, where it isn't the distribution's.
DISTRIBUTIONS = {
    "OpenSSL": "pyopenssl",
    "prometheus_client": "prometheus-client",
    "http_sf": "http-sf",
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
    for entry in ("resumable", "twisted", "examples"):
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
    assert {f"resumable/examples/{path.name}" for path in (ROOT / "examples").iterdir()} <= names
    page = (ROOT / "resumable/http/page/assets").iterdir()
    assert {str(path.relative_to(ROOT)) for path in page} <= names, "the upload page's files"
    assert any(name.endswith("/LICENSE") for name in names)
    assert wheel.name.startswith(f"resumable_server-{__version__}-"), "PyPI's resumable is somebody else's"


def test_the_wheel_takes_no_file_of_twisted_and_none_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & set(names)
    assert {name.split("/")[0] for name in names} <= {
        "resumable",
        "twisted",
        f"resumable_server-{__version__}.dist-info",
    }


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
    assert "[console_scripts]\nresumable = resumable.cli.entry:main" in text
    assert "[pytest11]\nresumable = resumable.testing.pytest_plugin" in text
    zipfile.ZipFile(wheel).extractall(tmp_path)
    listed_examples = python("-m", "resumable", "examples", "list", PYTHONPATH=str(tmp_path))
    assert len(listed_examples.splitlines()) == len(list((ROOT / "examples").iterdir()))
    run = "import sys; from resumable.cli.main import main; sys.exit(main(['--help']))"
    for command in (["-c", run], ["-m", "resumable", "--help"]):
        assert "doctor" in python(*command, PYTHONPATH=str(tmp_path))


def test_no_init_file_hides_twisted_itself():
    assert not list((ROOT / "twisted").rglob("__init__.py"))


@pytest.mark.slow
def test_everything_imported_is_required():
    imported = set()
    for path in (ROOT / "resumable").rglob("*.py"):
        if path.name == "pytest_plugin.py":  # pytest alone imports it
            continue
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


@pytest.mark.parametrize("path", ["Dockerfile", "README.md", "examples/resumable.service"])
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


def test_nothing_tells_anybody_to_install_what_is_somebody_elses():
    """On PyPI, resumable is another project; what is installed is resumable-server."""
    shown = [*(ROOT / "resumable").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "setup.py"]
    wrong = re.compile(r"pip install\s+(?:-\S+\s+)*['\"]?resumable(?!-server)\b")
    assert not [path for path in shown if wrong.search(path.read_text(encoding="utf-8"))]


def test_the_extras_that_messages_name_exist():
    extras = set(metadata("resumable-server").get_all("Provides-Extra") or ())
    named: set[str] = set()
    for path in [*(ROOT / "resumable").rglob("*.py"), *(ROOT / "docs").glob("*.md")]:
        named |= set(re.findall(r"resumable-server\[([a-z,]+)\]", path.read_text(encoding="utf-8")))
    assert {"basic", "jwt", "azure", "gcs", "postgres"} <= named <= extras


@pytest.mark.process
def test_the_image_has_all_extras_unless_they_are_left_out():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG EXTRAS=all$", text, re.MULTILINE)
    (wanted,) = re.findall(r"pip install [^\n]*(\"\.\$[^\n]*\")", text)
    for extras, asked in (("all", ".[all]"), ("azure,jwt", ".[azure,jwt]"), ("", ".")):
        shell = subprocess.run(
            ["sh", "-c", f"echo {wanted}"], env={"EXTRAS": extras}, capture_output=True, text=True, check=True
        )
        assert shell.stdout.strip() == asked
    every = {req.split(";")[0] for req in requires("resumable-server") or () if 'extra == "all"' in req}
    for extra in ("basic", "jwt", "azure", "gcs", "postgres"):
        one = {req.split(";")[0] for req in requires("resumable-server") or () if f'extra == "{extra}"' in req}
        assert one and one <= every


def _tree() -> set[str]:
    """The files that belong to the project, those that will be added too."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so nobody knows what belongs to the tree")
    return {each for each in listed.stdout.split("\0") if each and (ROOT / each).is_file()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> Path:
    """What ``python -m build`` makes of the tree: an sdist, and a wheel made from that."""
    pytest.importorskip("build")
    there, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for each in _tree():
        (there / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / each, there / each)
    python("-m", "build", "--outdir", str(out), str(there))
    return out


@pytest.fixture(scope="module")
def unpacked(distributions, tmp_path_factory) -> Path:
    (sdist,) = distributions.glob("resumable_server-*.tar.gz")
    home = tmp_path_factory.mktemp("sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(home, filter="data")
    (root,) = home.iterdir()
    return root


@pytest.mark.slow
@pytest.mark.process
def test_the_sdist_has_every_file_of_the_tree(unpacked):
    there = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert _tree() - there == set()


@pytest.mark.slow
@pytest.mark.process
def test_the_tests_of_the_sdist_run_where_it_was_unpacked(unpacked):
    """All of them are found, and the quick ones of the docs and the protocol pass."""
    for arguments in (["--collect-only"], ["tests/protocol", "tests/test_docs.py", "tests/test_options.py"]):
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments],
            cwd=unpacked, env=os.environ | {"PYTHONPATH": str(unpacked)}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("kind", ["whl", pytest.param("tar.gz", marks=long)])
def test_in_a_fresh_environment_it_installs_and_serves_an_upload(distributions, kind, tmp_path):
    (built,) = distributions.glob(f"resumable_server-*.{kind}")
    venv.create(tmp_path / "venv", with_pip=True)
    there = tmp_path / "venv" / "bin"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RESUMABLE_", "PYTHON", "AWS_"))}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(str(there / "pip"), "install", "--quiet", "--disable-pip-version-check", str(built))
    assert re.search(r"^ +resumable +A resumable", run(str(there / "twistd"), "--help"), re.MULTILINE)
    assert "doctor" in run(str(there / "resumable"), "--help")
    port = free_port()
    command = [str(there / "twistd"), "-n", "--pidfile=", "resumable", "--listen", f"tcp:{port}:interface=127.0.0.1"]
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen([*command, "--upload-dir", "up"], cwd=tmp_path, env=kept, stdout=log, stderr=log)
    try:
        assert eventually(lambda: daemon.poll() is not None or _answers(port))
        fields = {"Tus-Resumable": "1.0.0", "Upload-Length": "5", "Content-Type": "application/offset+octet-stream"}
        status, headers, _ = _asked(port, "POST", "/files/", fields, b"hello")
        assert (status, headers["Upload-Offset"]) == (201, "5")
        assert _asked(port, "GET", urlsplit(headers["Location"]).path)[2] == b"hello"
    finally:
        daemon.terminate()
        assert daemon.wait(30) == 0


def _asked(port: int, method: str, path: str, fields: dict[str, str] | None = None, body: bytes | None = None):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as link:
        link.request(method, path, body, fields or {})
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read()


def _answers(port: int) -> bool:
    try:
        return _asked(port, "GET", "/healthz")[0] == 200
    except OSError:
        return False
