"""The soak works: a small one, with each kind of restart, finds nothing wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

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
