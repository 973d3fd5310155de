"""The dashboard, light, dark, one upload, and on a phone: docs/dashboard-*.png. The hour in its charts is made up."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import tools
from tests.e2e.busy_daemon import TOKEN, BusyDaemon


def take(docs: Path) -> None:
    """Write the pictures into ``docs``."""
    browser, node = tools.chromium(), tools.need("node")
    tools.install_npm("playwright-core", tools.HERE / "browser")
    with BusyDaemon() as daemon:
        daemon.start()
        daemon.fill()
        tools.run(node, "dashboard_shots.mjs", browser, daemon.admin, TOKEN, str(docs), cwd=tools.HERE / "browser")
