"""What the request for a final upload is answered with, when it comes once, twice, too early, or in vain."""

from __future__ import annotations

import sys
from random import Random

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from resumable.model.hooks import Answer, Granted, QuestionKind, RequestView
from resumable.model.upload import Gone as GoneKind
from resumable.model.upload import ReplicaState
from resumable.protocol import tus
from resumable.protocol.concat import FinalUpload
from resumable.protocol.errors import BadRequest, Gone, NoSpace, NotFound, Refused, Stopping, Unavailable
from resumable.spool.assembly import SHARES, Assembly
from resumable.uploads import assembly, building
from resumable.uploads.assembly import RETRY
from resumable.uploads.caller import Caller
from resumable.uploads.engine import Limits
from resumable.uploads.janitor import ANSWERED
from resumable.uploads.lookup import PATIENCE
from resumable.uploads.questions import Questions
from resumable.uploads.turns import Turns
from tests.uploads.harness import UPLOADS, FakeBody, FakeReplication, Server, machines, pattern
from tests.uploads.harness import Answer as Outcome
from tests.uploads.test_uploads_hooks import GIVEN, FakeHooks, changed

A, B, C = pattern(10_000, 1), pattern(3, 2), pattern(5_000, 3)
NO = Refused(422, {"X-Why": "virus"}, b"a virus \xff")
DOWN = Unavailable("The hook is down.")
ASKED = RequestView("POST", "/files/", "192.0.2.1", {"cookie": ("session=1",), "x-user": ("ann", "bob")}, "r-1")
WITHIN = 20.0


@pytest.fixture
def hooked(serve):
    """Starts a server with hooks that are asked before an upload is finished, and say that."""

    def start(*says, create=(), **options):
        hooks = FakeHooks(finish=says, **({"create": create} if create else {}))
        server = serve(questions=Questions(hooks), limits=Limits(final_timeout=WITHIN, retry_after=7), **options)
        server.hooks = hooks
        return server

    return start


def parts(server, *datas):
    """Partials that are finished without anybody being asked."""
    says, server.hooks.says = server.hooks.says, {}
    ids = [server.upload(data, partial=True) for data in datas]
    server.hooks.says = says
    del server.hooks.asked[:], server.hooks.requests[:]
    return ids


def request(*ids, metadata=None):
    """What `Uploads.concatenate` is given."""
    final = FinalUpload(tuple(f"/files/{each}" for each in ids))
    return tus.Creation(None, False, metadata, final, final.header, None, False, False), ids


def patched(data):
    """What `Uploads.append` is given for a PATCH at 0."""
    return tus.Append(0, None, None, False), FakeBody.whole(data)


def finals(server, *others):
    """The data files that are no partials."""
    return server.names() - set(others)


# before-finish


def test_a_hook_sees_the_request_that_asked_for_the_final_and_adds_to_its_answer(hooked):
    """Bytes in one regular file, then before-finish hooks (with the request that asked: method, headers, cookie)."""
    server = hooked(Granted(answer=Answer(headers={"X-Scan": "clean"})))
    ids = parts(server, A, B)
    final = server.concat(*ids, request=ASKED).value
    assert final.finished and server.content(final.id) == A + B
    assert server.hooks.asked == [(QuestionKind.FINISH, final.id, len(A + B))]
    assert server.hooks.requests == [ASKED]
    assert server.ask(server.catalog.request(final.id)).value is None, "a cookie isn't kept for longer"


def test_the_request_is_shown_to_hooks_after_a_restart_and_when_a_partial_comes_last(hooked, serve, machine):
    server = hooked()
    a, b = parts(server, A)[0], server.create(len(B), partial=True).value.id
    final = server.concat(a, b, request=ASKED).value.id
    server.bury()
    server = serve(machine.after_power_loss(Random(1)), questions=Questions(hooks := FakeHooks(finish=[Granted()])))
    server.patch(b, 0, B)
    assert server.head(final).value.finished
    asked = dict(zip((each for _, each, _ in hooks.asked), hooks.requests, strict=True))
    assert asked[final] == ASKED


def test_a_refused_final_leaves_its_partials_as_they_were(hooked):
    server = hooked(NO)
    ids = parts(server, A, B)
    answer = server.concat(*ids)
    assert answer.error is NO and answer.cut is None
    assert server.names() == set(ids)
    assert [server.head(each).value.finished for each in ids] == [True, True]
    server.hooks.says[QuestionKind.FINISH] = [Granted()]
    final = server.concat(*ids).value
    assert final.finished, "the refusal was heard: the same request begins anew"
    assert server.content(final.id) == A + B


