"""What the request for a final upload is answered with, when it comes once, twice, too early, or in vain."""

from __future__ import annotations

import sys
from random import Random

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from resumable.model.hooks import Answer, Granted, QuestionKind
from resumable.model.principal import Principal
from resumable.model.upload import GoneReason, ReplicaState
from resumable.protocol.errors import BadRequest, Gone, NotFound, Refused, Stopping
from resumable.uploads.assembly import RETRY
from resumable.uploads.building import CopyTurns
from resumable.uploads.context import Questions
from resumable.uploads.janitor import ANSWERED
from resumable.uploads.limits import UploadLimits
from resumable.uploads.status import PATIENCE
from tests.uploads.fakes import FakeHooks, FakeReplication
from tests.uploads.final_requests import ASKED, DOWN, NO, WITHIN, A, B, finals, parts, patched, request
from tests.uploads.harness import UPLOADS
from tests.uploads.harness import Answer as Outcome

# before-finish


def test_a_hook_sees_the_request_that_asked_for_the_final_and_adds_to_its_answer(finish_hooked):
    """Bytes in one regular file, then before-finish hooks (with the request that asked: method, headers, cookie)."""
    server = finish_hooked(Granted(answer=Answer(headers={"X-Scan": "clean"})))
    ids = parts(server, A, B)
    final = server.concat(*ids, request=ASKED).value
    assert final.finished and server.content(final.id) == A + B
    assert server.hooks.asked == [(QuestionKind.FINISH, final.id, len(A + B))]
    assert server.hooks.requests == [ASKED]
    assert server.ask(server.catalog.request(final.id)).value is None, "a cookie isn't kept for longer"


def test_the_request_is_shown_to_hooks_after_a_restart_and_when_a_partial_comes_last(finish_hooked, serve, machine):
    server = finish_hooked()
    a, b = parts(server, A)[0], server.create(len(B), partial=True).value.id
    final = server.concat(a, b, request=ASKED).value.id
    server.bury()
    server = serve(machine.after_power_loss(Random(1)), questions=Questions(hooks := FakeHooks(finish=[Granted()])))
    server.patch(b, 0, B)
    assert server.head(final).value.finished
    asked = dict(zip((each for _, each, _ in hooks.asked), hooks.requests, strict=True))
    assert asked[final] == ASKED


def test_a_refused_final_leaves_its_partials_as_they_were(finish_hooked):
    server = finish_hooked(NO)
    ids = parts(server, A, B)
    answer = server.concat(*ids)
    assert answer.error is NO and answer.cut is None
    assert server.names() == set(ids)
    assert [server.head(each).value.finished for each in ids] == [True, True]
    server.hooks.says[QuestionKind.FINISH] = [Granted()]
    final = server.concat(*ids).value
    assert final.finished, "the refusal was heard: the same request begins anew"
    assert server.content(final.id) == A + B


def test_a_refusal_that_nobody_has_heard_is_repeated_once(finish_hooked):
    """..., a refusal that nobody heard is repeated: also by the next run."""
    server = finish_hooked(wait := Deferred())
    ids = parts(server, A, B)
    asked = server.concat(*ids)
    asked.deferred.cancel()  # its client has gone
    wait.errback(NO)
    server.pump()
    assert finals(server, *ids) == set()
    server.bury()
    server = finish_hooked(Granted(), on=server.machine.after_kill())
    again = server.concat(*ids)
    assert isinstance(again.error, Refused)
    assert (again.status, again.error.headers, again.error.body) == (422, NO.headers, NO.body)
    assert server.hooks.asked == []
    assert server.concat(*ids).value.finished


def test_a_refusal_is_forgotten_after_ten_minutes(finish_hooked):
    server = finish_hooked(wait := Deferred())
    ids = parts(server, A)
    server.concat(*ids).deferred.cancel()
    wait.errback(NO)
    server.hooks.says[QuestionKind.FINISH] = [Granted()]
    server.advance(ANSWERED + 1)
    assert server.concat(*ids).value.finished


def test_a_hook_that_fails_is_503_with_a_location_and_asked_again_without_another_copy(finish_hooked):
    server = finish_hooked(DOWN, Granted())
    ids = parts(server, A)
    answer = server.concat(*ids)
    assert answer.error is DOWN and answer.cut is not None
    copies = server.machine.trace.count("copy_range")
    assert server.concat(*ids).value.id == answer.cut.id
    assert server.machine.trace.count("copy_range") == copies


