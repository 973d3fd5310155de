"""Dependencies point one way, Twisted's privates are touched in three files, nobody takes the reactor from the air.

Read from the source by `ast`, so that an import inside a function or under TYPE_CHECKING counts as well.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.rooms import PICTURE, ROOMS, picture

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "resumable"

STANDARD_LIBRARY_ONLY = {"protocol": frozenset({"http_sf"})}
"""Rooms that import nothing else, but for these: structured fields are grammar, without input or output."""
MAY_TOUCH_PRIVATES = frozenset(
    {
        "resumable/http/twisted_web.py",
        "resumable/listening/twisted_tls.py",
        "resumable/aio/transports.py",
        "resumable/cli/described.py",  # argparse doesn't tell what a parser takes
    }
)
MAY_IMPORT_THE_REACTOR = frozenset({"resumable/daemon/service.py"})

#: Names that are documented, although they begin with an underscore.
DOCUMENTED = frozenset({"_exit"})

SOURCES = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py"))


@functools.cache
def parsed(source: str) -> tuple[ast.Module, list[ast.AST]]:
    """The tree, and all that is in it."""
    tree = ast.parse(source)
    return tree, list(ast.walk(tree))


@pytest.fixture(autouse=True, scope="module")
def forget() -> Iterator[None]:
    """Half a million nodes would slow the collection of garbage for all tests after these."""
    yield
    parsed.cache_clear()


def imported(nodes: Iterable[ast.AST], module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, ``from a import b`` as ``a.b``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".") if is_package else module.split(".")[:-1]
                parents = parents[: len(parents) - (node.level - 1)]
                base = ".".join([*parents, node.module] if node.module else parents)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(dotted: str) -> str | None:
    """The room that a name of ours lives in; None for the package itself."""
    parts = dotted.split(".")
    return None if len(parts) < 2 or parts[1] in ("__init__", "__version__") else parts[1]


def wrong_imports(source: str, path: str) -> list[str]:
    """Each import that goes against the direction."""
    module, is_package = dotted(path)
    room = room_of(module)
    found = []
    for line, name in imported(parsed(source)[1], module, is_package):
        top = name.split(".")[0]
        if top != "resumable":
            allowed = STANDARD_LIBRARY_ONLY.get(room or "")
            if allowed is not None and top not in sys.stdlib_module_names | allowed:
                found.append(f"{path}:{line}: {room} is standard library only, not {name}")
            continue
        target = room_of(name)
        if room is None:
            found.append(f"{path}:{line}: the package itself imports nothing of ours, not {name}")
        elif target is not None and target != room and target not in ROOMS.get(room, frozenset()):
            found.append(f"{path}:{line}: {room} may not import {name}")
    return found


def own_privates(nodes: Iterable[ast.AST]) -> set[str]:
    """Names with an underscore that the file itself defines: its classes may know each other."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return names


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def private_touches(source: str, path: str) -> list[str]:
    """Each use of somebody else's private name."""
    _, nodes = parsed(source)
    own = own_privates(nodes)
    found = [
        f"{path}:{node.lineno}: .{node.attr} is somebody else's private"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and not is_self(node.value)
        and node.attr not in own | DOCUMENTED
    ]
    found += [
        f"{path}:{line}: {name} is a private module or name"
        for line, name in imported(nodes, "resumable", True)
        if not name.startswith("resumable.") and name != "__future__" and any(is_private(p) for p in name.split("."))
    ]
    return found


def module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Everything that runs when the module is imported."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def reactor_imports(source: str, path: str) -> list[str]:
    """Each import of the global reactor that runs when the module is imported."""
    return [
        f"{path}:{line}: {name} at module level"
        for node in module_level(parsed(source)[0])
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line, name in imported([node], "resumable", True)
        if name.startswith("twisted.internet.reactor")
    ]


def dotted(path: str) -> tuple[str, bool]:
    """The name of the module in that file, and whether it is a package."""
    parts = Path(path).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


