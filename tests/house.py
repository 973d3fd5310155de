"""Measures the house: ``python -m tests.house [ROOT]`` prints a table of what is in it.

Files and functions of a request are counted by `sys.setprofile` in a real daemon (started by ``twistd`` in ROOT), from
before the request until its answer is there; of an upload into S3, until its object is there (a server of moto's).
Works on any checkout, so that two can be compared.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.waiting import answers, eventually, free_port

SMALL = 30
"""Lines. A module with fewer is a seam (``__init__``, ``__main__``, an interface), or belongs to its owner."""
MIB = 1 << 20

#: Runs twistd in this process; SIGUSR1 begins to note what is entered, SIGUSR2 writes it to the file named first.
RECORDER = r"""
import json, os, signal, sys, threading
told, root = sys.argv[1], os.path.join(os.path.realpath(sys.argv[2]), "resumable") + os.sep
sys.path.insert(0, sys.argv[2])
seen, on = set(), False
def note(frame, event, argument):
    if on and event == "call":
        code = frame.f_code
        if code.co_filename.startswith(root) and code.co_name not in ("<genexpr>", "<lambda>", "<listcomp>"):
            seen.add((code.co_filename[len(root):], code.co_qualname))
def begin(*_):
    global on
    seen.clear()
    on = True
def end(*_):
    global on
    on = False
    with open(told + ".part", "w") as file:
        json.dump(sorted(seen), file)
    os.rename(told + ".part", told)
signal.signal(signal.SIGUSR1, begin)
signal.signal(signal.SIGUSR2, end)
threading.setprofile(note)
sys.setprofile(note)
sys.argv = ["twistd", *sys.argv[3:]]
from twisted.scripts.twistd import run
run()
"""


def modules(root: Path) -> list[Path]:
    """The package's modules."""
    return sorted((root / "resumable").rglob("*.py"))


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def is_seam(path: Path) -> bool:
    """Whether a module may be as small as it likes: an entry point, a package's front, interfaces."""
    text = path.read_text(encoding="utf-8")
    return path.name in {"__init__.py", "__main__.py", "interfaces.py", "pytest_plugin.py"} or "(Interface)" in text