def test_a_refusal_that_nobody_has_heard_is_repeated_once(hooked):
    """..., a refusal that nobody heard is repeated: also by the next run."""
    server = hooked(wait := Deferred())
    ids = parts(server, A, B)
    asked = server.concat(*ids)
    asked.deferred.cancel()  # its client has gone
    wait.errback(NO)
    server.pump()
    assert finals(server, *ids) == set()
    server.bury()
    server = hooked(Granted(), on=server.machine.after_kill())
    again = server.concat(*ids)
    assert isinstance(again.error, Refused)
    assert (again.status, again.error.headers, again.error.body) == (422, NO.headers, NO.body)
    assert server.hooks.asked == []
    assert server.concat(*ids).value.finished


def test_a_refusal_is_forgotten_after_ten_minutes(hooked):
    server = hooked(wait := Deferred())
    ids = parts(server, A)
    server.concat(*ids).deferred.cancel()
    wait.errback(NO)
    server.hooks.says[QuestionKind.FINISH] = [Granted()]
    server.advance(ANSWERED + 1)
    assert server.concat(*ids).value.finished


def test_a_hook_that_fails_is_503_with_a_location_and_asked_again_without_another_copy(hooked):
    server = hooked(DOWN, Granted())
    ids = parts(server, A)
    answer = server.concat(*ids)
    assert answer.error is DOWN and answer.cut is not None
    copies = server.machine.trace.count("copy_range")
    assert server.concat(*ids).value.id == answer.cut.id
    assert server.machine.trace.count("copy_range") == copies


def test_a_hook_that_takes_long_is_503_and_the_same_request_hears_of_it(hooked):
    """`--final-timeout` bounds all of it together; ..., else 503 with Retry-After and Location."""
    server = hooked(wait := Deferred())
    ids = parts(server, A)
    answer = server.concat(*ids)
    server.advance(WITHIN - 1)
    assert not answer.done
    server.advance(1)
    assert answer.status == 503 and answer.error.headers["Retry-After"] == "7"
    again = server.concat(*ids)
    wait.callback(Granted())
    server.pump()
    assert again.value.finished and again.value.id == answer.cut.id
    assert len(server.hooks.asked) == 1


def test_what_takes_long_and_cannot_be_refused_is_201_without_an_offset(serve, monkeypatch):
    server = serve(limits=Limits(final_timeout=WITHIN))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    held: Deferred[None] = Deferred()
    monkeypatch.setattr(Turns, "take", lambda self, left: held)
    answer = server.concat(*ids)
    server.advance(WITHIN)
    assert answer.value.finished is False and answer.value.offset == 0
    held.callback(None)
    server.pump()
    assert server.head(answer.value.id).value.finished


def test_a_final_that_hooks_are_asked_about_does_not_expire(hooked):
    """One that is being worked on isn't idle; one that hooks can't be asked about for long is."""
    server = hooked(wait := Deferred(), Deferred())
    server.engine.limits = Limits(expire_after=3600.0, final_timeout=WITHIN)
    ids = parts(server, A)
    server.concat(*ids)
    (final,) = finals(server, *ids)
    server.advance(7200)
    server.sweep()
    assert server.row(final).gone is None
    wait.errback(DOWN)
    server.pump()
    server.sweep()
    assert server.row(final).gone is GoneKind.EXPIRED and server.content(final) is None


# --ack remote


def test_with_ack_remote_it_is_answered_when_it_is_stored(serve):
    server = serve(replication=FakeReplication(acknowledges=True), limits=Limits(final_timeout=WITHIN, retry_after=7))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    answer = server.concat(*ids)
    (final,) = finals(server, *ids)
    assert not answer.done and server.row(final).finished
    server.store(final)
    assert answer.value.offset == len(A + B)


def test_with_ack_remote_and_the_store_down_it_is_503_until_it_is_stored(serve):
    server = serve(replication=FakeReplication(acknowledges=True), limits=Limits(final_timeout=WITHIN, retry_after=7))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    answer = server.concat(*ids)
    server.advance(WITHIN)
    assert answer.status == 503 and answer.error.headers["Retry-After"] == "7"
    final = answer.cut.id
    again = server.concat(*ids)
    assert not again.done
    server.store(final)
    assert again.value.id == final and again.value.finished
    assert server.engine.replication.waits == 0
    assert finals(server, *ids) == {final}


