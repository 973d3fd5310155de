"""The dashboard, the alerts and the page about them go by the names in the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from resumable.http.watch import METHODS, OTHER, STATUSES
from resumable.metrics.names import METRICS, PREFIX, WORKERS
from resumable.model.upload import GoneReason

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "examples" / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((ROOT / "examples" / "alerts.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]

# Of Prometheus and its client.
OTHERS = {"process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_cpu_seconds_total", "up"}
VALUES = {"method": {*METHODS, OTHER}, "status": set(STATUSES), "reason": {gone.value for gone in GoneReason}}
SAMPLES = {
    sample: metric
    for metric in METRICS.values()
    for sample in (
        [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
        if metric.kind == "histogram"
        else [metric.name]
    )
}


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))
    yield from ((rule["alert"], rule["expr"]) for rule in ALERTS)


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_every_name_is_one_of_ours(where: str, expression: str) -> None:
    names = re.findall(r"\b(?:resumable|process)_[a-z_]+|\bup\b", expression)
    assert names
    assert set(names) <= {*SAMPLES, *OTHERS}, where


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_labels_and_their_values_are_ours(where: str, expression: str) -> None:
    for name, matchers in re.findall(r"(resumable_[a-z_]+)\{([^}]*)\}", expression):
        for label, value in re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', matchers):
            assert label in {*SAMPLES[name].labels, "instance", "job"}, where
            if label in VALUES:
                assert set(value.split("|")) <= VALUES[label], where
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        allowed = {label for name in re.findall(r"resumable_[a-z_]+", expression) for label in SAMPLES[name].labels}
        assert set(re.split(r",\s*", labels)) <= {*allowed, "le", "instance"}, where


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_counters_are_looked_at_as_rates_and_gauges_are_not(where: str, expression: str) -> None:
    for call, name in re.findall(r"(?:\b(\w+)\()?(resumable_[a-z_]+)\{", expression):
        if SAMPLES[name].kind == "gauge":
            assert call not in ("rate", "increase"), where
        else:
            assert call in ("rate", "increase") or "offset" in expression, where


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for panel in DASHBOARD["panels"] for name in re.findall(r"resumable_[a-z_]+", json.dumps(panel))}
    missing = [metric.name for metric in METRICS.values() if not any(name.startswith(metric.name) for name in shown)]
    assert missing == []


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_is_explained(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    section = re.search(rf"^### {rule['alert']}\n\n(.+?)(?:^### |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section and len(section[1]) > 80


def test_no_alert_is_explained_that_is_not_there() -> None:
    assert re.findall(r"^### (Resumable\w+)$", PAGE, re.MULTILINE) == [rule["alert"] for rule in ALERTS]


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_the_page_says_of_each_metric_what_it_means(metric: Any) -> None:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    assert f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |" in PAGE


def test_the_page_names_no_metric_that_is_not_there() -> None:
    named = {name for name in re.findall(rf"\b{PREFIX}\w+", PAGE) if not name.endswith("_")}
    assert named <= {*SAMPLES, *(metric.name for metric in METRICS.values()), WORKERS.name}
