"""Hooks as an operator names them, put together."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from random import Random

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from resumable.aio.threads import Pool
from resumable.hooks.ask import Patience
from resumable.hooks.command import find_program
from resumable.hooks.hooks import HookDependencies, Hooks
from resumable.hooks.interfaces import Allow, EventKind, IGuard, IHook
from resumable.hooks.progress import MOST
from resumable.hooks.retry_policy import RetryPolicy
from resumable.hooks.settings import BadHookTarget, HookSettings, HookTarget, parse_kinds, parse_target, parse_targets
from resumable.model.hooks import Arrived, Changes, QuestionKind
from resumable.model.upload import FactKind
from resumable.protocol.errors import Refused
from tests.hooks.outbox import MemoryOutbox, fact
from tests.hooks.servers import SECRET, UPLOAD, HookServer


@implementer(IHook, IGuard)
class Python:
    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.came = []
        self.done = Deferred()

    def deliver(self, event):
        self.came.append(event.kind.value)
        if event.kind is EventKind.FINISHED:
            self.done.callback(None)

    def ask(self, question):
        return Allow(Changes(key="from-python"))


@implementer(IHook)
class OnlyTold:
    def deliver(self, event):
        return None


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://h/x?a=b", HookTarget("hook", "http", "https://h/x?a=b")),
        ("main=https://h/x?a=b", HookTarget("main", "http", "https://h/x?a=b")),
        ("tusd+http://h:1/", HookTarget("hook", "tusd", "http://h:1/")),
        ("scan=exec:/bin/scan --fast 'a b'", HookTarget("scan", "command", arguments=("/bin/scan", "--fast", "a b"))),
        ("python:my_package:Hook", HookTarget("hook", "python", "my_package:Hook")),
        ("python:mine", HookTarget("hook", "python", "mine")),
    ],
)
def test_targets(text, target):
    assert parse_target(text, "hook") == target


@pytest.mark.parametrize(
    "text",
    ["", "secret", "ftp://secret/", "https://", "https://u:secret@h/", "exec:", "exec:'secret", "python:", "tusd+ftp://secret",
     "a b=secret",
     "=https://h/", "tusd:secret"],
)  # fmt: skip
def test_what_is_no_target_is_told_without_repeating_it(text):
    with pytest.raises(BadHookTarget) as caught:
        parse_target(text, "hook")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_hooks_without_names_are_numbered_and_names_are_given_once():
    assert [target.name for target in parse_targets(["https://a/", "b=https://b/", "https://c/"], "hook")] == [
        "hook",
        "b",
        "hook-3",
    ]
    with pytest.raises(BadHookTarget, match="two hooks are called a"):
        parse_targets(["a=https://a/", "a=https://b/"], "hook")


def test_events_and_questions_by_name():
    assert parse_kinds(["finished", "before-create"]) == ({EventKind.FINISHED}, {QuestionKind.CREATE})
    with pytest.raises(ValueError, match="created, progress, finished"):
        parse_kinds(["finnished"])


def test_settings_hide_what_may_be_secret():
    shown = repr(HookSettings(hooks=[HookTarget("a", "http", "https://h/secret")], secrets=[b"secret"]))
    assert "secret" not in shown.replace("secrets", "")


def needs(**more):
    return HookDependencies(**{
        "reactor": reactor, "clock": reactor, "wall": time.time, "monotonic": time.monotonic, "rng": Random(1),
        "new_id": lambda: "ask_1", "pool": lambda size: Pool(reactor, size, "commands"), "environment": os.environ,
        "source": "/files/", "path_of": lambda upload_id: f"/data/{upload_id}", "stop_upload": lambda *each: None,
        **more,
    })  # fmt: skip


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_every_kind_of_hook_is_told_and_asked(rig, tmp_path):
    Python.made = 0
    server, tusd = HookServer({"allow": True, "change": {"max_size": 5}}), HookServer({})
    log = tmp_path / "log"
    texts = [
        f"web={rig(server).url}",
        f"old=tusd+{rig(tusd).url}",
        f"script=exec:/bin/sh -c 'echo $HOOK_EVENT >> {log}'",
        f"code=python:{__name__}:Python",
    ]
    targets = parse_targets(texts, "hook")
    settings = HookSettings(hooks=targets, guards=targets, secrets=[SECRET])
    outbox = MemoryOutbox(settings.deliverers)
    hooks = Hooks(settings, needs(), outbox)
    outbox.post(fact("u"))
    hooks.start()
    outbox.post(fact("u", FactKind.FINISHED))
    hooks.wake()
    granted = await hooks.guards.before(QuestionKind.CREATE, UPLOAD)
    assert granted.changes == Changes(key="from-python", max_size=5)
    while outbox.events:
        await _moment()
    await hooks.stop()
    assert Python.made == 1
    assert [json.loads(body)["type"].rpartition(".")[2] for body in server.bodies if b"before-" not in body] == [
        "created",
        "finished",
    ]
    types = [json.loads(body)["Type"] for body in tusd.bodies]
    assert sorted(types) == ["post-create", "post-finish", "pre-create"]
    assert [line for line in log.read_text().split() if line != "before-create"] == ["created", "finished"]


def _moment() -> Deferred:
    later = Deferred()
    reactor.callLater(0.005, later.callback, None)
    return later


@pytest_twisted.ensureDeferred
async def test_progress_is_told_only_if_it_is_wanted_and_may_stop_an_upload(rig):
    server, stopped = HookServer({"stop": True}), Deferred()
    target = HookTarget("web", "http", rig(server).url)
    quiet = Hooks(HookSettings(hooks=[target]), needs(), MemoryOutbox())
    quiet.progress.arrived(UPLOAD.id, lambda: pytest.fail("nobody wants to know"))
    settings = HookSettings(hooks=[target], events=frozenset(EventKind))
    hooks = Hooks(settings, needs(stop_upload=lambda *each: stopped.callback(each)), MemoryOutbox(["web"]))
    hooks.start()
    hooks.progress.arrived(UPLOAD.id, lambda: Arrived(UPLOAD, 5))
    upload_id, error = await stopped
    assert upload_id == UPLOAD.id and isinstance(error, Refused)
    await hooks.stop()
    await quiet.stop()


def test_without_hooks_nobody_is_asked():
    hooks = Hooks(HookSettings(), needs(), MemoryOutbox())
    assert not any(hooks.guards.asks(kind) for kind in QuestionKind)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (HookSettings(guards=[HookTarget("a", "python", f"{__name__}:OnlyTold")]), BadHookTarget),
        (HookSettings(hooks=[HookTarget("a", "python", "no.such:thing")]), BadHookTarget),
        (HookSettings(hooks=[HookTarget("a", "http", "https://h/")], forward=["Host"]), ValueError),
    ],
)
def test_what_cannot_work_is_told_at_the_start(settings, error):
    with pytest.raises(error):
        Hooks(settings, needs(), MemoryOutbox())


def script(tmp_path, text, mode=0o755):
    file = tmp_path / "script"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (lambda place: "/no/such/program", "there is no program /no/such/program"),
        (lambda place: "no-such-program", "there is no program no-such-program on the PATH"),
        (lambda place: str(place), "there is no program"),
        (lambda place: script(place, "#!/bin/sh", 0o644), "chmod"),
        (lambda place: script(place, "#!/no/such/shell -e"), "#!/no/such/shell"),
    ],
    ids=["nothing", "not on the PATH", "a directory", "not executable", "no interpreter"],
)
@pytest.mark.parametrize("role", ["hooks", "guards"])
def test_a_program_that_cannot_run_is_told_at_the_start(program, said, role, tmp_path):
    target = HookTarget("scan", "command", arguments=(program(tmp_path), "a secret"))
    with pytest.raises(BadHookTarget) as caught:
        Hooks(HookSettings(**{role: [target]}), needs(), MemoryOutbox())
    assert str(caught.value).startswith("hook scan: ") and said in str(caught.value)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_relative_program_is_the_one_that_was_there_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script(tmp_path, "#!/bin/sh\n")
    assert find_program("./script", "") == str(tmp_path / "script")
    assert find_program("sh", os.environ["PATH"]).startswith("/")


@pytest.mark.parametrize(
    "text", ["raise RuntimeError('one\\ntwo')", "import sys; sys.exit(3)", "import no_such_module", "x = (", "Hook = 1"]
)
def test_python_that_cannot_be_loaded_is_told_in_one_line(text, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"bad_hook_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text + "\n")
    with pytest.raises(BadHookTarget) as caught:
        Hooks(HookSettings(guards=[HookTarget("mine", "python", f"{name}:Hook")]), needs(), MemoryOutbox())
    assert str(caught.value).startswith("hook mine: ") and name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h:8443/secret?token=secret", "https://h:8443/..."),
        ("tusd+http://h/secret", "tusd+http://h/..."),
        ("exec:/bin/scan --password secret", "exec:/bin/scan"),
        ("python:mine:Hook", "python:mine:Hook"),
    ],
)
def test_a_hook_is_shown_without_what_may_be_secret(text, shown):
    assert parse_target(text, "hook").shown == shown


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_events_and_progress_that_hang_keep_no_question_waiting(rig, tmp_path):
    """Neither behind one URL, nor as commands, whose number is bounded."""
    server = HookServer({"allow": True})
    plain = server.render

    def render(request):
        answer = plain(request)
        return answer if b"before-" in server.bodies[-1] else NOT_DONE_YET

    server.render = render
    waits = script(tmp_path, "#!/bin/sh\ncase $HOOK_EVENT in before-*) ;; *) sleep 60;; esac\n")
    targets = parse_targets([f"web={rig(server).url}", f"cmd=exec:{waits}"], "hook")
    settings = HookSettings(
        hooks=targets, guards=targets, events=frozenset(EventKind), commands=1,
        retry_policy=RetryPolicy(concurrency=64), patience=Patience(within=5.0), timeout=60.0, command_timeout=60.0,
    )  # fmt: skip
    outbox = MemoryOutbox(settings.deliverers)
    hooks = Hooks(settings, needs(), outbox)
    outbox.post(*(fact(f"u{n}") for n in range(100)))
    hooks.start()
    for number in range(100):
        upload = evolve(UPLOAD, id=f"an-upload-id-{number}")
        hooks.progress.arrived(upload.id, partial(Arrived, upload, 5))
    while len(server.bodies) < 64 + MOST // 2:
        await _moment()
    granted = await hooks.guards.before(QuestionKind.CREATE, UPLOAD)
    assert granted.changes == Changes()
    await hooks.stop(0.0)


def test_two_that_are_alike_but_for_their_names_are_one_hook():
    Python.made = 0
    target = HookTarget("a", "python", f"{__name__}:Python")
    Hooks(HookSettings(hooks=[target], guards=[evolve(target, name="b")]), needs(), MemoryOutbox())
    assert Python.made == 1