def test_while_the_store_is_down_for_long_the_same_request_makes_no_second_copy(serve):
    """The same POST again is answered for the first one while that is on its way, and for ten minutes after."""
    server = serve(replication=FakeReplication(acknowledges=True), limits=Limits(final_timeout=WITHIN))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    final = server.concat(*ids)
    for _ in range(4):
        server.advance(ANSWERED)
        server.sweep()
        again = server.concat(*ids)
        server.advance(WITHIN)
        assert again.status == 503 and again.cut.id == final.cut.id
    assert finals(server, *ids) == {final.cut.id}
    server.store(final.cut.id)
    server.advance(ANSWERED - 1)
    server.sweep()
    assert server.concat(*ids).value.id == final.cut.id, "it was stored a moment ago"
    server.advance(2)
    server.sweep()
    assert server.ask(server.catalog.asked(server.row(final.cut.id).asked, 0)).value is None


def test_hooks_and_the_remote_share_one_bound(hooked):
    server = hooked(wait := Deferred(), replication=FakeReplication(acknowledges=True))
    ids = parts(server, A)
    answer = server.concat(*ids)
    server.advance(WITHIN - 2)
    wait.callback(Granted())
    server.advance(1)
    assert not answer.done
    server.advance(1)
    assert answer.status == 503


@pytest.mark.parametrize("turns", range(24))
def test_a_client_that_hangs_up_at_any_moment_is_no_failure_and_stops_nothing(hooked, logged, turns):
    """Whatever its client does, the upload goes on; and the log holds no complaint."""
    server = hooked(Granted(), replication=FakeReplication(acknowledges=True))
    ids = parts(server, A, B)
    asked = server.uploads.concatenate(*request(*ids))
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    for _ in range(turns):
        if any(call.getTime() <= server.clock.seconds() for call in server.clock.calls):
            server.turn()
    asked.cancel()
    server.pump()
    (final,) = finals(server, *ids)
    assert server.row(final).finished
    assert not [each for each in logged if "log_failure" in each]


# DELETE, whatever is under way


def check_deleted(server, asked, final, ids):
    """DELETE has ended it at once: its client is told, and nothing is left of it but its partials, as they were."""
    assert server.delete(final).error is None
    assert isinstance(asked.error, Gone) and asked.cut is None
    assert server.names() == set(ids) and server.names(f"{UPLOADS}/.resumable/finals") == set()
    assert server.row(final).gone is GoneKind.TERMINATED
    assert all(each.state is ReplicaState.ENDING for each in server.replicas(final).values())
    assert [server.head(each).value.finished for each in ids] == [True] * len(ids)
    for each in ids:  # unpinned: its bytes go with it
        server.delete(each)
    assert server.names() == set() and server.engine.space._claimed == 0


@pytest.mark.parametrize("says", [Granted(), NO, DOWN])
def test_delete_while_hooks_are_asked_ends_it_at_once(hooked, says):
    server = hooked(wait := Deferred(), replication=FakeReplication(acknowledges=True))
    ids = parts(server, A, B)
    asked = server.concat(*ids)
    (final,) = finals(server, *ids)
    head = server.head(final)
    check_deleted(server, asked, final, ids)
    assert isinstance(head.error, Gone)
    (wait.callback if isinstance(says, Granted) else wait.errback)(says)
    server.advance(2 * RETRY)
    assert server.names() == set() and not server.assembler._jobs, "what hooks say then comes to nothing"
    assert server.row(final).gone is GoneKind.TERMINATED


def test_delete_while_it_is_copied_ends_it_after_the_step(serve):
    server = serve(assembly_step=1000, replication=FakeReplication(acknowledges=True))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    before = server.machine.trace.count("copy_range")
    asked = Outcome(server.machine, server.uploads.concatenate(*request(*ids)))
    while server.machine.trace.count("copy_range") < before + 3:
        server.turn()
    (final,) = server.assembler._jobs
    check_deleted(server, asked, final, ids)
    assert server.machine.trace.count("copy_range") < before + len(A + B) // 1000


def test_delete_while_it_waits_for_its_turn_ends_it(serve, monkeypatch, logged):
    server = serve(assembly_step=1000)
    ids = [server.upload(each, partial=True) for each in (A, B)]
    turns = [succeed(None), succeed(None), turn := Deferred()]
    monkeypatch.setattr(Turns, "take", lambda self, left: turns.pop(0))
    asked = server.concat(*ids)
    (final,) = server.assembler._jobs
    assert server.delete(final).error is None
    turn.callback(None)
    server.pump()
    assert isinstance(asked.error, Gone) and asked.cut is None
    assert server.names() == set(ids) and server.names(f"{UPLOADS}/.resumable/finals") == set()
    assert server.engine.space._claimed == 0 and not [each for each in logged if each["log_level"].name != "info"]


def test_delete_while_it_waits_for_the_remote_ends_it_at_once(serve):
    server = serve(replication=FakeReplication(acknowledges=True))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    asked = server.concat(*ids)
    (final,) = finals(server, *ids)
    assert server.row(final).finished
    check_deleted(server, asked, final, ids)
    assert server.engine.replication.waits == 0


