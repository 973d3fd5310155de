"""Hooks that are commands: real processes, some of which do not end."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from resumable.aio.threads import Pool
from resumable.hooks.command import Command, CommandHook
from resumable.hooks.interfaces import Allow, EventKind, HookFailed, IGuard, IHook, IWatcher, Refuse
from resumable.model.hooks import Answer, Changes
from tests.hooks.servers import event, question

pytestmark = pytest.mark.process
ENVIRONMENT = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": "secret", "LD_PRELOAD": "", "LANG": "C.UTF-8"}


@pytest.fixture
def pool():
    pool = Pool(reactor, 2, "commands")
    pool.start()
    yield pool
    pytest_twisted.blockon(pool.stop())


@pytest.fixture
def hook(pool):
    def make(script: str, shell: str = "/bin/sh", **more) -> CommandHook:
        command = Command((shell, "-c", script), **{"timeout": 30.0, **more})
        return CommandHook(command, pool, source="/files/", environment=ENVIRONMENT, monotonic=time.monotonic)

    return make


async def is_dead(pid: int) -> bool:
    """Whether that process ends; a corpse that nobody has collected counts, a kill takes a moment."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        await deferLater(reactor, 0.01)
    return False


@pytest_twisted.ensureDeferred
async def test_a_command_gets_the_event_on_stdin_and_facts_in_a_clean_environment(hook, tmp_path):
    told = hook(f"cat > {tmp_path}/event; env > {tmp_path}/env")
    assert verifyObject(IHook, told) and verifyObject(IGuard, told) and verifyObject(IWatcher, told)
    await told.deliver(event(EventKind.STORED, remote="s3"))
    document = json.loads((tmp_path / "event").read_text())
    assert document["type"] == "resumable.upload.stored" and document["data"]["details"] == {"remote": "s3"}
    found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert {name: value for name, value in found.items() if name.startswith("HOOK_")} == {
        "HOOK_EVENT": "stored",
        "HOOK_ID": "evt_an-upload-id-1234_stored_7",
        "HOOK_UPLOAD": "an-upload-id-1234",
        "HOOK_OFFSET": "4",
        "HOOK_LENGTH": "10",
        "HOOK_REMOTE": "s3",
        "HOOK_SEQUENCE": "0000000000000000007",
    }
    assert found["LANG"] == "C.UTF-8"
    assert not {"AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"} & set(found)


@pytest_twisted.ensureDeferred
async def test_arguments_go_as_they_are_and_no_shell_sees_them(pool, tmp_path):
    odd = "$(touch /tmp/x); `id` 'a b' \"c\" *"
    command = Command(
        (sys.executable, "-c", f"import sys; open({str(tmp_path / 'out')!r}, 'w').write(sys.argv[1])", odd)
    )
    await CommandHook(command, pool, source="x", environment=ENVIRONMENT, monotonic=time.monotonic).deliver(event())
    assert (tmp_path / "out").read_text() == odd


@pytest_twisted.ensureDeferred
async def test_an_event_has_arrived_only_with_exit_status_0(hook):
    await hook("exit 0").deliver(event())
    with pytest.raises(HookFailed, match="ended with 3: the last line"):
        await hook("echo one >&2; echo the last line >&2; exit 3").deliver(event())


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("exit 0", Allow()),
        ("""echo '{"allow": true, "change": {"key": "a/b"}}'""", Allow(Changes(key="a/b"))),
        ("""echo '{"allow": false, "response": {"status": 402}}'""", Refuse(Answer(402))),
        ("exit 1", Refuse()),
        ("exit 125", Refuse()),
        ("""echo '{"allow": false, "response": {"status": 402}}'; exit 1""", Refuse(Answer(402))),
        ("""echo '{"allow": true}'; exit 1""", Refuse()),
        ("echo garbage; exit 1", Refuse()),
    ],
)
@pytest_twisted.ensureDeferred
async def test_exit_status_and_stdout_are_the_verdict(hook, script, verdict):
    assert await hook(script).ask(question()) == verdict