def circle(sources: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle; ``sources`` by path. Imports for types alone count."""
    modules = {dotted(path)[0] for path in sources}
    graph = {}
    for path, source in sources.items():
        module, is_package = dotted(path)
        names = {name for _, name in imported(parsed(source)[1], module, is_package)}
        needed = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = needed & modules - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def found(rule: Callable[[str, str], list[str]], allowed: frozenset[str] = frozenset()) -> list[str]:
    """What the rule finds in all sources but those that are allowed it."""
    return [
        each
        for path in SOURCES
        if path not in allowed
        for each in rule((ROOT / path).read_text(encoding="utf-8"), path)
    ]


def test_imports_go_one_way():
    assert not found(wrong_imports)


def test_only_a_few_files_touch_privates_of_others():
    assert not found(private_touches, MAY_TOUCH_PRIVATES)


def test_the_reactor_is_passed_in():
    assert not found(reactor_imports, MAY_IMPORT_THE_REACTOR)


def test_every_room_has_its_place_in_the_direction():
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert rooms - {"__init__"} <= set(ROOMS)


def test_rooms_do_not_go_round_in_a_circle():
    seen: set[str] = set()
    while len(seen) < len(ROOMS):
        ready = {room for room, below in ROOMS.items() if room not in seen and below <= seen}
        assert ready, f"a circle among {set(ROOMS) - seen}"
        seen |= ready


def test_modules_do_not_import_each_other_in_a_circle():
    assert not circle({path: (ROOT / path).read_text(encoding="utf-8") for path in SOURCES})


def test_the_check_sees_a_circle_of_modules():
    lazy = "def f():\n    from resumable.spool.disk import LocalDisk"
    assert circle({"resumable/spool/disk.py": "from resumable.spool import files", "resumable/spool/files.py": lazy})


def test_the_picture_of_the_rooms_is_that_of_the_table():
    assert PICTURE.read_text(encoding="utf-8") == picture(), "run: make docs"


WRONG_WAY = [
    ("resumable/protocol/rules.py", "import attrs"),
    ("resumable/protocol/rules.py", "from resumable.model.upload import Upload"),
    ("resumable/model/upload.py", "from resumable.spool import files"),
    ("resumable/spool/files.py", "from resumable.catalog.sqlite import SqliteCatalog"),
    ("resumable/spool/files.py", "from ..uploads import append"),
    ("resumable/uploads/append.py", "def f():\n    import resumable.http.tus"),
    ("resumable/uploads/append.py", "from resumable import replication"),
    ("resumable/http/tus.py", "if TYPE_CHECKING:\n    from resumable.daemon.service import makeService"),
    ("resumable/http/tus.py", "from resumable.config.options import Settings"),
    ("resumable/config/options.py", "from resumable.uploads import append"),
    ("resumable/__init__.py", "from resumable.daemon.service import makeService"),
]
RIGHT_WAY = [
    (
        "resumable/protocol/rules.py",
        "import hashlib\nfrom resumable.protocol.errors import TusError\nfrom . import headers",
    ),
    ("resumable/uploads/append.py", "from resumable import __version__\nfrom resumable.spool.files import Spool"),
    ("resumable/daemon/service.py", "from resumable.config.options import Options\nfrom resumable.http import tus"),
    ("resumable/catalog/__init__.py", "from .sqlite import SqliteCatalog\nfrom ..aio.threads import Batcher"),
]


@pytest.mark.parametrize(("path", "source"), WRONG_WAY)
def test_the_check_sees_an_import_against_the_direction(path, source):
    assert wrong_imports(source, path)


@pytest.mark.parametrize(("path", "source"), RIGHT_WAY)
def test_the_check_lets_an_import_in_the_direction_pass(path, source):
    assert not wrong_imports(source, path)


@pytest.mark.parametrize(
    "source", ["request.channel._transferDecoder", "from twisted.web._http2 import H2Stream", "super()._send()"]
)
def test_the_check_sees_privates_of_others(source):
    assert private_touches(source, "x.py")


def test_the_check_lets_a_file_use_its_own_privates():
    source = "class A:\n    def __init__(self): self._n = 1\n    def __eq__(self, other): return self._n == other._n"
    assert not private_touches(source, "x.py")


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("from twisted.internet import reactor", True),
        ("if True:\n    import twisted.internet.reactor", True),
        ("def main():\n    from twisted.internet import reactor", False),
    ],
)
def test_the_check_sees_the_reactor_at_module_level_only(source, seen):
    assert bool(reactor_imports(source, "x.py")) is seen
