"""What is guarded is done only if every hook has said yes, in time and clearly."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resumable.hooks.ask import SHORTEST, Guard, Guards, Patience
from resumable.hooks.interfaces import Allow, HookFailed, IGuard, Refuse
from resumable.model.hooks import Answer, Changes, Granted, IHooks, IProgress, NoHooks, QuestionKind
from resumable.protocol.errors import Refused, Unavailable
from tests.hooks.servers import REQUEST, UPLOAD

CREATE = QuestionKind.CREATE


@implementer(IGuard)
class Says:
    """Answers that, or calls it."""

    def __init__(self, said) -> None:
        self.said = said
        self.asked = []

    def ask(self, question):
        self.asked.append(question)
        return self.said(question) if callable(self.said) else succeed(self.said)


def make(*hooks, clock=None, kinds=frozenset(QuestionKind), counted=None, places=None, **more):
    ids = iter(range(100))
    return Guards(
        [Guard(f"hook{n}", hook, kinds, "", places) for n, hook in enumerate(hooks)],
        clock=clock or Clock(),
        wall=lambda: 5.0,
        new_id=lambda: f"ask_{next(ids)}",
        patience=Patience(10, 7),
        count=lambda *each: counted.append(each[:3]) if counted is not None else None,
        **more,
    )


def ask(guards, kind=CREATE, upload=UPLOAD):
    """The Granted, or what was raised."""
    results = []
    guards.before(kind, upload, REQUEST).addBoth(lambda result: results.append(getattr(result, "value", result)))
    return results[0]


def test_they_provide_what_the_use_cases_want():
    assert verifyObject(IHooks, make()) and verifyObject(IHooks, NoHooks()) and verifyObject(IProgress, NoHooks())


def test_nobody_is_asked_where_nobody_wants_to_be():
    hook = Says(Refuse())
    guards = make(hook, kinds=frozenset({QuestionKind.FINISH}))
    assert ask(guards) == Granted() == ask(make())
    assert guards.asks(QuestionKind.FINISH) and not guards.asks(CREATE)
    assert hook.asked == []


def test_the_first_no_wins_and_nobody_behind_it_is_asked():
    first, second, third = Says(Allow()), Says(Refuse(Answer(402, {"X-Why": "pay"}, b"pay " * 100))), Says(Allow())
    counted = []
    error = ask(make(first, second, third, counted=counted))
    assert isinstance(error, Refused)
    assert (error.status, error.headers["X-Why"], error.body) == (402, "pay", b"pay " * 100)
    assert third.asked == []
    assert counted == [("hook0", "before-create", "ok"), ("hook1", "before-create", "refused")]


def test_a_no_without_more_is_403_and_the_usual_body():
    error = ask(make(Says(Refuse())))
    assert (error.status, error.headers, error.body) == (403, {}, b"")


def test_a_reason_is_logged_once_until_the_hook_works_again(logged):
    says = Says(lambda question: fail(HookFailed(reasons[0])))
    guards, reasons = make(says), ["it answered 500"]
    for _ in range(3):
        assert isinstance(ask(guards), Unavailable)
    reasons[0] = "no answer in time"
    ask(guards)
    working, says.said = says.said, Allow()
    ask(guards)
    says.said = working
    ask(guards)
    lines = [formatEvent(each) for each in logged]
    where = f"hook hook0 () failed at before-create of {UPLOAD.id}"
    assert lines == [
        f"{where}: it answered 500",
        f"{where}: no answer in time",
        "hook hook0 () works again",
        f"{where}: no answer in time",
    ]


def test_one_client_whose_questions_hang_keeps_nobody_else_waiting():
    clock = Clock()
    hook = Says(lambda question: Deferred() if question.request.address.startswith("192.0.2.") else succeed(Allow()))
    guards = make(hook, clock=clock, places=4)
    hanging = [guards.before(CREATE, UPLOAD, evolve(REQUEST, address=f"192.0.2.7:{port}")) for port in range(50)]
    assert len(hook.asked) == 3
    assert guards.before(CREATE, UPLOAD, evolve(REQUEST, address="198.51.100.1:1")).result == Granted()
    clock.advance(10.1)
    assert all(isinstance(each.result.value, Unavailable) for each in hanging)
    for each in hanging:
        each.addErrback(lambda failure: None)
    assert guards.before(CREATE, UPLOAD, evolve(REQUEST, address="192.0.3.7:1")).result == Granted()


def test_a_short_body_is_made_long_enough_for_every_client():
    error = ask(make(Says(Refuse(Answer(403, body=b"no")))))
    assert error.headers == {"Content-Type": "text/plain; charset=utf-8"}
    assert len(error.body) == SHORTEST and error.body.rstrip() == b"no"
    picture = Refuse(Answer(403, {"content-type": "image/png"}, b"png"))
    assert ask(make(Says(picture))).body == b"png"


def test_each_hook_sees_the_upload_as_those_before_it_have_changed_it():
    first = Says(Allow(Changes(id="0123456789abcdef", metadata={"a": b"1"})))
    second = Says(Allow(Changes(key="k")))
    granted = ask(make(first, second))
    assert granted.changes == Changes("0123456789abcdef", {"a": b"1"}, "k")
    assert granted.raw_metadata == "a MQ=="
    seen = second.asked[0].upload
    assert (seen.id, seen.metadata, seen.raw_metadata) == ("0123456789abcdef", {"a": b"1"}, "a MQ==")
    assert [hook.asked[0].id for hook in (first, second)] == ["ask_0", "ask_1"]


def test_the_later_change_wins_but_the_smaller_limit():
    first = Says(Allow(Changes(key="a", max_size=5), Answer(201, {"X-A": "1", "X-B": "1"}, b"a")))
    second = Says(Allow(Changes(key="b", max_size=9), Answer(None, {"x-b": "2"})))
    granted = ask(make(first, second))
    assert granted.changes == Changes(key="b", max_size=5) and granted.raw_metadata is None
    assert granted.answer == Answer(201, {"X-A": "1", "x-b": "2"}, b"a")


def test_metadata_can_be_taken_away():
    granted = ask(make(Says(Allow(Changes(metadata={})))))
    assert (granted.changes.metadata, granted.raw_metadata) == ({}, "")


def raising(error):
    def said(question):
        raise error

    return said


async def coroutine(question):
    return None


@pytest.mark.parametrize("kind", QuestionKind)
@pytest.mark.parametrize(
    "said",
    [
        raising(HookFailed("it answered 500")),
        raising(RuntimeError("secret")),
        raising(CancelledError()),
        coroutine,
        None,
        True,
        "allow",
        Allow(answer=Answer(500)),
        Refuse(Answer(200)),
        Refuse(Answer(403, {"Content-Length": "0"})),
        Allow(Changes(id="no id")),
        Allow(Changes(remotes=("nowhere",))),
    ],
    ids=lambda said: repr(said).partition(" at 0x")[0],
)
def test_a_hook_that_fails_or_says_nonsense_opens_nothing(said, kind):
    behind, counted = Says(Allow()), []
    error = ask(make(Says(said), behind, counted=counted, remotes={"s3"}), kind)
    assert isinstance(error, Unavailable) and error.headers == {"Retry-After": "7"}
    assert "secret" not in error.detail
    assert behind.asked == [] and counted == [("hook0", kind.value, "failed")]


def test_a_hook_that_is_too_late_opens_nothing():
    clock, late = Clock(), Deferred()
    results = []
    make(Says(lambda question: late), clock=clock).before(CREATE, UPLOAD).addErrback(results.append)
    clock.advance(9.9)
    assert results == []
    clock.advance(0.2)
    assert results[0].check(Unavailable)
    late.callback(Allow())
    assert len(results) == 1


def test_a_hook_that_swallows_its_cancellation_is_not_waited_for():
    clock, results = Clock(), []

    async def stubborn(question):
        try:
            await Deferred()
        except CancelledError:
            await Deferred()

    make(Says(stubborn), clock=clock).before(CREATE, UPLOAD).addErrback(results.append)
    clock.advance(11)
    assert results[0].check(Unavailable)


def test_who_does_not_want_to_know_any_more_cancels_the_hook():
    cancelled, results = [], []
    asking = make(Says(lambda question: Deferred(cancelled.append))).before(CREATE, UPLOAD)
    asking.addErrback(results.append)
    asking.cancel()
    assert len(cancelled) == 1 and results[0].check(CancelledError)


def test_a_python_hook_may_be_a_coroutine():
    async def yes(question):
        return Allow(Changes(key="k"))

    assert ask(make(Says(yes))).changes.key == "k"
