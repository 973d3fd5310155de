"""The benchmark works: its arithmetic, its reading of answers, and a small run against the service itself."""

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import dashboard, rivals, segments, spool, store
from bench.__main__ import MEASURES
from bench.figures import FIGURES, TARGETS, Sample, Target, judge, ratio, spread
from bench.load import LoadError
from bench.picture import draw
from bench.report import Run, document, limits, load, table
from bench.scaling import BLOCKS, WORK, Costs, goals, growing, growth, large, rewrite, small, text
from bench.servers import KINDS
from bench.storm import complete
from tests.waiting import long

ROOT = Path(__file__).resolve().parent.parent
SCALING = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
RATE = FIGURES[0]
SAMPLES = [
    Sample("big", "resumable", 0, {"rate": 900.0}),
    Sample("big", "tus-node", 0, {"rate": 300.0}),
    Sample("big", "resumable", 1, {"rate": 400.0}),
    Sample("big", "tus-node", 1, {"rate": 200.0}),
    Sample("big", "resumable", 2, {"rate": 1000.0}),
    Sample("big", "tus-node", 2, {"rate": 400.0}),
]


def test_a_figure_is_the_median_with_the_least_and_the_greatest() -> None:
    found = spread(SAMPLES, RATE, "resumable")
    assert found is not None
    assert (found.low, found.median, found.high) == (400.0, 900.0, 1000.0)


def test_a_comparison_is_the_median_of_the_ratios_of_each_round() -> None:
    assert ratio(SAMPLES, RATE, "tus-node") == 2.5
    assert judge(SAMPLES, Target("big", "rate", 2.5, "tus-node")) is True
    assert judge(SAMPLES, Target("big", "rate", 2.6, "tus-node")) is False


def test_a_promise_without_samples_is_neither_kept_nor_broken() -> None:
    assert judge(SAMPLES, Target("big", "rate", 4.0, "rustus")) is None


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 201 Created\r\nLocation: /x\r\n", False),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\no", False),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
    ],
)
def test_the_end_of_an_answer_is_seen(answer: bytes, whole: bool) -> None:
    assert complete(answer) is whole


def test_every_figure_and_every_promise_is_of_something_measured() -> None:
    assert {figure.measure for figure in FIGURES} == set(MEASURES)
    told = {(figure.measure, figure.field) for figure in FIGURES}
    assert {(target.measure, target.field) for target in TARGETS} <= told
    assert len(told) == len(FIGURES)


def test_several_promises_for_one_figure_are_each_judged() -> None:
    before = [Sample("big", "before", pair, {"rate": 250.0}) for pair in range(3)]
    rustus = [Sample("big", "rustus", pair, {"rate": 450.0}) for pair in range(3)]
    line = next(line for line in table(Run(samples=[*SAMPLES, *before, *rustus])).splitlines() if "MiB/s" in line)
    assert "| 3.60 x | 2.50 x | 2.00 x |" in line
    assert "at least 2.6 x rustus: **missed**; at least 3.4 x @tus/server: **missed**" in line
    assert "tusd" not in line


def shared(measure: str, server: str, *rates: float, **values: float) -> list[Sample]:
    """Samples of a rate, round by round; the costs are the same in each."""
    return [Sample(measure, server, pair, {"rate": rate, **values}) for pair, rate in enumerate(rates)]


SCALED = Run(
    machine={"cores": "2"},
    samples=[
        *shared("creation", "resumable", 4000.0, 2000.0, 3000.0, cpu=0.2),
        *shared("creation", "postgres", 3000.0, 1600.0, 2100.0, cpu=0.25, database=0.035, client=0.015, log=500.0),
        *shared("creation", "workers", 5400.0, 3200.0, 3150.0),
        *shared("tls-parallel", "postgres", 1024.0, cpu=0.8, database=0.0, client=0.4),
        *shared("tls-parallel", "workers", 1105.92),
        *shared("parallel", "postgres", 1500.0, cpu=0.7, database=0.064),
        Sample("killed", "postgres", 0, {"longest": 1.5}),
        Sample("elsewhere", "postgres", 0, {"silent": 0.2005, "frozen": 0.202, "round-trip": 0.0005}),
    ],
)


