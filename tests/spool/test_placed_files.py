"""Where a finished file is to go: what a template may say, and what a client's words can't."""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import category

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from resumable.daemon import startup
from resumable.model.errors import StartupError
from resumable.model.keys import BadTemplate
from resumable.model.upload import Place, Upload
from resumable.protocol import metadata
from resumable.spool import Disk, Modes
from resumable.spool.placed_files import PlaceSettings, parse, safe_name, sidecar
from resumable.spool.placing import MAX_NAME, SIDECAR

UPLOAD = Upload("0123456789abcdef", 1_700_000_000.0, 1_700_000_000.0, 3, 3, finished_at=1_700_000_000.0)


def planned(template, upload=UPLOAD, **values):
    pairs = {name: value for name, value in values.items() if name != "owner"}
    upload = evolve(upload, metadata=metadata.encode(pairs) or None, owner=values.get("owner"))
    place = PlaceSettings(Path("/out"), parse(template)).planned(upload)
    assert place is not None and place.stamp is None
    return place.path


def test_fields_are_filled_in():
    path = planned("{year}/{month}/{day}/{owner}/{date}-{metadata[name]}", name="a b.txt", owner="ann")
    assert path == "2023/11/14/ann/2023-11-14-a b.txt"
    assert planned("{id}{{}}") == "0123456789abcdef{}"


@pytest.mark.parametrize("template", ["{owner}/{metadata[name]}"])
def test_what_is_missing_gives_way_to_the_id(template):
    assert planned(template) == "0123456789abcdef/0123456789abcdef"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        ("..", "0123456789abcdef"),
        (".", "0123456789abcdef"),
        ("", "0123456789abcdef"),
        (". . .", "0123456789abcdef"),
        (".htaccess", "htaccess"),
        ("...bashrc", "bashrc"),
        (". x", "x"),
        ("a\\b", "a_b"),
        ("a\0b\n\x7f\u202ec", "abc"),
        ("e\u0301.txt", "é.txt"),
        ("x" * 400 + ".tar", "x" * (MAX_NAME - 4) + ".tar"),
        ("x.info.json", "x_info.json"),
        ("x.INFO.json", "x_INFO.json"),
        (".info.json", "info.json"),
        ("x" * (MAX_NAME - 10) + ".infozzzzzz.json", "x" * (MAX_NAME - 10) + "_info.json"),
    ],
)
def test_what_a_client_calls_its_file_can_do_no_harm(name, expected):
    assert planned("{metadata[name]}", name=name) == expected


HOSTILE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["..", ".", "/", "a/../b", "\0"])
)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_nothing_that_a_client_sends_leaves_the_directory(first, second, owner):
    path = planned("{owner}/{metadata[a]}-{metadata[b]}/{metadata[b]}", a=first, b=second, owner=owner)
    segments = path.split("/")
    assert len(segments) == 3
    for each in segments:
        assert each and not each.startswith(".") and not {"Cc", "Cf", "Zl", "Zp"} & set(map(category, each))
        assert len(each.encode()) <= MAX_NAME and not each.lower().endswith(SIDECAR)


@given(HOSTILE)
def test_a_safe_name_is_safe_again(name):
    assert safe_name(safe_name(name)) == safe_name(name)


def test_partials_and_uploads_without_a_template_have_no_place():
    assert PlaceSettings(Path("/out")).planned(UPLOAD) is None
    assert PlaceSettings(Path("/out"), parse("{id}")).planned(evolve(UPLOAD, concat="partial")) is None
    assert PlaceSettings(Path("/out"), parse("{id}")).planned(UPLOAD) == Place(UPLOAD.id)


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("", "{id}"),
        ("{date}", "{id}"),
        ("{owner}/x", "{id}"),
        ("/{id}", "slash"),
        ("{id}/", "slash"),
        ("a//{id}", "slash"),
        ("../{id}", '".."'),
        (".hidden/{id}", "dot"),
        ("{id}/.{id}", "dot"),
        ("{id", "brace"),
        ("{uuid}", "{owner}"),
        ("a\\{id}", "backslash"),
        ("a\n{id}", "invisible"),
    ],
)
def test_a_template_that_makes_no_safe_path_is_refused_in_one_line(template, word):
    with pytest.raises(BadTemplate) as caught:
        parse(template)
    assert word in str(caught.value) and str(caught.value).startswith("--place") and "\n" not in str(caught.value)


def test_a_sidecar_is_json_whatever_the_metadata():
    upload = evolve(UPLOAD, metadata=metadata.encode({"name": "é\n", "raw": b"\xff"}), partials=("p",))
    said = json.loads(sidecar(upload, "a/é"))
    assert said == {
        "id": UPLOAD.id,
        "path": "a/é",
        "size": 3,
        "metadata": {"name": "é\n", "raw": {"base64": "/w=="}},
        "created_at": "2023-11-14T22:13:20.000Z",
        "finished_at": "2023-11-14T22:13:20.000Z",
        "partials": ["p"],
    }


# -- at the start


@pytest.fixture
def uploads(tmp_path):
    path = tmp_path / "uploads"
    startup.check_directory(str(path), Disk())
    return path


@pytest.mark.parametrize("place", ["uploads/finished", "uploads/a/b", "finished", "x/y/z"])
def test_a_directory_on_the_same_file_system_is_made(uploads, tmp_path, place):
    startup.check_places(str(uploads), str(tmp_path / place), Disk(), None)
    assert list((tmp_path / place).iterdir()) == []
    assert not list((uploads / ".resumable").glob("tmp*"))


def test_the_place_directory_gets_the_mode_of_places_if_it_is_made_here(uploads, tmp_path):
    """The group that may look into the directories in it has to get there; what is the operator's stays as it is."""
    (tmp_path / "there").mkdir(0o711)
    for place in ("there", "made/below"):
        startup.check_places(str(uploads), str(tmp_path / place), Disk(), 0o2750)
    assert [mode(tmp_path / each) for each in ("there", "made", "made/below")] == [0o711, 0o2750, 0o2750]
    startup.check_places(str(uploads), str(tmp_path / "plain"), Disk(Modes(directory=0o710)), None)
    assert mode(tmp_path / "plain") == 0o710


def mode(path):
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize(
    "place", ["uploads", "uploads/.resumable", "uploads/.resumable/x", ".", "uploads/a-name-like-an-id-s", "way"]
)
def test_a_directory_among_the_servers_own_files_is_refused(uploads, tmp_path, place):
    (tmp_path / "way").symlink_to(uploads)
    with pytest.raises(StartupError, match="--place-dir") as caught:
        startup.check_places(str(uploads), str(tmp_path / place), Disk(), None)
    assert "\n" not in str(caught.value)


def test_another_file_system_is_refused(uploads):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == uploads.stat().st_dev:
        pytest.skip("there is no other file system")
    with pytest.raises(StartupError, match="another file system"):
        startup.check_places(str(uploads), str(other), Disk(), None)


def test_one_that_is_no_directory_is_refused(uploads, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartupError, match="can't be written"):
        startup.check_places(str(uploads), str(tmp_path / "file"), Disk(), None)