# the same request again


def test_the_same_request_at_once_has_the_same_final_and_asks_nobody_twice(hooked):
    """The same POST again ... is answered for the first one while that is on its way."""
    server = hooked(create=[Granted()])
    ids = parts(server, A, B)
    answers: list[object] = []
    for _ in range(3):
        server.concat(*ids, metadata="name eA==").deferred.addBoth(answers.append)
    kinds = [kind for kind, *_ in server.hooks.asked]
    assert kinds.count(QuestionKind.CREATE) == kinds.count(QuestionKind.FINISH) == 1
    assert len(finals(server, *ids)) == 1


def test_while_hooks_are_asked_whether_it_may_be_made_the_same_request_waits(hooked):
    server = hooked(create=[wait := Deferred()])
    ids = parts(server, A)
    first, second = server.concat(*ids), server.concat(*ids)
    wait.callback(Granted())
    server.pump()
    assert first.value.id == second.value.id
    assert [kind for kind, *_ in server.hooks.asked].count(QuestionKind.CREATE) == 1


def test_many_that_send_the_same_request_cost_no_more_than_each_once(hooked):
    """One client's many requests don't hold the loop: whoever has to wait on is not woken."""
    server = hooked(create=[wait := Deferred()])
    ids = parts(server, A)
    answers = [server.uploads.concatenate(*request(*ids)) for _ in range(100)]
    server.pump()
    woken = 0

    def count(frame, event, _):
        nonlocal woken
        woken += event == "call" and frame.f_code.co_name == "once"

    sys.setprofile(count)
    try:
        wait.callback(Granted())
        server.pump()
    finally:
        sys.setprofile(None)
    assert all(each.called for each in answers) and len(finals(server, *ids)) == 1
    assert woken < 4 * len(answers)
    assert not server.uploads._finals._making


@pytest.mark.parametrize("restart", [False, True])
def test_the_same_request_after_a_lost_answer_has_the_same_final(serve, machine, restart):
    """... and for ten minutes after: no second copy."""
    server = serve()
    ids = [server.upload(each, partial=True) for each in (A, B)]
    first = server.concat(*ids)
    first.deferred.cancel()
    server.pump()
    if restart:
        server.stop()
        server = serve(machine.after_kill())
    (final,) = finals(server, *ids)
    server.advance(ANSWERED / 2)
    assert server.concat(*ids).value.id == final
    server.advance(ANSWERED)
    assert server.concat(*ids).value.id != final


def test_another_request_has_another_final(serve):
    """The same partials in the same order, same metadata, same identity."""
    server = serve()
    a, b = (server.upload(each, partial=True) for each in (A, B))
    made = {server.concat(a, b).value.id, server.concat(b, a).value.id, server.concat(a, b, b).value.id}
    made.add(server.concat(a, b, metadata="name eA==").value.id)
    server.by = Caller("ann")
    made.add(server.concat(a, b).value.id)
    assert len(made) == 5


def test_one_that_was_deleted_is_made_anew(serve):
    """Not for one that was deleted."""
    server = serve()
    (a,) = [server.upload(A, partial=True)]
    first = server.concat(a).value.id
    server.delete(first)
    assert server.concat(a).value.id != first
    b = server.create(3, partial=True).value.id
    waiting = server.concat(b).value.id
    server.delete(waiting)
    assert server.concat(b).value.id != waiting


def test_it_is_looked_up_before_its_partials_are(serve):
    server = serve(limits=Limits(keep_partials=0))
    a = server.upload(A, partial=True)
    final = server.concat(a).value.id
    assert isinstance(server.head(a).error, Gone)
    assert server.concat(a).value.id == final
    assert isinstance(server.concat(a, a).error, BadRequest)


def test_an_unfinished_final_is_the_same_one_too(serve):
    server = serve()
    b = server.create(len(B), partial=True).value.id
    final = server.concat(b).value
    assert not final.finished and server.concat(b).value.id == final.id
    server.patch(b, 0, B)
    assert server.concat(b).value == server.head(final.id).value


# space, quota, sizes


def test_a_final_that_does_not_fit_is_507_and_nothing_is_copied(serve):
    """Space: the whole length against the reserve before anything is copied."""
    server = serve(reserve=2000, assembly_step=1000)
    a = server.upload(A, partial=True)
    server.disk.free_bytes = 2000 + len(A) - 1
    server.ask(server.engine.space.look(server.spool))
    server.disk.trace.clear()
    answer = server.concat(a)
    assert isinstance(answer.error, NoSpace) and answer.cut is None
    assert "copy_range" not in [operation for operation, _ in server.disk.trace]
    assert server.names() == {a}
    assert server.upload(B), "nobody else is refused"
    server.disk.free_bytes += 1
    assert server.concat(a).value.finished


