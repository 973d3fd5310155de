"""The upload directory that several servers share, and the database: what is wrong, and what to change."""

from __future__ import annotations

import os

import pytest
from attrs import evolve

from resumable.catalog.postgres.inspection import DatabaseFacts
from resumable.doctor import database, shared_directory
from resumable.doctor.directory import CheckedDirectory, place_of
from resumable.doctor.shared_directory import SharedFacts
from resumable.spool.directory import Mount

HERE = CheckedDirectory("/srv/up", "/srv/up")
WELL = SharedFacts(HERE, None)
NFS = frozenset({"vers=4.1", "hard", "lookupcache=pos"})
SERVER = DatabaseFacts(160000, "16.0", True, True, False, 97, 5, 0.0, 0.001, True, "", True)


@pytest.mark.process
def test_two_processes_of_one_machine_see_each_other_and_nothing_is_left(tmp_path):
    facts = shared_directory.look(place_of(str(tmp_path)), True)
    assert facts.unseen is None and facts.owner is None and facts.marker is None
    (found,) = shared_directory.judge(facts)
    assert found.level == "ok" and "no catalog has used it" in found.what
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("blind", "words"), [("made", "the bytes"), ("linked", "a second name"), ("gone", "was removed")]
)
def test_what_another_process_does_not_see(blind, words, tmp_path):
    looks: list[str] = []

    def seen(path):
        name = os.path.basename(path)
        looks.append(name)
        if blind == "gone" and looks.count("made") == 3:
            return shared_directory._CONTENT
        if name == blind or not os.path.exists(path):
            return None
        with open(path, "rb") as file:
            return file.read()

    unseen = shared_directory._compare(str(tmp_path), seen)
    assert unseen is not None and words in unseen
    (found,) = shared_directory.judge(evolve(WELL, unseen=unseen))
    assert found.level == "bad" and "NFS 4.1" in found.advice


@pytest.mark.parametrize(
    ("facts", "what", "advice"),
    [
        (evolve(WELL, mount=Mount("/srv", "cifs")), "cifs", "hoose another"),
        (evolve(WELL, mount=Mount("/srv", "nfs4", options=NFS - {"vers=4.1"})), "unknown version", "vers=4.1"),
        (evolve(WELL, mount=Mount("/srv", "nfs4", options=NFS - {"hard"})), "soft", "with hard"),
        (evolve(WELL, mount=Mount("/srv", "nfs4", options=NFS - {"lookupcache=pos"})), "names", "lookupcache=positive"),
        (evolve(WELL, owner=10001, me=10002), "uid 10001", "same uid"),
        (evolve(WELL, marker="one x", installation="two"), "another catalog", "--catalog"),
        (evolve(WELL, marker="one x"), "another catalog", "--catalog"),
        (evolve(WELL, installation="one", directory="x"), "not the one", "Mount that"),
        (evolve(WELL, marker="one y", installation="one", directory="x"), "not the one", "Mount that"),
    ],
)
def test_what_is_wrong_with_the_directory_says_what_to_change(facts, what, advice):
    (found,) = shared_directory.judge(facts)
    assert found.level == "bad"
    assert what in found.what and advice in found.advice


@pytest.mark.parametrize(
    "facts",
    [
        evolve(WELL, marker="one x", installation="one", directory="x"),
        evolve(WELL, marker="one x", installation="one"),
        evolve(WELL, installation="one"),
        evolve(WELL, marker="one x", reached=False),
        evolve(WELL, mount=Mount("/srv", "nfs4", options=NFS)),
        evolve(WELL, owner=10001, me=0),
    ],
)
def test_a_directory_that_can_be_shared(facts):
    (found,) = shared_directory.judge(facts)
    assert found.level == "ok"


@pytest.mark.parametrize(
    ("facts", "level", "what", "advice"),
    [
        (evolve(SERVER, version_number=130000), "bad", "too old", "14 or later"),
        (evolve(SERVER, standby=True, read_only=True), "bad", "standby", "primary"),
        (evolve(SERVER, read_only=True), "bad", "read-only", "default_transaction_read_only"),
        (evolve(SERVER, fsync=False), "bad", "fsync = off", "postgresql.conf"),
        (evolve(SERVER, full_page_writes=False), "warn", "full_page_writes", "Turn it on"),
        (evolve(SERVER, may_create=False), "bad", "no tables", "GRANT CREATE"),
        (evolve(SERVER, installation="x", schema_version=9, oldest=9), "bad", "version 9", "Upgrade this release"),
        (evolve(SERVER, connections=94), "bad", "94 of 97", "max_connections"),
        (evolve(SERVER, connections=80), "warn", "80 of 97", "max_connections"),
        (evolve(SERVER, pooled=True, hears=False), "bad", "shares connections", "pool_mode = session"),
        (evolve(SERVER, hears=False), "warn", "not heard", "pool_mode = session"),
        (evolve(SERVER, round_trip=0.02), "warn", "20 ms", "nearer"),
        (evolve(SERVER, ahead=-60.0), "warn", "behind", "NTP"),
    ],
)
def test_what_is_wrong_with_the_database_says_what_to_change(facts, level, what, advice):
    (found,) = [each for each in database.judge(facts) if each.level != "ok"]
    assert (found.name, found.level) == ("database", level)
    assert what in found.what and advice in found.advice


def test_a_good_database():
    (found,) = database.judge(evolve(SERVER, installation="x", schema_version=1, oldest=1, may_create=False))
    assert found.level == "ok" and "PostgreSQL 16.0" in found.what


def test_a_reason_is_parted_from_what_to_change():
    found = database.unreached("PostgreSQL: it is full; make room; correct --catalog")
    assert (found.what, found.advice) == ("PostgreSQL: it is full; make room", "Correct --catalog.")
    assert "--catalog" in database.unreached("PostgreSQL: something else").advice


def test_servers_that_differ_are_told_of_one_by_one():
    assert [each.level for each in database.judge_workers(["--max-size: 1 here, 2 at b"], {"b": {}})] == ["bad"]
    assert "2 run now" in database.judge_workers([], {"a": {}, "b": {}})[0].what
    assert "none" in database.judge_workers([], {})[0].what


def test_a_directory_with_a_catalog_of_its_own_is_bad():
    (found,) = shared_directory.judge(evolve(WELL, has_own_catalog=True))
    assert found.level == "bad" and "a catalog of its own" in found.what
    assert "catalog move --to postgresql" in found.advice