def test_two_workers_beside_one_are_told_with_what_they_can_reach() -> None:
    """Client and database need a fifth of what the worker needs, and one worker keeps 0.63 of two cores busy."""
    found = growth(SCALED, "creation", 1e-3)
    assert found == pytest.approx((1.8, 0.2, 2 / 1.2, 2 / (0.3 * 2.1)))
    over_tls = growth(SCALED, "tls-parallel", 1 / 1024)
    assert over_tls == pytest.approx((1.08, 0.5, 2 / 1.5, 2 / 1.2))


def test_each_goal_of_several_workers_is_judged() -> None:
    told = {line.split(" | ")[0].strip("| "): line for line in goals(SCALED).splitlines()}
    assert "| 0.75 x | reached |" in told["creation-with-upload of 4 KiB, one worker with PostgreSQL beside SQLite"]
    small_files = told["creation-with-upload of 4 KiB, two workers beside one"]
    assert "1.80 x: 1.08 of the ceiling, 1.67 x (c = 0.20); 0.57 of the bound, 3.17 x | reached |" in small_files
    assert "1.08 x: 0.81 of the ceiling, 1.33 x" in told["8 PATCHes over TLS, two workers beside one"]
    assert "**missed**" in told["8 PATCHes over TLS, two workers beside one"]
    assert "| 1.500 s | **missed** |" in told["a server is killed: longest until an upload goes on elsewhere"]
    assert "(1.0 ms) | 0.201 s | reached |" in told["HEAD, then PATCH elsewhere, the client is silent, slowest"]
    assert "| **missed** |" in told["HEAD, then PATCH elsewhere, the process is frozen, slowest"]
    assert "not measured" in told["PATCH of 256 MiB, one worker with PostgreSQL beside SQLite"]


def test_sizes_are_worked_out_from_measured_costs() -> None:
    assert Costs.of(SCALED) == pytest.approx((0.7, 0.8, 0.25e-3, 0.035e-3, 0.5e-3, 500.0))
    assert "| 10 Gbit/s | 1.2 | 1.2 | 1.3 | 149 | 0.11 |" in large(SCALED)
    assert "| 10,000 | 3.6 | 0.5 | 5.0 MB |" in small(SCALED)
    assert "| 8 | 22,400 | 1.1 | 69 | 60 |" in growing(SCALED)


def test_the_tables_of_several_workers_take_their_places_in_the_page() -> None:
    page = "a\n<!-- bench: small -->\nold\n<!-- /bench -->\nb\n<!-- bench: where -->\n<!-- /bench -->\n"
    new = rewrite(page, SCALED)
    assert new == rewrite(new, SCALED)
    assert small(SCALED) in new and "old" not in new and "cores: 2" in new
    assert set(re.findall("<!-- bench: (.*) -->", SCALING)) == {*BLOCKS, "where", *spool.BLOCKS}


DISKLESS = Run(
    samples=[
        Sample("spool-big", "resumable", 0, {"rate": 200.0, "answered": 300.0, "cpu": 2.0}),
        Sample("spool-big", "diskless", 0, {"rate": 150.0, "answered": 190.0, "cpu": 1.8}),
        Sample("spool-big", "resumable", 1, {"rate": 100.0, "answered": 300.0, "cpu": 2.0}),
        Sample("spool-big", "diskless", 1, {"rate": 90.0, "answered": 97.0, "cpu": 2.4}),
        Sample("spool-pieces", "diskless", 0, {"requests": 9.0, "UploadPart": 7.0}),
        Sample("spool-pieces", "diskless", 1, {"requests": 13.0, "UploadPart": 11.0}),
        Sample("spool-pieces", "tus-node", 0, {"requests": 1193.0}),
        Sample("spool-stuck", "diskless", 0, {"killed": 0.1, "frozen": 1.2}),
        Sample("bill-files", "diskless", 0, {"log": 2.0 * 1024 * 1024, "UploadPart": 128.0, "GetObject": 10.0}),
        Sample("bill-files", "diskless", 1, {"log": 4.0 * 1024 * 1024, "UploadPart": 128.0, "DeleteObjects": 3.0}),
    ]
)


