"""The soak works: a small one, with each kind of restart, finds nothing wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.waiting import long

from .diskless import DisklessSoak
from .shared import SharedPlan, SharedSoak
from .soak import Plan, Soak


@pytest.mark.slow
def test_nothing_is_lost_nothing_is_left_and_everything_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soak = Soak(Plan(clients=3, restarts=3, troubles=2, seconds=0.5), tmp_path, print)
    soak.run()
    assert not soak.ledger.problems, "\n".join(soak.ledger.problems[:10])
    assert len(soak.ledger.promises) > 10
    assert "at rest" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["diskless", pytest.param("nodes", marks=long), pytest.param("workers", marks=long)])
def test_several_processes_lose_nothing_when_they_die_and_stand_still(
    shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times depend on the machine: nothing here has a bound that a busy one could miss."""
    first = ("kill_keeper", "freeze_keeper", "kill_assembly", "database_quits")
    if shape == "diskless":
        first = ("kill_part", "freeze_piece", "kill_complete", "store_down", "database_quits")
    plan = SharedPlan(*(shape, 3, 0, 0, 0.3), longest=2.0, bound=None, sweeps=False, expiry=900.0, seed=7, first=first)
    soak = (DisklessSoak if shape == "diskless" else SharedSoak)(plan, tmp_path, print)
    soak.run()
    assert not soak.ledger.problems, "\n".join(soak.ledger.problems[:10])
    assert len(soak.ledger.promises) > 10
    assert "at rest" in capsys.readouterr().out
