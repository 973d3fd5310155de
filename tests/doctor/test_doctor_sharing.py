"""Permissions: who else can read uploads, and who is meant to and can't."""

from __future__ import annotations

import pytest

from resumable.doctor import directory
from resumable.doctor.directory import place_of
from resumable.spool import Modes
from resumable.spool.placed_files import PlaceSettings, parse
from resumable.spool.placing import Rules


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """As if anybody could get to it: where tests may write, that isn't so."""
    path = tmp_path / "uploads"
    path.mkdir()
    really = directory._mode
    monkeypatch.setattr(
        directory, "_mode", lambda each: really(each) | (0o011 if each in tmp_path.parents or each == tmp_path else 0)
    )
    return path


def found(uploads, modes=None, places=None):
    places = places or PlaceSettings(uploads / "finished")
    return directory.judge_permissions(directory.look_at_permissions(place_of(str(uploads)), modes or Modes(), places))


def file(uploads, mode):
    (uploads / ("a" * 32)).touch()
    (uploads / ("a" * 32)).chmod(mode)


@pytest.mark.parametrize(
    ("directory", "mode", "modes", "level"),
    [
        (0o755, 0o644, Modes(), "warn"),
        (0o750, 0o640, Modes(), "warn"),
        (0o711, 0o604, Modes(), "warn"),
        (0o755, 0o644, Modes(0o640), "warn"),
        (0o700, 0o644, Modes(), "ok"),
        (0o750, 0o604, Modes(), "ok"),
        (0o755, 0o600, Modes(), "ok"),
        (0o755, 0o644, Modes(0o644, 0o755), "ok"),
        (0o750, 0o640, Modes(0o640), "ok"),
    ],
)
def test_files_that_others_can_read_without_being_meant_to(uploads, directory, mode, modes, level):
    file(uploads, mode)
    uploads.chmod(directory)
    (finding,) = found(uploads, modes)
    assert (finding.name, finding.level) == ("permissions", level)
    if level == "warn":
        assert f"mode {mode:04o}" in finding.what and f"chmod -R go-rwx {uploads}" in finding.advice


@pytest.mark.parametrize(
    ("directory", "mode", "level"),
    [(0o755, 0o755, "warn"), (0o750, 0o710, "warn"), (0o700, 0o755, "ok"), (0o750, 0o701, "ok"), (0o755, 0o700, "ok")],
)
def test_what_the_daemon_keeps_for_itself_is_nobody_elses(uploads, directory, mode, level):
    (uploads / ".resumable").mkdir()
    (uploads / ".resumable").chmod(mode)
    uploads.chmod(directory)
    (finding,) = found(uploads, Modes(0o644, 0o755))
    assert finding.level == level
    assert level == "ok" or finding.advice == f"chmod 700 {uploads}/.resumable"


def shared(uploads, where):
    return PlaceSettings(where, parse("{id}"), Rules(directory_mode=0o2750))


def test_a_place_directory_that_was_there_before_its_mode(uploads):
    (uploads.parent / "out").mkdir(0o700)
    (finding,) = found(uploads, places=shared(uploads, uploads.parent / "out"))
    assert finding.level == "warn" and finding.advice == f"chmod 2750 {uploads.parent / 'out'}"
    (uploads.parent / "out").chmod(0o2750)
    assert [each.level for each in found(uploads, places=shared(uploads, uploads.parent / "out"))] == ["ok"]


def test_a_group_that_cannot_get_to_what_it_may_read(uploads):
    uploads.chmod(0o700)
    (finding,) = found(uploads, places=shared(uploads, uploads / "finished"))
    assert finding.level == "warn" and finding.advice.startswith(f"chmod 710 {uploads}, or")
    uploads.chmod(0o710)
    assert [each.level for each in found(uploads, places=shared(uploads, uploads / "finished"))] == ["ok"]


def test_a_directory_that_will_be_made_is_nothing_to_speak_of(uploads):
    assert [each.level for each in found(uploads / "later")] == ["ok"]


def test_what_begins_with_a_dot_is_no_upload(uploads):
    """A checkout has `uploads/.gitkeep`."""
    uploads.chmod(0o755)
    (uploads / ".gitkeep").touch()
    (uploads / ".gitkeep").chmod(0o644)
    assert [each.level for each in found(uploads)] == ["ok"]