def test_nodes_without_disks_are_judged_by_the_worst_count_and_the_ratio_of_each_round() -> None:
    lines = [line.strip("| ").split(" | ") for line in spool.goals(DISKLESS).splitlines()]
    told = {line[0]: line[1:] for line in lines}
    pieces = told["requests for 50 MiB in 200 PATCHes of 256 KiB, at one node"]
    assert pieces == ["13", "12", "**missed**", "\N{EN DASH}", "1,193", "1,183"]
    speed = told["512 MiB in one PATCH until it is acknowledged, beside the time until the store has it"]
    assert speed[0].startswith("144 MiB/s: 0.96 x ±") and speed[2:4] == ["reached", "150 MiB/s"]
    assert told["processor seconds for each GiB of these"][2] == "**missed**"
    assert told["a node is killed: longest until an upload goes on at another"][:3] == ["0.100 s", "1 s", "reached"]
    assert told["a node is frozen: longest until an upload goes on at another"][2] == "**missed**"
    assert told["requests for a file of 4 KiB in one request"][2] == "not measured"


def test_the_bill_is_by_kind_and_has_its_price() -> None:
    told = {line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in spool.bill(DISKLESS).splitlines()}
    assert told["`UploadPart`"] == "128" and told["`GetObject`"] == "5" and told["`DeleteObjects`"] == "2"
    assert told["price of these at AWS, US dollars"] == "0.0006"
    assert told["bytes written to PostgreSQL (WAL)"] == "3.00 MiB"
    page = "<!-- bench: bill -->\nold\n<!-- /bench -->\n<!-- bench: small -->\nkept\n<!-- /bench -->\n"
    new = spool.rewrite(page, DISKLESS)
    assert spool.bill(DISKLESS) in new and "kept" in new and "old" not in new


def test_what_was_not_measured_is_no_number() -> None:
    assert "nan" not in spool.text(Run())
    assert "nan" not in text(Run())
    assert set(WORK) <= set(MEASURES)


def test_the_limits_have_a_table_of_their_own() -> None:
    run = Run(samples=[*SAMPLES, *(Sample("big", "least", pair, {"rate": 1000.0}) for pair in range(3))])
    assert "the least program" not in table(run)
    assert "| 900 (400–1,000) | 1,000 | 0.90 x |" in limits(run)  # noqa: RUF001
    assert limits(run) in document(run)


def test_without_its_tools_a_real_path_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(rivals.Unavailable, match="ip is not installed"):
        segments.prepare()


@pytest.mark.process
def test_the_variable_tusd_names_the_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "some-tusd"
    monkeypatch.setenv("TUSD", str(binary))
    with pytest.raises(rivals.Unavailable, match="names no program"):
        rivals.tusd()
    binary.write_text("#!/bin/sh\necho 'Version: v2.99.0'\necho 'Commit: x'\n")
    binary.chmod(0o755)
    assert rivals.has_tusd()
    assert rivals.tusd() == "v2.99.0"
    assert KINDS["tusd"].command(1080, tmp_path)[0] == str(binary)


@pytest.mark.process
def test_before_is_the_tree_of_its_commit_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rivals, "CACHE", tmp_path)
    try:
        assert rivals.before() == rivals.BEFORE
    except rivals.Unavailable as error:
        pytest.skip(str(error))
    (tmp_path / "before/resumable/__init__.py").unlink()
    (tmp_path / "before/resumable").rename(tmp_path / "before/other")
    (tmp_path / "before/resumable").mkdir()
    with pytest.raises(rivals.Unavailable, match="another resumable"):
        rivals.before()