def doubled_classes(root: Path) -> list[str]:
    """Names that more than one class at the top of a module has."""
    names = Counter(
        node.name
        for path in modules(root)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return sorted(name for name, count in names.items() if count > 1)


def doubled_files(root: Path) -> list[str]:
    """File names that stand in more than one room."""
    names = Counter(path.name for path in modules(root) if path.name not in {"__init__.py", "__main__.py"})
    return sorted(name for name, count in names.items() if count > 1)


def interface_methods(root: Path) -> set[str]:
    """Names of methods that a zope interface describes: who implements one needs no docstring for it."""
    return {
        each.name
        for path in modules(root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(re.search(r"Interface$|^I[A-Z]|Protocol", ast.unparse(b)) for b in node.bases)
        for each in node.body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def without_docstring(root: Path) -> list[str]:
    """Public functions and methods that say nothing of themselves, where no interface says it for them.

    camelCase names are Twisted's, which describes them.
    """
    described = interface_methods(root)
    found = []
    for path in modules(root):
        for name, node in _public(ast.parse(path.read_text(encoding="utf-8"))):
            if ast.get_docstring(node) is None and node.name not in described and node.name == node.name.lower():
                found.append(f"{path.relative_to(root)}:{node.lineno} {name}")
    return found


def _public(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.name.startswith("_"):
                    yield f"{node.name}.{each.name}", each


def loose(root: Path) -> list[str]:
    """Modules at the top that are in no room."""
    return [
        path.name
        for path in sorted((root / "resumable").glob("*.py"))
        if path.name not in {"__init__.py", "__main__.py"}
    ]


class Daemon:
    """One that notes what is entered."""

    def __init__(self, root: Path, place: Path, *flags: str) -> None:
        self.port = free_port()
        self._told = place / "entered.json"
        recorder = place / "recorder.py"
        recorder.write_text(RECORDER)
        command = [sys.executable, str(recorder), str(self._told), str(root), "-n", "--pidfile=", "resumable"]
        command += ["--port", str(self.port), "--upload-dir", str(place / "uploads"), *flags]
        with (place / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
        eventually(lambda: answers(self.port))

    def begin(self) -> None:
        """Note what is entered from now on."""
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)

    def end(self) -> set[tuple[str, str]]:
        """File and function of all that was entered."""
        self._told.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR2)
        eventually(self._told.exists)
        return {(file, name) for file, name in json.loads(self._told.read_text())}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def ask(port: int, method: str, path: str, body: bytes = b"", **fields: str) -> dict[str, str]:
    """The answer's fields; raises urllib.error.HTTPError for a refusal."""
    headers = {"Tus-Resumable": "1.0.0", **{name.replace("_", "-"): value for name, value in fields.items()}}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body or None, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
        return {name.lower(): value for name, value in answer.headers.items()}


def entered(daemon: Daemon, request: Callable[[], object], times: int = 3) -> tuple[int, int]:
    """Files and functions that a request enters each time: what the clock does in between is left out."""
    each = []
    for _ in range(times):
        daemon.begin()
        request()
        each.append(daemon.end())
    always = set.intersection(*each)
    return len({file for file, _ in always}), len(always)


def path_of(url: str) -> str:
    return "/" + url.split("/", 3)[3]


def requests(root: Path) -> dict[str, tuple[int, int]]:
    """Files and functions of a HEAD, of an empty POST, and of 20 MiB until they are in S3."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        daemon = Daemon(root, Path(place))
        try:
            made = path_of(ask(daemon.port, "POST", "/files/", Upload_Length="10")["location"])
            found["HEAD"] = entered(daemon, lambda: ask(daemon.port, "HEAD", made))
            found["empty POST"] = entered(daemon, lambda: ask(daemon.port, "POST", "/files/", Upload_Length="10"))
        finally:
            daemon.stop()
        found["PATCH of 20 MiB, to S3"] = to_s3(root, Path(place) / "s3")
    return found


def to_s3(root: Path, place: Path) -> tuple[int, int]:
    place.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as store:
        try:
            eventually(lambda: answers(port))
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")).read()
            os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_S3_REGION": "us-east-1"}
            os.environ |= {"AWS_S3_BUCKET": "bucket", "AWS_S3_ENDPOINT": f"http://127.0.0.1:{port}"}
            daemon = Daemon(root, place)
            try:
                return entered(daemon, lambda: upload(daemon.port, f"http://127.0.0.1:{port}/bucket"), times=2)
            finally:
                daemon.stop()
        finally:
            store.terminate()


def upload(port: int, bucket: str) -> None:
    """One PATCH, until the object is in the store."""
    before = count_of(bucket)
    made = path_of(ask(port, "POST", "/files/", Upload_Length=str(20 * MIB))["location"])
    octets = {"Upload_Offset": "0", "Content_Type": "application/offset+octet-stream"}
    ask(port, "PATCH", made, bytes(20 * MIB), **octets)
    eventually(lambda: count_of(bucket) > before)
    time.sleep(0.5)


def count_of(bucket: str) -> int:
    with urllib.request.urlopen(bucket) as answer:
        return int(answer.read().count(b"<Contents>"))


def small(root: Path) -> list[str]:
    """Modules under SMALL lines that are no seam."""
    return [str(path.relative_to(root)) for path in modules(root) if lines_of(path) < SMALL and not is_seam(path)]


def measures(root: Path) -> dict[str, int]:
    """What can be counted without running anything, by the name that the table has for it."""
    sources = modules(root)
    return {
        "files": len(sources),
        f"of these under {SMALL} lines, and no seam": len(small(root)),
        "lines": sum(map(lines_of, sources)),
        "loose modules at the top": len(loose(root)),
        "class names used more than once": len(doubled_classes(root)),
        "file names used more than once": len(doubled_files(root)),
        "public functions without a docstring": len(without_docstring(root)),
    }


def table(root: Path) -> dict[str, object]:
    """All measures; the files and functions of requests are those of daemons that it starts."""
    entries = {
        f"{name}: files, functions": f"{files}, {functions}" for name, (files, functions) in requests(root).items()
    }
    return {**measures(root), **entries}


if __name__ == "__main__":
    for name, value in table(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()).items():
        print(f"| {name} | {value} |")