@pytest.mark.parametrize(
    "script",
    [
        "echo yes",
        "echo '{}'",
        "printf '\\377'",
        "exit 126",
        "exit 127",
        "kill -9 $$",
        "kill -TERM $$",
        "yes",
        "no-such-command",
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_clear_yes_is_none(hook, script):
    with pytest.raises(HookFailed):
        await hook(script, largest=100_000).ask(question())


@pytest.mark.parametrize("arguments", [("/no/such/program",), ("/etc/passwd",), ("a\x00b",)])
@pytest_twisted.ensureDeferred
async def test_a_command_that_cannot_be_started_has_failed(pool, arguments):
    told = CommandHook(Command(arguments), pool, source="x", environment=ENVIRONMENT, monotonic=time.monotonic)
    with pytest.raises(HookFailed, match="can't be run") as caught:
        await told.ask(question())
    assert caught.value.unreached


def test_a_hook_without_a_program_is_refused(pool):
    with pytest.raises(ValueError, match="needs a program"):
        CommandHook(Command(()), pool, source="x", environment={}, monotonic=time.monotonic)


@pytest_twisted.ensureDeferred
async def test_a_command_that_takes_too_long_is_killed_with_all_it_has_started(hook, tmp_path):
    pids = tmp_path / "pids"
    told = hook(f"sleep 1000 & echo $$ $! > {pids}; wait", timeout=0.5)
    with pytest.raises(HookFailed, match="was killed") as caught:
        await told.deliver(event())
    assert caught.value.unanswered
    assert [await is_dead(int(pid)) for pid in pids.read_text().split()] == [True, True]


@pytest_twisted.ensureDeferred
async def test_what_a_command_leaves_behind_does_not_keep_us_and_is_killed(hook, tmp_path):
    pid = tmp_path / "pid"
    await hook(f"sleep 1000 & echo $! > {pid}").deliver(event())
    assert await is_dead(int(pid.read_text()))


@pytest_twisted.ensureDeferred
async def test_a_command_may_close_its_pipes_and_work_on(hook, tmp_path):
    done = tmp_path / "done"
    await hook(f"exec <&- >&- 2>&-; sleep 0.05; echo > {done}").deliver(event())
    assert done.exists()


@pytest_twisted.ensureDeferred
async def test_a_command_that_reads_nothing_may_say_yes(hook):
    assert await hook("exec <&-; exit 0").ask(question()) == Allow()


@pytest_twisted.ensureDeferred
async def test_much_on_stderr_hurts_nobody(hook):
    script = (
        "i=0; while [ $i -lt 3000 ]; do echo 'a line of fifty characters or so, again and again' >&2; i=$((i+1)); done"
    )
    await hook(script).deliver(event())


@pytest_twisted.ensureDeferred
async def test_an_endless_answer_is_cut_off(hook):
    with pytest.raises(HookFailed):
        await hook("yes", largest=1000).deliver(event())
    with pytest.raises(HookFailed):
        await hook("head -c 2000 /dev/zero", largest=1000).ask(question())


@pytest_twisted.ensureDeferred
async def test_no_more_run_at_once_than_allowed(hook, tmp_path):
    # each says that it is there, then looks who else is
    script = f"mkdir {tmp_path}/$$; ls {tmp_path} | wc -l >> {tmp_path}.seen; sleep 0.02; rmdir {tmp_path}/$$"
    told = hook(script)
    await DeferredList([told.deliver(event()) for _ in range(10)], fireOnOneErrback=True)
    seen = Path(f"{tmp_path}.seen").read_text().split()
    assert len(seen) == 10 and max(map(int, seen)) <= 2


@pytest_twisted.ensureDeferred
async def test_a_command_that_nobody_waits_for_any_more_is_killed(hook, pool, tmp_path, logged):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    told = hook(f"echo $$ > {fifo}; exec sleep 1000")
    asking = told.ask(question())
    pid = await pool.run(lambda: int(fifo.read_text()))
    with capturedLogs() as logged:
        asking.cancel()
        with pytest.raises(CancelledError):
            await asking
        await pool.run(lambda: None)
        await pool.stop()
        await deferLater(reactor, 0)
        del asking
        gc.collect()  # an error that nobody has handled is told when its Deferred goes
    assert await is_dead(pid)
    assert [each for each in logged if "log_failure" in each] == []


@pytest_twisted.ensureDeferred
async def test_one_that_waits_for_its_turn_and_is_not_wanted_any_more_is_never_started(hook, tmp_path):
    fifos = [tmp_path / "a", tmp_path / "b"]
    for fifo in fifos:
        os.mkfifo(fifo)
    busy = [hook(f"cat {fifo}").deliver(event()) for fifo in fifos]
    late = hook(f"touch {tmp_path}/late").deliver(event())
    late.cancel()
    for fifo in fifos:
        fifo.write_text("")
    await DeferredList(busy, fireOnOneErrback=True)
    with pytest.raises((HookFailed, CancelledError)):
        await late
    assert not (tmp_path / "late").exists()


@pytest_twisted.ensureDeferred
async def test_progress_may_be_answered_with_a_stop(hook):
    progress = event(EventKind.PROGRESS)
    assert await hook("exit 0").watch(progress) is None
    assert await hook("""echo '{"stop": true}'""").watch(progress) == Refuse()
    with pytest.raises(HookFailed):
        await hook("exit 1").watch(progress)


@pytest_twisted.ensureDeferred
async def test_after_the_end_nothing_is_started(hook, pool):
    told = hook("exit 0")
    await pool.stop()
    with pytest.raises(HookFailed, match="no more"):
        await told.deliver(event())
