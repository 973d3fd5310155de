"""The house stays as tidy as it is: its measures may fall, and may rise no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).resolve().parent.parent
BOUNDS = {
    "files": 450,
    f"of these under {house.SMALL} lines, and no seam": 1,
    "lines": 81_900,
    "loose modules at the top": 2,
    "class names used more than once": 0,
    "file names used more than once": 32,
    "public functions without a docstring": 0,
}
"""The most of each. Who has less writes the lower number here."""

LONG = "\n".join(f"N{number} = {number}" for number in range(house.SMALL)) + "\n"
SOURCES = {
    "__init__.py": "",
    "__main__.py": "print()\n",
    "loose.py": LONG,
    "short.py": "A = 1\nB = 2\n",
    "one/__init__.py": "",
    "one/interfaces.py": """
class IStore(Interface):
    def store(key): ...
    def forget(key):
        "Forget it."
""",
    "one/same.py": """
class Twice:
    def store(self, key): ...
    def told(self):
        "Says so."
    def silent(self): ...
    async def silent_too(self): ...
    def buildProtocol(self): ...
    def _own(self): ...

class _Hidden:
    def silent(self): ...

class Once: ...
class _Private: ...
def silent(): ...
def _own(): ...
""",
    "two/__init__.py": "",
    "two/same.py": LONG
    + """
class Twice: ...
class _Private: ...
def outer():
    "Has one inside."
    def silent(): ...
    class Once: ...
""",
    "two/seam.py": "class IFront(Interface): ...\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A made-up package, of two rooms and two loose modules."""
    for name, source in SOURCES.items():
        path = tmp_path / "resumable" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "elsewhere.py").write_text("class Twice: ...\ndef silent(): ...\n")
    return tmp_path


@pytest.fixture(scope="module")
def ours() -> dict[str, int]:
    return house.measures(ROOT)


@pytest.mark.parametrize("name", BOUNDS)
def test_no_measure_rises_above_its_bound(ours: dict[str, int], name: str) -> None:
    assert ours[name] <= BOUNDS[name]


def test_each_measure_has_a_bound(ours: dict[str, int]) -> None:
    assert ours.keys() == BOUNDS.keys()


def test_modules_are_all_of_the_package_and_nothing_else(root: Path) -> None:
    assert [str(path.relative_to(root / "resumable")) for path in house.modules(root)] == sorted(SOURCES)


def test_a_file_has_as_many_lines_as_it_has_ends_of_lines(root: Path) -> None:
    assert [house.lines_of(root / "resumable" / name) for name in ("__init__.py", "short.py", "loose.py")] == [0, 2, 30]


def test_entry_points_fronts_of_packages_and_interfaces_are_seams(root: Path) -> None:
    seams = [name for name in SOURCES if house.is_seam(root / "resumable" / name)]
    assert seams == [
        "__init__.py",
        "__main__.py",
        "one/__init__.py",
        "one/interfaces.py",
        "two/__init__.py",
        "two/seam.py",
    ]


def test_a_module_under_thirty_lines_is_small_where_it_is_no_seam(root: Path) -> None:
    assert house.small(root) == ["resumable/one/same.py", "resumable/short.py"]


def test_a_class_is_doubled_by_its_name_at_the_top_of_another_module_unless_it_is_private(root: Path) -> None:
    assert house.doubled_classes(root) == ["Twice"]


def test_a_file_is_doubled_by_its_name_in_another_room_unless_each_room_has_it(root: Path) -> None:
    assert house.doubled_files(root) == ["same.py"]


def test_modules_at_the_top_are_loose_unless_they_are_entry_points(root: Path) -> None:
    assert house.loose(root) == ["loose.py", "short.py"]


def test_methods_of_interfaces_are_those_of_their_bodies(root: Path) -> None:
    assert house.interface_methods(root) == {"store", "forget"}


def test_a_public_function_needs_a_docstring_where_no_interface_and_not_twisted_describes_it(root: Path) -> None:
    assert house.without_docstring(root) == [
        "resumable/one/same.py:6 Twice.silent",
        "resumable/one/same.py:7 Twice.silent_too",
        "resumable/one/same.py:16 silent",
    ]


def test_the_measures_are_how_many_there_are_of_each(root: Path) -> None:
    assert list(house.measures(root).values()) == [10, 2, sum(s.count("\n") for s in SOURCES.values()), 2, 1, 1, 3]


def test_the_path_of_a_url_is_what_comes_after_its_host() -> None:
    assert house.path_of("http://127.0.0.1:8080/files/a/b") == "/files/a/b"