def test_two_finals_that_do_not_fit_together_are_not_begun_together(hooked):
    server = hooked(reserve=2000, create=[wait := Deferred(), Granted()])
    a, b = parts(server, A, B)
    server.disk.free_bytes = 2000 + 2 * len(A) - 1
    first = server.concat(a)
    assert isinstance(server.concat(a, b).error, NoSpace), "the room is claimed"
    wait.errback(NO)
    server.pump()
    assert first.error is NO
    assert server.concat(a, b).value.finished, "and given back"
    assert server.engine.space._claimed == 0


def test_a_claim_is_nobody_elses_room(hooked):
    server = hooked(reserve=2000, create=[wait := Deferred(), Granted()])
    (a,) = parts(server, A)
    server.disk.free_bytes = 2000 + len(A) + 1
    server.ask(server.engine.space.look(server.spool))
    server.concat(a)
    server.ask(server.engine.space.look(server.spool))
    assert server.engine.space.room == 1
    wait.errback(NO)
    server.pump()
    assert server.engine.space.room == len(A) + 1


def test_a_final_whose_partials_come_later_waits_for_space_and_takes_none(serve):
    server = serve(reserve=2000, assembly_step=1000)
    a = server.create(len(A), partial=True).value.id
    final = server.concat(a).value.id
    server.disk.free_bytes = 2000 + len(A) - 1
    server.ask(server.engine.space.look(server.spool))
    server.patch(a, 0, A)
    assert not server.head(final).value.finished
    assert server.names(f"{UPLOADS}/.resumable/finals") == set()
    assert server.upload(B), "nobody else is refused"
    server.disk.free_bytes += 1
    server.advance(RETRY)
    assert server.content(final) == A


def test_a_copy_whose_room_others_take_gives_back_what_it_has_taken(serve):
    """Each in bounded steps against the reserve: a copy that can't go on gives its half file back."""
    server = serve(reserve=2000, assembly_step=1000)
    a = server.upload(A, partial=True)
    answers: list[object] = []
    waiting = server.uploads.concatenate(*request(a))
    waiting.addBoth(answers.append)
    while server.machine.trace.count("copy_range") < 3:
        server.turn()
    server.disk.free_bytes = 2000
    looked = Deferred.fromCoroutine(server.engine.space.look(server.spool))
    while not looked.called:
        server.turn()
    server.pump()
    cut = answers[0].value
    assert isinstance(cut.error, NoSpace)
    assert server.machine.trace.count("copy_range") < 10
    assert server.names() == {a} and server.names(f"{UPLOADS}/.resumable/finals") == set()
    server.disk.free_bytes = 1 << 30
    server.ask(server.engine.space.look(server.spool))
    server.advance(RETRY)
    assert server.content(cut.upload.id) == A


# HEAD and GET


def test_head_and_get_wait_for_a_final_that_is_just_being_put_together(hooked):
    """HEAD and GET of a final that is just being put together wait for it, up to 5 s."""
    server = hooked(wait := Deferred())
    ids = parts(server, A)
    server.concat(*ids)
    (final,) = finals(server, *ids)
    head, read = server.head(final), server.ask(server.uploads.read(final))
    assert not head.done and not read.done
    server.advance(PATIENCE - 1)
    assert not head.done
    wait.callback(Granted())
    server.pump()
    assert head.value.offset == len(A) and read.value[0].finished
    server.ask(read.value[1].close())


def test_they_do_not_wait_for_ever_and_not_for_one_that_waits_itself(hooked):
    server = hooked(Deferred())
    ids = parts(server, A)
    server.concat(*ids)
    (final,) = finals(server, *ids)
    head, read = server.head(final), server.ask(server.uploads.read(final))
    server.advance(PATIENCE)
    assert head.value.finished is False
    assert isinstance(read.error, NotFound)
    b = server.create(3, partial=True).value.id
    waiting = server.concat(b).value.id
    assert server.head(waiting).done and server.ask(server.uploads.read(waiting)).done


def test_head_right_after_the_last_partial_waits_too(serve):
    server = serve()
    b = server.create(len(B), partial=True).value.id
    final = server.concat(b).value.id
    answers: list[object] = []
    server.uploads.append(b, *patched(B)).addCallback(lambda _: server.uploads.inspect(final)).addBoth(answers.append)
    server.pump()
    assert answers[0].finished