def test_a_hook_that_takes_long_is_503_and_the_same_request_hears_of_it(finish_hooked):
    """`--final-timeout` bounds all of it together; ..., else 503 with Retry-After and Location."""
    server = finish_hooked(wait := Deferred())
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
    server = serve(limits=UploadLimits(final_timeout=WITHIN))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    held: Deferred[None] = Deferred()
    monkeypatch.setattr(CopyTurns, "take", lambda self, left: held)
    answer = server.concat(*ids)
    server.advance(WITHIN)
    assert answer.value.finished is False and answer.value.offset == 0
    held.callback(None)
    server.pump()
    assert server.head(answer.value.id).value.finished


def test_a_final_that_hooks_are_asked_about_does_not_expire(finish_hooked):
    """One that is being worked on isn't idle; one that hooks can't be asked about for long is."""
    limits = UploadLimits(expire_after=3600.0, final_timeout=WITHIN)
    server = finish_hooked(wait := Deferred(), Deferred(), limits=limits)
    ids = parts(server, A)
    server.concat(*ids)
    (final,) = finals(server, *ids)
    server.advance(7200)
    server.sweep()
    assert server.row(final).gone is None
    wait.errback(DOWN)
    server.pump()
    server.sweep()
    assert server.row(final).gone is GoneReason.EXPIRED and server.content(final) is None


# --ack remote


def test_with_ack_remote_it_is_answered_when_it_is_stored(serve):
    server = serve(
        replication=FakeReplication(acknowledges=True), limits=UploadLimits(final_timeout=WITHIN, retry_after=7)
    )
    ids = [server.upload(each, partial=True) for each in (A, B)]
    answer = server.concat(*ids)
    (final,) = finals(server, *ids)
    assert not answer.done and server.row(final).finished
    server.store(final)
    assert answer.value.offset == len(A + B)


def test_with_ack_remote_and_the_store_down_it_is_503_until_it_is_stored(serve):
    server = serve(
        replication=FakeReplication(acknowledges=True), limits=UploadLimits(final_timeout=WITHIN, retry_after=7)
    )
    ids = [server.upload(each, partial=True) for each in (A, B)]
    answer = server.concat(*ids)
    server.advance(WITHIN)
    assert answer.status == 503 and answer.error.headers["Retry-After"] == "7"
    final = answer.cut.id
    again = server.concat(*ids)
    assert not again.done
    server.store(final)
    assert again.value.id == final and again.value.finished
    assert server.context.replication.waits == 0
    assert finals(server, *ids) == {final}


def test_while_the_store_is_down_for_long_the_same_request_makes_no_second_copy(serve):
    """The same POST again is answered for the first one while that is on its way, and for ten minutes after."""
    server = serve(replication=FakeReplication(acknowledges=True), limits=UploadLimits(final_timeout=WITHIN))
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


def test_hooks_and_the_remote_share_one_bound(finish_hooked):
    server = finish_hooked(wait := Deferred(), replication=FakeReplication(acknowledges=True))
    ids = parts(server, A)
    answer = server.concat(*ids)
    server.advance(WITHIN - 2)
    wait.callback(Granted())
    server.advance(1)
    assert not answer.done
    server.advance(1)
    assert answer.status == 503


@pytest.mark.parametrize("turns", range(24))
def test_a_client_that_hangs_up_at_any_moment_is_no_failure_and_stops_nothing(finish_hooked, logged, turns):
    """Whatever its client does, the upload goes on; and the log holds no complaint."""
    server = finish_hooked(Granted(), replication=FakeReplication(acknowledges=True))
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
    assert server.row(final).gone is GoneReason.TERMINATED
    assert all(each.state is ReplicaState.ENDING for each in server.replicas(final).values())
    assert [server.head(each).value.finished for each in ids] == [True] * len(ids)
    for each in ids:  # unpinned: its bytes go with it
        server.delete(each)
    assert server.names() == set() and server.context.space._claimed == 0


