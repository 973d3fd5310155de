"""``resumable doctor`` as an operator runs it: without a daemon, beside one, and with what is wrong.

How well the machine of the tests is, is left out of account.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .commands import BOUND, command, listen, looked
from .daemon import Daemon, environment, free_port
from .tus import Tus, pattern


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    """A daemon with an upload, and a listener for operators."""
    admin = f"tcp:{free_port()}:interface=127.0.0.1"
    with Daemon("--admin-listen", admin, "--remote", "memory://far") as daemon:
        client = daemon.start().attach(Tus(daemon.port))
        client.create(5000, None, pattern(5000))
        yield daemon
        assert not daemon.complaints(), "\n".join(daemon.complaints())


def test_before_the_first_start_all_is_well_and_nothing_is_made(tmp_path: Path) -> None:
    found = looked(*listen(), "--remote", "memory://far", cwd=tmp_path)
    assert {name for name, (level, *_) in found.items() if level == "skip"} == {"daemon", "public URL"}
    assert {level for level, *_ in found.values()} == {"ok", "skip"}
    names = {"options", "permissions", "file locks", "catalog", "daemon", "remote memory://far", "public URL"}
    assert set(found) == names | {"ports", "access", "hooks"}
    assert os.listdir(tmp_path) == []


def test_people_read_lines_that_begin_with_how_it_is(tmp_path: Path) -> None:
    done = command("doctor", *listen(), cwd=tmp_path)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "ok    options           the daemon would start with these"
    assert all(line[:4].strip() in ("ok", "warn", "bad", "skip") for line in lines[:-2] if line[:1] != " ")
    assert lines[-1].startswith("all is well; ") or "see what to change" in lines[-1]


def test_beside_a_daemon_it_asks_that_daemon_and_leaves_it_alone(running: Daemon) -> None:
    before = sorted(path.name for path in running.upload_dir.rglob("*"))
    flags = [*running.arguments()[1:], "--url", running.url, "--origin", "https://example.org"]
    found = looked(*flags, cwd=running.home)
    assert {name for name, (level, *_) in found.items() if level != "ok"} == {"ports", "catalog"}, found
    assert found["ports"][0] == found["catalog"][0] == "skip"
    assert "has the upload directory" in found["file locks"][1]
    assert "the daemon has it" in found["catalog"][1]
    assert found["daemon"][1].startswith("it is ready")
    assert "as tus 1.0.0" in found["public URL"][1]
    assert "passed on as they come" in found["proxy buffering"][1]
    assert "a 104 with Location comes before the answer" in found["interim responses"][1]
    assert {"Location", "pages of other origins"} <= set(found)
    assert sorted(path.name for path in running.upload_dir.rglob("*")) == before


def test_a_daemon_whose_listener_is_elsewhere_is_told_of(running: Daemon) -> None:
    flags = ["--upload-dir", str(running.upload_dir), "--admin-listen", f"tcp:{free_port()}:interface=127.0.0.1"]
    found = looked(*flags, cwd=running.home)
    assert found["daemon"][0] == "bad" and "--admin-listen" in (found["daemon"][2] or "")


def test_after_a_kill_it_reads_everything_and_the_next_start_finds_it_as_it_was(tmp_path: Path) -> None:
    with Daemon() as daemon:
        tus = daemon.start().attach(Tus(daemon.port))
        paths = [tus.create(5000, None, pattern(3000)) for _ in range(3)]
        daemon.kill()
        names = sorted(path.name for path in daemon.upload_dir.rglob("*"))
        flags = [*listen(), "--upload-dir", str(daemon.upload_dir)]
        found = looked(*flags, cwd=tmp_path)
        assert found["data files"][:2] == ("ok", "3 have all that was acknowledged")
        assert sorted(path.name for path in daemon.upload_dir.rglob("*")) == names

        _, short, gone = (daemon.upload_dir / path.rsplit("/", 1)[1] for path in paths)
        os.truncate(short, 2999)
        gone.rename(tmp_path / "kept")
        level, what, advice = looked(*flags, cwd=tmp_path)["data files"]
        assert level == "bad" and "backup" in (advice or "")
        assert gone.name in what or short.name in what

        os.truncate(short, 3000)
        (tmp_path / "kept").rename(gone)
        daemon.start()
        assert [tus.offset(path) for path in paths] == [3000, 3000, 3000]
        assert not daemon.complaints()


def test_whatever_is_wrong_is_a_finding_and_the_rest_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "up").mkdir(mode=0o755)
    flags = [*listen(), "--upload-dir", str(tmp_path / "up"), "--auth-tokens", str(tmp_path / "none")]
    url = f"http://127.0.0.1:{free_port()}/files/"
    found = looked(*flags, "--remote", f"file://{tmp_path}/nas?name=nas", "--url", url, cwd=tmp_path)
    assert found["options"][0] == "bad" and "none" in found["options"][1]
    assert found["remote nas"][0] == "bad" and "ount it" in (found["remote nas"][2] or "")
    assert found["public URL"][0] == "bad" and "Connection refused" in found["public URL"][1]
    assert found["catalog"][0] == "ok"


def test_an_interrupt_ends_it_quietly_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"s3://bucket?endpoint=http://127.0.0.1:{silent.getsockname()[1]}&region=here"
        process = subprocess.Popen(
            [sys.executable, "-m", "resumable", "doctor", *listen(), "--remote", url],
            cwd=tmp_path,
            env=environment({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            silent.settimeout(BOUND)
            link, _ = silent.accept()  # it waits for the store now
            with link:
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=BOUND)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said == ""
    assert os.listdir(tmp_path) == []


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    line = f"{sys.executable} -m resumable doctor {' '.join(listen())} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_secret_of_the_configuration_file_that_everybody_can_read(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f'auth-jwt-secret = "{"s" * 40}"\nupload-dir = "u"\n')
    (tmp_path / "r.toml").chmod(0o644)
    level, what, advice = looked(*listen(), "--config", "r.toml", cwd=tmp_path)["options"]
    assert level == "warn" and "r.toml has a secret (auth-jwt-secret)" in what and advice