def test_they_are_answered_as_soon_as_a_stop_begins(hooked):
    server = hooked(Deferred())
    ids = parts(server, A)
    answer = server.concat(*ids)
    (final,) = finals(server, *ids)
    head = server.head(final)
    server.ask(server.uploads.stop())
    assert isinstance(answer.error, Stopping) and answer.cut.id == final
    assert head.value.id == final and not head.value.finished
    assert isinstance(server.concat(*ids).error, Stopping)


def test_what_fails_while_all_are_looked_at_is_tried_again_after_that(hooked):
    server = hooked(DOWN, wait := Deferred(), Granted())
    ids = parts(server, A, B)
    first = server.concat(ids[0]).cut.id
    server.concat(ids[1])
    server.assembler.start()
    server.advance(3 * RETRY)
    wait.callback(Granted())
    server.advance(2 * RETRY)
    assert server.row(first).finished


def test_a_stop_answers_all_who_wait(hooked):
    server = hooked(Deferred())
    ids = parts(server, A)
    answer = server.concat(*ids)
    (final,) = finals(server, *ids)
    head = server.head(final)
    server.stop()
    assert head.deferred.called and answer.deferred.called
    assert isinstance(answer.error, Stopping) and head.value.id == final


# partials


def test_used_partials_go_an_hour_after_the_last_final_that_used_them(serve):
    """Partials: removed `--keep-partials` (1h) after the last final that used them."""
    server = serve(limits=Limits(keep_partials=3600.0, expire_after=None))
    a, b, unused = (server.upload(each, partial=True) for each in (A, B, C))
    first = server.concat(a, b).value.id
    server.advance(3000)
    second = server.concat(b).value.id
    server.advance(700)
    server.sweep()
    assert server.names() == {b, unused, first, second}
    assert server.row(a).gone is GoneKind.EXPIRED
    server.advance(3000)
    server.sweep()
    assert server.names() == {unused, first, second}
    assert isinstance(server.concat(b, metadata="x").error, BadRequest)


def test_what_is_kept_of_many_is_forgotten_in_one_round(serve, monkeypatch):
    monkeypatch.setattr("resumable.uploads.janitor.BATCH", 3)
    server = serve(limits=Limits(keep_partials=0, remember=100.0))
    for number in range(10):
        assert server.concat(server.upload(B, partial=True), metadata=f"n{number} eA==").value.finished
    server.advance(ANSWERED + 1)
    server.sweep()
    assert server.ask(server.catalog.forget_asked(1e12, 100)).value == 0
    assert server.ask(server.catalog.forget(1e12, 100)).value == 0


def test_with_zero_they_go_at_once(serve):
    """..., at once with 0 (then a later final that names them is refused)."""
    server = serve(limits=Limits(keep_partials=0))
    a, b = (server.upload(each, partial=True) for each in (A, B))
    late = server.create(3, partial=True).value.id
    waiting = server.concat(b, late).value.id
    final = server.concat(a, b).value.id
    assert server.names() == {b, final}, "another final needs it"
    assert server.head(b).value.finished
    assert isinstance(server.concat(a, metadata="x").error, BadRequest)
    server.patch(late, 0, b"abc")
    assert server.names() == {final, waiting}


def test_a_final_is_not_made_of_what_went_while_hooks_were_asked(hooked):
    server = hooked(create=[wait := Deferred()])
    (a,) = parts(server, A)
    answer = server.concat(a)
    server.delete(a)
    wait.callback(Granted())
    server.pump()
    assert answer.status == 409
    assert server.names() == set()
    assert server.engine.space._claimed == 0


def test_a_final_whose_given_id_is_taken_is_refused_for_good_as_any_upload_is(hooked):
    """docs/hooks.md: it must be new, else 400. Of a 409 clients think that asking again helps."""
    server = hooked(create=[changed(id=GIVEN)])
    ids = parts(server, A, B)
    assert server.concat(*ids).value.id == GIVEN
    answer = server.concat(*ids, metadata="x")
    assert isinstance(answer.error, BadRequest) and answer.cut is None
    assert server.names() == {*ids, GIVEN} and server.content(GIVEN) == A + B
    assert server.engine.space._claimed == 0
    assert server.delete(GIVEN).done
    assert isinstance(server.concat(*ids, metadata="x").error, BadRequest), "it was used"


def test_a_partial_that_finishes_while_hooks_are_asked_is_not_waited_for(hooked):
    server = hooked(create=[wait := Deferred()])
    says, server.hooks.says = server.hooks.says, {}
    b = server.create(len(B), partial=True).value.id
    server.hooks.says = says
    answer = server.concat(b)
    server.patch(b, 0, B)
    answer.deferred.cancel()  # and its client has gone
    wait.callback(Granted())
    server.pump()
    (final,) = finals(server, b)
    assert server.row(final).finished


# many, and fairness


