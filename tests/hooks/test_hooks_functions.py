"""Hooks that are functions: found, called in the right thread, and held to the answers of other hooks."""

from __future__ import annotations

import threading
from types import MappingProxyType

import pytest
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.trial.unittest import SynchronousTestCase

from resumable.hooks import Allow, Event, EventKind, Question, QuestionKind, Refuse, UploadView, before, on
from resumable.hooks.functions import FunctionHook, HookFunctions, marked
from resumable.hooks.hooks import BadHook, load_hook
from resumable.hooks.interfaces import HookFailed, IGuard, IHook, IWatcher

UPLOAD = UploadView("an-upload-id-1234", 10, 10)


def event(kind: EventKind) -> Event:
    return Event("evt_1", kind, 0.0, UPLOAD)


class Threads:
    """A pool that notes what it is given, and calls it at once."""

    def __init__(self) -> None:
        self.called: list[object] = []

    def run(self, function, *args):
        self.called.append(function)
        return succeed(function(*args))


def hook_of(**namespace: object) -> tuple[FunctionHook, Threads]:
    functions, threads = marked(namespace), Threads()
    assert functions is not None
    return FunctionHook(functions, threads), threads  # type: ignore[arg-type]


class Calling(SynchronousTestCase):
    def setUp(self) -> None:
        self.got: list[object] = []

    def test_a_function_gets_only_the_events_that_it_names_and_runs_in_a_thread(self) -> None:
        @on("created", "terminated")
        def note(event: Event) -> None:
            self.got.append(event.kind)

        hook, threads = hook_of(note=note)
        for kind in (EventKind.CREATED, EventKind.FINISHED, EventKind.TERMINATED):
            self.successResultOf(hook.deliver(event(kind)))
        self.assertEqual(self.got, [EventKind.CREATED, EventKind.TERMINATED])
        self.assertEqual(threads.called, [note, note])

    def test_coroutines_and_inline_callbacks_run_in_the_reactor(self) -> None:
        waiting: Deferred[None] = Deferred()

        @on("finished")
        async def first(event: Event) -> None:
            await waiting
            self.got.append("first")

        @on("finished")
        @inlineCallbacks
        def second(event: Event):
            yield succeed(None)
            self.got.append("second")

        @on("finished", thread=False)
        def third(event: Event) -> Deferred[None]:
            return succeed(None).addCallback(lambda _: self.got.append("third"))

        hook, threads = hook_of(first=first, second=second, third=third)
        arrived = hook.deliver(event(EventKind.FINISHED))
        self.assertNoResult(arrived)
        waiting.callback(None)
        self.successResultOf(arrived)
        self.assertEqual((self.got, threads.called), (["first", "second", "third"], []))

    def test_an_event_has_not_arrived_when_one_of_its_functions_fails(self) -> None:
        @on("finished")
        async def broken(event: Event) -> None:
            raise KeyError("no")

        hook, _ = hook_of(broken=broken)
        self.failureResultOf(hook.deliver(event(EventKind.FINISHED)), KeyError)

    def test_a_function_in_a_thread_that_answers_a_deferred_is_told_what_to_write(self) -> None:
        @on("finished")
        def lazy(event: Event) -> Deferred[None]:
            return succeed(None)

        hook, _ = hook_of(lazy=lazy)
        told = self.failureResultOf(hook.deliver(event(EventKind.FINISHED)), HookFailed)
        self.assertIn("thread=False", str(told.value))

    def test_a_question_without_an_objection_is_granted(self) -> None:
        @before("create", "terminate")
        def ask(question: Question) -> Refuse | None:
            return Refuse() if question.kind is QuestionKind.TERMINATE else None

        hook, threads = hook_of(ask=ask)
        self.assertEqual(hook.questions, {QuestionKind.CREATE, QuestionKind.TERMINATE})
        asked = [self.successResultOf(hook.ask(Question("q", kind, 0.0, UPLOAD))) for kind in QuestionKind]
        self.assertEqual(asked, [Allow(), Allow(), Allow(), Refuse()])
        self.assertEqual(len(threads.called), 2)

    def test_progress_may_end_an_upload(self) -> None:
        @on("progress")
        async def watch(event: Event) -> Refuse:
            return Refuse()

        hook, _ = hook_of(watch=watch)
        self.assertEqual(self.successResultOf(hook.watch(event(EventKind.PROGRESS))), Refuse())


def test_the_decorated_function_is_itself():
    def plain(event):
        return event

    assert on("finished")(plain) is plain


def test_the_roles_are_those_of_the_functions():
    @on("finished")
    def told(event): ...

    @before("create")
    def asked(question): ...

    @on("progress")
    def watching(event): ...

    assert (IHook.providedBy(hook_of(a=told)[0]), IGuard.providedBy(hook_of(a=told)[0])) == (True, False)
    assert (IHook.providedBy(hook_of(a=asked)[0]), IGuard.providedBy(hook_of(a=asked)[0])) == (False, True)
    assert IWatcher.providedBy(hook_of(a=watching)[0])


@pytest.mark.parametrize("decorate", [on, before])
@pytest.mark.parametrize("names", [(), ("finish ed",), (len,)])
def test_a_wrong_name_is_told_with_those_that_there_are(decorate, names):
    with pytest.raises(ValueError, match=r"finish(ed)?, "):
        decorate(*names)


def test_two_functions_do_not_answer_one_question():
    @before("create")
    def one(question): ...

    @before("append", "create")
    def other(question): ...

    with pytest.raises(ValueError, match="both answer before-create"):
        marked({"one": one, "other": other})


def test_a_function_with_two_names_in_its_module_is_called_once():
    @on("finished")
    def told(event): ...

    functions = marked({"told": told, "alias": told})
    assert functions is not None and len(functions.events[EventKind.FINISHED]) == 1


def test_a_module_without_decorated_functions_is_no_hook():
    assert marked({"length": len, "number": 7, "thread": threading.Thread}) is None
    with pytest.raises(BadHook, match="has no function with @on or @before"):
        load_hook("json")


def test_a_module_in_the_current_directory_is_found_after_all_others(tmp_path, monkeypatch):
    (tmp_path / "my_upload_hooks.py").write_text(
        "import helper_of_my_hooks, colorsys\nfrom resumable.hooks import on\n\n"
        "@on('finished')\ndef told(event):\n    assert colorsys.rgb_to_hsv\n"
    )
    (tmp_path / "helper_of_my_hooks.py").write_text("")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('the standard one is hidden')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [each for each in __import__("sys").path if each not in ("", str(tmp_path))])
    found = load_hook("my_upload_hooks")
    assert isinstance(found, HookFunctions)
    assert list(found.events) == [EventKind.FINISHED]


def test_an_error_within_a_module_is_told_and_not_taken_for_its_absence(tmp_path, monkeypatch):
    (tmp_path / "broken_upload_hooks.py").write_text("import no_such_module_of_theirs\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadHook, match="no_such_module_of_theirs"):
        load_hook("broken_upload_hooks")
    with pytest.raises(BadHook, match="there is no module of that name"):
        load_hook("not_there_at_all")


def test_no_functions_are_no_roles():
    assert not list(HookFunctions(MappingProxyType({})).roles)
