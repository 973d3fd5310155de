"""Segments on the real disk and on the simulated one."""

from __future__ import annotations

import pytest

from tests.spool.segment_bench import RealSegmentBench, SimulatedBench
from tests.spool.segment_contract import SegmentContract


class TestSimulated(SegmentContract):
    @pytest.fixture
    def bench(self):
        bench = SimulatedBench()
        yield bench
        bench.turn()
        assert bench.disk.open_files == 0


class TestReal(SegmentContract):
    @pytest.fixture
    def bench(self, directory):
        bench = RealSegmentBench(directory)
        yield bench
        bench.stop()