def test_a_turn_goes_to_whoever_has_little_to_do():
    turns, order = Turns(1), []
    turns.take(0)
    for name, left in (("big", 100), ("big too", 100), ("small", 0), ("small too", 0)):
        turns.take(left).addCallback(lambda _, name=name: order.append(name))
    for _ in range(4):
        turns.give_back()
    assert order == ["small", "small too", "big", "big too"]


def test_nobody_is_passed_for_ever():
    turns, order = Turns(1), []
    turns.take(0)
    turns.take(10**6).addCallback(lambda _: order.append("big"))
    for _ in range(1000):
        turns.take(0).addCallback(lambda _: order.append("small"))
        turns.give_back()
    assert 200 < order.index("big") < 300


def test_a_small_final_is_not_delayed_by_large_ones(serve):
    """A request that names one partial 400 times must not delay other people's small finals: in steps, at most those
    that are under way when it comes."""
    server = serve(assembly_step=1000)
    a, small = server.upload(A, partial=True), server.upload(B, partial=True)
    for number in range(4):
        server.uploads.concatenate(*request(*[a] * 400, metadata=f"n{number} eA=="))
    while server.machine.trace.count("fdatasync") < 50:
        server.turn()
    answers: list[object] = []
    server.uploads.concatenate(*request(small)).addBoth(answers.append)
    copied = server.machine.trace.count("fdatasync")
    while not answers:
        server.turn()
    assert answers[0].finished
    assert server.machine.trace.count("fdatasync") - copied <= 40, "two for each step of the request, and not 1600"
    server.machine.stop()
    server.bury()