@pytest.mark.parametrize("says", [Granted(), NO, DOWN])
def test_delete_while_hooks_are_asked_ends_it_at_once(finish_hooked, says):
    server = finish_hooked(wait := Deferred(), replication=FakeReplication(acknowledges=True))
    ids = parts(server, A, B)
    asked = server.concat(*ids)
    (final,) = finals(server, *ids)
    head = server.head(final)
    check_deleted(server, asked, final, ids)
    assert isinstance(head.error, Gone)
    (wait.callback if isinstance(says, Granted) else wait.errback)(says)
    server.advance(2 * RETRY)
    assert server.names() == set() and not server.assembler._jobs, "what hooks say then comes to nothing"
    assert server.row(final).gone is GoneReason.TERMINATED


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
    monkeypatch.setattr(CopyTurns, "take", lambda self, left: turns.pop(0))
    asked = server.concat(*ids)
    (final,) = server.assembler._jobs
    assert server.delete(final).error is None
    turn.callback(None)
    server.pump()
    assert isinstance(asked.error, Gone) and asked.cut is None
    assert server.names() == set(ids) and server.names(f"{UPLOADS}/.resumable/finals") == set()
    assert server.context.space._claimed == 0 and not [each for each in logged if each["log_level"].name != "info"]


def test_delete_while_it_waits_for_the_remote_ends_it_at_once(serve):
    server = serve(replication=FakeReplication(acknowledges=True))
    ids = [server.upload(each, partial=True) for each in (A, B)]
    asked = server.concat(*ids)
    (final,) = finals(server, *ids)
    assert server.row(final).finished
    check_deleted(server, asked, final, ids)
    assert server.context.replication.waits == 0


# the same request again


def test_the_same_request_at_once_has_the_same_final_and_asks_nobody_twice(finish_hooked):
    """The same POST again ... is answered for the first one while that is on its way."""
    server = finish_hooked(create=[Granted()])
    ids = parts(server, A, B)
    answers: list[object] = []
    for _ in range(3):
        server.concat(*ids, metadata="name eA==").deferred.addBoth(answers.append)
    kinds = [kind for kind, *_ in server.hooks.asked]
    assert kinds.count(QuestionKind.CREATE) == kinds.count(QuestionKind.FINISH) == 1
    assert len(finals(server, *ids)) == 1


def test_while_hooks_are_asked_whether_it_may_be_made_the_same_request_waits(finish_hooked):
    server = finish_hooked(create=[wait := Deferred()])
    ids = parts(server, A)
    first, second = server.concat(*ids), server.concat(*ids)
    wait.callback(Granted())
    server.pump()
    assert first.value.id == second.value.id
    assert [kind for kind, *_ in server.hooks.asked].count(QuestionKind.CREATE) == 1


def test_many_that_send_the_same_request_cost_no_more_than_each_once(finish_hooked):
    """One client's many requests don't hold the loop: whoever has to wait on is not woken."""
    server = finish_hooked(create=[wait := Deferred()])
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
    server.by = Principal("ann")
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
    server = serve(limits=UploadLimits(keep_partials=0))
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


# HEAD and GET


def test_head_and_get_wait_for_a_final_that_is_just_being_put_together(finish_hooked):
    """HEAD and GET of a final that is just being put together wait for it, up to 5 s."""
    server = finish_hooked(wait := Deferred())
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


def test_they_do_not_wait_for_ever_and_not_for_one_that_waits_itself(finish_hooked):
    server = finish_hooked(Deferred())
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


def test_they_are_answered_as_soon_as_a_stop_begins(finish_hooked):
    server = finish_hooked(Deferred())
    ids = parts(server, A)
    answer = server.concat(*ids)
    (final,) = finals(server, *ids)
    head = server.head(final)
    server.ask(server.uploads.stop())
    assert isinstance(answer.error, Stopping) and answer.cut.id == final
    assert head.value.id == final and not head.value.finished
    assert isinstance(server.concat(*ids).error, Stopping)


def test_what_fails_while_all_are_looked_at_is_tried_again_after_that(finish_hooked):
    server = finish_hooked(DOWN, wait := Deferred(), Granted())
    ids = parts(server, A, B)
    first = server.concat(ids[0]).cut.id
    server.concat(ids[1])
    server.assembler.start()
    server.advance(3 * RETRY)
    wait.callback(Granted())
    server.advance(2 * RETRY)
    assert server.row(first).finished


def test_a_stop_answers_all_who_wait(finish_hooked):
    server = finish_hooked(Deferred())
    ids = parts(server, A)
    answer = server.concat(*ids)
    (final,) = finals(server, *ids)
    head = server.head(final)
    server.stop()
    assert head.deferred.called and answer.deferred.called
    assert isinstance(answer.error, Stopping) and head.value.id == final
