"""What a machine is judged by: versions, open files, memory, and what makes syncs do nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import evolve

from resumable.doctor import machine
from resumable.doctor.machine import MachineFacts

ROOT = Path(__file__).parents[2]
GOOD = MachineFacts((3, 13), (26, 4), (3, 51, 3), 65536, 8 << 30)


def levels(found: MachineFacts) -> dict[str, str]:
    return {each.name: each.level for each in machine.judge(found)}


def test_a_good_machine_is_told_of_in_a_line_for_each():
    assert levels(GOOD) == {"versions": "ok", "open files": "ok", "memory": "ok"}
    assert "SQLite 3.51.3" in machine.judge(GOOD)[0].what


@pytest.mark.parametrize(
    ("changed", "name", "level", "word"),
    [
        ({"python": (3, 15)}, "versions", "warn", "3.11 to 3.14"),
        ({"twisted": (25, 5)}, "versions", "bad", "26.4"),
        ({"twisted": (27, 0)}, "versions", "bad", "before 27"),
        ({"files": 1024}, "open files", "warn", "LimitNOFILE"),
        ({"memory": 100 << 20}, "memory", "warn", "256 MiB"),
    ],
)
def test_what_is_wrong_says_what_to_change(changed, name, level, word):
    (found,) = [each for each in machine.judge(evolve(GOOD, **changed)) if each.level != "ok"]
    assert (found.name, found.level) == (name, level)
    assert word in found.advice


def test_the_versions_are_those_that_the_package_is_made_for():
    setup = (ROOT / "setup.py").read_text()
    named = re.findall(r"Python :: (3)\.(\d+)", setup)
    assert (machine.PYTHON[0], machine.PYTHON[1]) == (tuple(map(int, named[0])), tuple(map(int, named[-1])))
    assert f"twisted[tls]>={machine.TWISTED[0][0]}.{machine.TWISTED[0][1]},<{machine.TWISTED[1][0]}" in setup


def test_memory_is_what_is_free_or_what_is_granted(tmp_path):
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "max"
    meminfo.write_text("MemTotal: 99 kB\nMemAvailable:    2048 kB\n")
    assert machine.look(str(meminfo), str(cgroup)).memory == 2 << 20
    cgroup.write_text("max\n")
    assert machine.look(str(meminfo), str(cgroup)).memory == 2 << 20
    cgroup.write_text("1048576\n")
    assert machine.look(str(meminfo), str(cgroup)).memory == 1 << 20
    assert machine.look(str(tmp_path / "none"), str(tmp_path / "none")).memory is None
    assert [each.what for each in machine.judge(evolve(GOOD, memory=None)) if each.name == "memory"] == [
        "not looked at: this system doesn't tell how much is free"
    ]


def test_a_library_that_makes_syncs_do_nothing_is_found_wherever_it_is(tmp_path):
    for pid, maps in {"self": "libc.so\n", "7": "7f00 r-xp /usr/lib/libeatmydata.so\n"}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "maps").write_text(maps)
    proc = str(tmp_path)
    assert machine.preloaded(("self", 8), proc, "") is None
    assert machine.preloaded(("self", 7), proc, "") == "the daemon has loaded libeatmydata"
    assert machine.preloaded((), proc, "libeatmydata.so") == "LD_PRELOAD has libeatmydata"