def test_a_small_final_goes_before_the_next_step_of_large_ones_and_that_is_short(serve, monkeypatch):
    """Three that name one partial 400 times are there first: those under way end their share of a step, and then it is
    the small one's turn."""
    asked: list[int] = []
    begun: list[tuple[int, int]] = []
    take, copy = Turns.take, Assembly.copy
    monkeypatch.setattr(Turns, "take", lambda self, left: asked.append(left) or take(self, left))
    monkeypatch.setattr(Assembly, "copy", lambda self, size: begun.append((self.length, size)) or copy(self, size))
    server = serve(assembly_step=8000)
    a, small = server.upload(A, partial=True), server.upload(B, partial=True)
    for number in range(3):
        large = server.uploads.concatenate(*request(*[a] * 400, metadata=f"n{number} eA=="))
        large.addErrback(lambda _: None)  # nobody waits until they are done
    while len(begun) < 20:
        server.turn()
    answers: list[object] = []
    server.uploads.concatenate(*request(small)).addBoth(answers.append)
    while asked[-1]:
        server.turn()
    before = len(begun)
    while not answers:
        server.turn()
    assert answers[0].finished
    assert asked[0] == 499, "a large one is known as such by its first step"
    assert begun.index((len(B), len(B))) <= before
    assert {size for length, size in begun[3:] if length > len(B)} == {8000 // SHARES}
    server.machine.stop()
    server.bury()


def test_one_alone_is_copied_in_whole_steps(serve, monkeypatch):
    sizes: list[int] = []
    copy = Assembly.copy
    monkeypatch.setattr(Assembly, "copy", lambda self, size: sizes.append(size) or copy(self, size))
    server = serve(assembly_step=4000)
    assert server.concat(server.upload(A, partial=True)).value.finished
    assert sizes == [4000, 4000, 2000]


def test_many_finals_of_one_partial_are_put_together_a_few_at_a_time(serve, monkeypatch):
    monkeypatch.setattr(assembly, "PAGE", 7)
    server = serve()
    b = server.create(len(B), partial=True).value.id
    made = [server.concat(b, metadata=f"n{number} eA==").value.id for number in range(40)]
    most = [0]
    begin = server.assembler._begin

    def watched(*args):
        begin(*args)
        most[0] = max(most[0], len(server.assembler._jobs))

    server.assembler._begin = watched
    server.patch(b, 0, B)
    assert all(server.row(each).finished for each in made)
    assert most[0] == assembly.AHEAD
    assert not server.assembler._jobs and not server.assembler._tasks and not server.assembler._waiting


def test_others_are_not_behind_those_that_wait_for_one_partial(serve):
    server = serve()
    b, other = (server.create(len(B), partial=True).value.id for _ in range(2))
    for number in range(100):
        server.concat(b, metadata=f"n{number} eA==")
    mine = server.concat(other).value.id
    server.uploads.append(b, *patched(B))
    while not server.assembler._jobs:
        server.turn()
    answers: list[object] = []
    appended = server.uploads.append(other, *patched(B))
    synced = server.machine.trace.count("rename")
    appended.addCallback(lambda _: server.uploads.inspect(mine)).addBoth(answers.append)
    while not answers:
        server.turn()
    assert answers[0].finished
    assert server.machine.trace.count("rename") - synced <= 3 * assembly.AHEAD


def test_head_of_one_of_many_does_not_wait_for_the_others(serve):
    server = serve()
    b = server.create(len(B), partial=True).value.id
    made = [server.concat(b, metadata=f"n{number} eA==").value.id for number in range(100)]
    server.uploads.append(b, *patched(B))
    while not server.assembler._jobs:
        server.turn()
    answers: list[object] = []
    server.uploads.inspect(next(iter(server.assembler._jobs))).addBoth(answers.append)
    while not answers:
        server.turn()
    assert answers[0].finished
    assert len(server.names() & set(made)) < 50


def test_finals_that_wait_for_space_let_smaller_ones_pass(serve):
    server = serve(reserve=100)
    a, b = (server.create(len(each), partial=True).value.id for each in (A, B))
    big, small = server.concat(a).value.id, server.concat(b).value.id
    server.disk.free_bytes = 100 + len(A) - 1
    server.ask(server.engine.space.look(server.spool))
    server.patch(a, 0, A)
    server.ask(server.engine.space.look(server.spool))
    server.patch(b, 0, B)
    assert server.head(small).value.finished and not server.head(big).value.finished


def test_the_end_of_a_partial_ends_all_that_wait_for_it_together(serve):
    """DELETE of a partial that 600 finals wait for: their ends share the catalog's commits."""
    server = serve()
    b = server.create(len(B), partial=True).value.id
    made = [server.concat(b, metadata=f"n{number} eA==").value.id for number in range(600)]
    server.machine.trace.clear()
    assert server.delete(b).error is None
    assert server.machine.trace.count("COMMIT") < 30
    assert all(isinstance(server.head(each).error, Gone) for each in made[::100])


def test_finals_that_a_failing_catalog_has_kept_from_ending_end_soon(serve):
    server = serve()
    b = server.create(len(B), partial=True).value.id
    made = [server.concat(b, metadata=f"n{number} eA==").value.id for number in range(100)]
    server.machine.fail_commit(after=2, times=2)
    assert server.delete(b).status == 503
    server.advance(2 * RETRY)
    assert all(server.row(each).gone for each in made)


def test_at_the_start_finals_are_taken_up_a_few_at_a_time(serve, machine, monkeypatch):
    server = serve(reserve=100)
    a = server.create(len(A), partial=True).value.id
    made = [server.concat(a, metadata=f"n{number} eA==").value.id for number in range(30)]
    server.disk.free_bytes = 100
    server.ask(server.engine.space.look(server.spool))
    server.engine.space.room = 10**9
    server.patch(a, 0, A)
    assert not any(server.row(each).finished for each in made)
    server.bury()
    monkeypatch.setattr(assembly, "PAGE", 7)
    monkeypatch.setattr(building, "AT_ONCE", 1)
    after = machine.after_kill()
    after.disk.free_bytes = 1 << 30
    server = serve(after)
    assert all(server.row(each).finished for each in made)


def test_what_a_final_has_cost_is_tidied_up_without_anybody_waiting_for_it(serve):
    server = serve(limits=Limits(keep_partials=0))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    answers: list[object] = []
    server.uploads.concatenate(*request(*ids)).addBoth(answers.append)
    while not answers:
        server.turn()
    assert "unlink" not in server.machine.trace
    server.pump()
    assert not server.names() & set(ids)


def test_a_request_that_a_crash_has_cut_off_and_that_comes_again_makes_one_final(directory):
    """The request crashed at every step, and sent again: one final, whatever had been done."""
    fresh = machines(directory / "each")
    for step in range(1, 200):
        machine = next(fresh)
        hooks = FakeHooks(finish=[Granted()], create=[Granted()])
        server = Server(machine, questions=Questions(hooks), limits=Limits(keep_partials=0)).start()
        ids = [server.upload(each, partial=True) for each in (A, B)]
        machine.crash_at(step)
        first = server.concat(*ids, request=ASKED)
        over = not machine.down
        server.bury()
        after = machine.after_power_loss(Random(step)) if step % 2 else machine.after_kill()
        hooks = FakeHooks(finish=[Granted()], create=[Granted()])
        server = Server(after, questions=Questions(hooks), limits=Limits(keep_partials=0)).start()
        final = server.concat(*ids, request=ASKED).value
        assert server.content(final.id) == A + B
        assert not first.done or first.value.id == final.id
        server.sweep()
        assert server.names() == {final.id}
        server.bury()
        if over:
            return
    raise AssertionError("it has no end")
