"""The modules of the channel, of HTTP/1.1 and HTTP/2, import each other in one direction."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def path_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def imports_of(module: str) -> set[str]:
    """The modules of http/ that it imports, those for types alone included."""
    nodes = [node for node in ast.walk(ast.parse(path_of(module).read_text())) if isinstance(node, ast.ImportFrom)]
    names = {str(node.module) for node in nodes}
    names |= {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return {name for name in names if name.startswith("resumable.http.") and path_of(name).is_file()}


def test_the_modules_that_a_site_needs_do_not_import_each_other_in_a_circle() -> None:
    waiting, graph = {"resumable.http.site"}, dict[str, set[str]]()
    while waiting:
        module = waiting.pop()
        graph[module] = imports_of(module)
        waiting |= graph[module] - graph.keys()
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order[-1] == "resumable.http.site"
    assert order.index("resumable.http.h2.link") < order.index("resumable.http.h2.stream")


def test_what_is_in_h1_needs_no_connection() -> None:
    assert not imports_of("resumable.http.h1")
