"""The server starts with the environment of each plain manifest, answers the probes, and ends within the time it gets.

Only the directories, the database and the ports are others.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.postgres import database
from tests.waiting import free_port

from .daemon import ROOT, Daemon, environment


@pytest.fixture(scope="module", params=["one.yaml", "several.yaml", "several.yaml with two workers"])
def pod(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A daemon in the place of a pod, its container as the manifest has it, and the port of its metrics."""
    name, _, more = request.param.partition(" ")
    text = (ROOT / "deploy" / "kubernetes" / name).read_text(encoding="utf-8")
    (deployment,) = [each for each in yaml.safe_load_all(text) if each["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    home: Path = tmp_path_factory.mktemp("pod")
    given = {each["name"]: each.get("value") for each in container["env"]}
    assert given.pop("RESUMABLE_UPLOAD_DIR") == "/app/uploads"
    metrics = free_port()
    given["RESUMABLE_ADMIN_LISTEN"] = given["RESUMABLE_ADMIN_LISTEN"].replace("tcp:9090", f"tcp:{metrics}")
    if "RESUMABLE_CATALOG" in given:
        given |= {"RESUMABLE_CATALOG": database(), "RESUMABLE_RUN_DIR": str(home / "run")}
        (home / "run").mkdir(mode=0o777)  # as an emptyDir is
    if more:
        given["RESUMABLE_WORKERS"] = "2"
    with Daemon(env=given) as daemon:
        daemon.start()
        yield daemon, container, metrics


def status(port: int, path: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return int(answer.status)


def test_the_probes_are_answered(pod):
    daemon, container, metrics = pod
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert status(daemon.port, path) == status(metrics, path) == 200
    assert status(metrics, "/metrics") == 200


def test_the_command_in_the_pod_finds_the_server(pod):
    """As in ``kubectl exec deployment/resumable -- resumable ls``."""
    daemon, _, _ = pod
    env = environment({**daemon.env, "RESUMABLE_UPLOAD_DIR": str(daemon.upload_dir)})
    command = [sys.executable, "-m", "resumable", "ls"]
    done = subprocess.run(command, cwd=daemon.home, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_ends_well(pod):
    daemon, _, _ = pod
    assert daemon.stop() == 0
