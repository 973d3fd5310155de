"""Hooks as an operator names them, put together."""

from __future__ import annotations

import json
import os
import time
from random import Random

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.events.desk import Desk, Means
from resumable.events.entry_hook import BadHook
from resumable.events.interfaces import Allow, EventKind, IGuard, IHook
from resumable.events.settings import BadHookTarget, HookSettings, HookTarget, parse_kinds, parse_target, parse_targets
from resumable.hooks import Changes, QuestionKind
from resumable.interfaces import FactKind
from resumable.protocol.errors import Refused
from resumable.threads import Pool
from tests.events.outbox import MemoryOutbox, fact
from tests.events.servers import SECRET, UPLOAD, HookServer


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
    shown = repr(HookSettings(told=[HookTarget("a", "http", "https://h/secret")], secrets=[b"secret"]))
    assert "secret" not in shown.replace("secrets", "")


def means(**more):
    return Means(**{
        "reactor": reactor, "clock": reactor, "wall": time.time, "monotonic": time.monotonic, "rng": Random(1),
        "new_id": lambda: "ask_1", "commands": Pool(reactor, 2, "commands"), "environment": os.environ,
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
    settings = HookSettings(told=targets, asked=targets, secrets=[SECRET])
    outbox = MemoryOutbox(settings.deliverers)
    desk = Desk(settings, means(), outbox)
    outbox.post(fact("u"))
    desk.start()
    outbox.post(fact("u", FactKind.FINISHED))
    desk.wake()
    granted = await desk.hooks.before(QuestionKind.CREATE, UPLOAD)
    assert granted.changes == Changes(key="from-python", max_size=5)
    while outbox.letters:
        await _moment()
    await desk.stop()
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
    quiet = Desk(HookSettings(told=[target]), means(), MemoryOutbox())
    assert not quiet.progress.due(UPLOAD.id)
    settings = HookSettings(told=[target], events=frozenset(EventKind))
    desk = Desk(settings, means(stop_upload=lambda *each: stopped.callback(each)), MemoryOutbox(["web"]))
    desk.start()
    desk.progress.note(UPLOAD)
    upload_id, error = await stopped
    assert upload_id == UPLOAD.id and isinstance(error, Refused)
    await desk.stop()
    await quiet.stop()


def test_without_hooks_nobody_is_asked():
    desk = Desk(HookSettings(), means(), MemoryOutbox())
    assert not any(desk.hooks.asks(kind) for kind in QuestionKind)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (HookSettings(asked=[HookTarget("a", "python", f"{__name__}:OnlyTold")]), BadHookTarget),
        (HookSettings(told=[HookTarget("a", "python", "no.such:thing")]), BadHook),
        (HookSettings(told=[HookTarget("a", "http", "https://h/")], forward=["Host"]), ValueError),
    ],
)
def test_what_cannot_work_is_told_at_the_start(settings, error):
    with pytest.raises(error):
        Desk(settings, means(), MemoryOutbox())


def test_two_that_are_alike_but_for_their_names_are_one_hook():
    Python.made = 0
    target = HookTarget("a", "python", f"{__name__}:Python")
    Desk(HookSettings(told=[target], asked=[evolve(target, name="b")]), means(), MemoryOutbox())
    assert Python.made == 1