@pytest.mark.process
def test_without_its_commit_before_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rivals, "CACHE", tmp_path)
    monkeypatch.setattr(rivals, "BEFORE", "0" * 40)
    with pytest.raises(rivals.Unavailable, match="no commit"):
        rivals.before()


def test_no_figure_is_made_of_refusals() -> None:
    with pytest.raises(LoadError, match="503"):
        complete(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(LoadError, match="201"):
        complete(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", b"204")


def test_a_report_names_what_is_missing_and_can_be_made_again_from_its_file(tmp_path: Path) -> None:
    run = Run({"cores": "2"}, {"resumable": "1"}, list(SAMPLES), {"all/rustus": "cargo is not installed"})
    run.save(tmp_path / "run.json")
    again = load([tmp_path / "run.json"])
    assert document(again) == document(run)
    assert "2.50 x" in table(again)
    assert "cargo is not installed" in document(again)
    assert "missed" in document(again)
    assert draw(again).startswith("<svg")


def test_the_dashboard_is_drawn_from_what_its_own_queries_find() -> None:
    asked: list[str] = []

    def ask(query: str) -> list[dict[str, object]]:
        asked.append(query)
        labels = {"status": "2xx", "method": "PATCH", "remote": "s3://bucket/t16b8cfb34ce4"}
        return [{"metric": labels, "values": [[100, "1"], [110, "NaN"], [120, "3000"]]}]

    known = json.loads((ROOT / "examples/grafana-dashboard.json").read_text(encoding="utf-8"))
    picture = dashboard.draw(known, ask, 100, 120)
    assert "2xx" in picture and "PATCH median" in picture and "3 k/s" in picture and "2.93 KiB" in picture
    assert "t16b8cfb34ce4" not in picture
    assert not any("$" in query for query in asked)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(find_spec("resumable.daemon.service") is None, reason="resumable.daemon.service is not there")
@pytest.mark.skipif(not Path("/proc/self/status").exists() or not Path("/dev/shm").is_dir(), reason="needs Linux")
@pytest.mark.parametrize(
    "part",
    [
        ["--only", "big,patches,creation,draft-creation,draft-append,open,s3-big,s3-small,takeover,http2,mtu-1500"],
        pytest.param([], marks=long),
    ],
)
def test_the_benchmark_runs_and_every_byte_it_sends_is_kept(part: list[str]) -> None:
    command = [sys.executable, "-m", "bench", "--smoke", *part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists() or not Path("/dev/shm").is_dir(), reason="needs Linux")
@pytest.mark.parametrize(
    "part",
    [
        ["--only", "tls-parallel,two-nodes", "--servers", "postgres"],
        pytest.param([], marks=long),
    ],
)
def test_what_several_workers_give_is_measured(part: list[str]) -> None:
    command = [sys.executable, "-m", "bench", "--scaling", "--smoke", *part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert part or "not measured" not in done.stdout


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(shutil.which("curl") is None or not Path("/dev/shm").is_dir(), reason="needs Linux and curl")
@pytest.mark.parametrize(
    ("part", "told"),
    [
        (["bench.sending", "1", "2000000"], r"put +[\d.]+ s .*\n.*\nmost memory of put: \d+ MiB"),
        (["bench.watchers", "20", "2", "1"], r"20 watchers of 2 uploads, 20 still there"),
    ],
)
def test_what_faces_cost_is_measured(part: list[str], told: str) -> None:
    command = [sys.executable, "-m", *part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and re.search(told, done.stdout), done.stdout + done.stderr


@long
@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists() or not Path("/dev/shm").is_dir(), reason="needs Linux")
def test_what_nodes_without_disks_ask_of_their_store_is_measured() -> None:
    try:
        store.binary()
    except rivals.Unavailable as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "bench", "--spool", "--smoke", "--only", "spool-4k,spool-big,bill-chunks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
