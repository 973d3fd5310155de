"""The metrics of a machine: whoever is asked asks the others, and waits for none of them for long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.web.resource import Resource
from twisted.web.server import Site

from resumable.metrics import machine_metrics
from resumable.metrics.machine_metrics import MachineMetrics

TEXT = b"# HELP resumable_connections Open.\n# TYPE resumable_connections gauge\nresumable_connections %d.0\n"


class Own:
    async def render(self) -> bytes:
        return TEXT % 1


class Half(Protocol):
    """Sends a part of its answer."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n# HELP")  # type: ignore[union-attr]


class Metrics(Resource):
    isLeaf = True

    def __init__(self, text: bytes, status: int = 200) -> None:
        super().__init__()
        self.text, self.status = text, status

    def render(self, request: Any) -> bytes:
        assert request.uri == b"/metrics"
        request.setResponseCode(self.status)
        return self.text


@pytest_twisted.ensureDeferred
async def test_what_all_have_is_in_the_answer_and_those_who_do_not_answer_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answers, one says no, one is silent, one is gone, one talks nonsense, and one stops in between."""
    monkeypatch.setattr(machine_metrics, "PATIENCE", 0.2)
    answers: dict[int, Any] = {
        2: Site(Metrics(TEXT % 2)),
        3: Site(Metrics(b"", 500)),
        4: Factory.forProtocol(Protocol),
        6: Site(Metrics(b"nonsense {")),
        7: Factory.forProtocol(Half),
    }
    listening: Any = reactor
    ports = [listening.listenUNIX(f"{tmp_path}/{number}", factory) for number, factory in answers.items()]
    try:
        paths = {number: f"{tmp_path}/{number}" for number in (2, 3, 4, 5, 6, 7)}
        lines = (await MachineMetrics(reactor, Own(), 1, paths).render()).decode().splitlines()
    finally:
        for port in ports:
            await port.stopListening()
    assert 'resumable_connections{worker="1"} 1.0' in lines and 'resumable_connections{worker="2"} 2.0' in lines
    assert 'resumable_workers{state="answered"} 2.0' in lines and 'resumable_workers{state="missing"} 5.0' in lines
    assert len([line for line in lines if line.startswith("resumable_connections")]) == 2
