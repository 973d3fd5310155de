"""Hooks are asked before something happens to an upload, and may end it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from resumable.model.hooks import Answer, Granted, QuestionKind
from resumable.model.upload import FactKind
from resumable.protocol import tus
from resumable.protocol.errors import BadRequest, Gone, NotFound, OffsetMismatch, Refused, Stopping, Unavailable
from resumable.uploads.context import HookContext
from resumable.uploads.limits import UploadLimits
from tests.uploads.asking import DATA, GIVEN, REQUEST, changed, kinds
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import EPOCH, LONG, pattern, told

CREATE, APPEND = QuestionKind.CREATE, QuestionKind.APPEND
FINISH, TERMINATE = QuestionKind.FINISH, QuestionKind.TERMINATE
NO = Refused(422, {"X-Why": "no"}, b"no")
DOWN = Unavailable("The hook is down.")

# before-create


def test_a_creation_that_is_refused_makes_nothing(hooked):
    server = hooked(create=[NO])
    for answer in (server.create(10), server.create(10, FakeBody.whole(DATA)), server.create(0)):
        assert answer.error is NO and answer.cut is None
    assert server.names() == set() and len(server.hooks.asked) == 3
    assert told(server, "outside") == []


def test_a_hook_that_fails_makes_nothing(hooked):
    server = hooked(create=[DOWN])
    assert server.create(10, FakeBody.whole(DATA)).error is DOWN
    assert server.names() == set()


def test_what_is_malformed_or_too_large_is_not_asked_about(hooked):
    server = hooked(CREATE, limits=UploadLimits(max_size=5))
    assert server.create(6).status == 413
    assert server.hooks.asked == []


@pytest.mark.parametrize("body", [None, DATA, pattern(LONG)])
def test_a_hook_chooses_id_metadata_and_limit(hooked, body):
    server = hooked(create=[changed(id=GIVEN, metadata={"a": b"1"}, raw="a MQ==", max_size=LONG)])
    length = 10 if body is None else len(body)
    upload = server.create(length, None if body is None else FakeBody.whole(body), metadata="b Mg==").value
    assert upload.id == GIVEN
    row = server.row(GIVEN)
    assert (row.metadata, row.max_size, row.length) == ("a MQ==", LONG, length)
    assert row.offset == (0 if body is None else length)
    assert server.content(GIVEN) == body
    assert (server.hooks.asked[0][0], len(server.hooks.asked)) == (CREATE, 1)
    expected = [FactKind.CREATED] if body is None else [FactKind.CREATED, FactKind.FINISHED]
    assert kinds(server, GIVEN) == expected


def test_metadata_can_be_taken_away(hooked):
    server = hooked(create=[changed(metadata={}, raw="")])
    upload = server.create(1, metadata="b Mg==").value
    assert server.row(upload.id).metadata is None


def test_the_length_is_checked_again_against_the_hooks_limit(hooked):
    server = hooked(create=[changed(max_size=9)])
    assert server.create(10).status == 413
    deferred = server.create(None).value.id
    assert server.patch(deferred, 0, DATA).status == 413
    assert server.patch(deferred, 0, DATA[:9], length=10).status == 413
    assert server.patch(deferred, 0, DATA[:9], length=9).value.offset == 9


def test_an_id_that_is_taken_is_refused_and_its_file_is_not_touched(hooked):
    server = hooked(create=[changed(id=GIVEN)])
    server.create(10, FakeBody.whole(DATA)).value  # noqa: B018
    for body in (None, FakeBody.whole(b"x" * 10), FakeBody.whole(pattern(LONG))):
        answer = server.create(10 if body is None else body.length, body)
        assert isinstance(answer.error, BadRequest) and answer.cut is None
    server.create(0)
    assert server.content(GIVEN) == DATA and server.row(GIVEN).offset == 10
    assert server.delete(GIVEN).done
    assert isinstance(server.create(10).error, BadRequest), "it was used"


@pytest.mark.parametrize("size", [None, 10, LONG])
def test_an_id_is_taken_until_all_events_of_its_last_upload_are_delivered(hooked, size):
    """Though that is forgotten: receivers would take them for events of the new one, or the other way round."""
    server = hooked(create=[changed(id=GIVEN)], limits=UploadLimits(remember=60.0))
    server.create(10, FakeBody.whole(DATA)).value  # noqa: B018
    assert server.delete(GIVEN).done
    server.sweep()
    server.advance(61)
    server.sweep()
    assert isinstance(server.head(GIVEN).error, NotFound)

    def again():
        body = None if size is None else FakeBody.whole(pattern(size))
        return server.create(10 if body is None else body.length, body)

    answer = again()
    assert isinstance(answer.error, BadRequest) and answer.cut is None
    assert server.names() == set() and isinstance(server.head(GIVEN).error, NotFound)
    events = server.ask(server.catalog.outbox.due("outside", EPOCH + 1e6, 9)).value
    while events:
        events = server.ask(server.catalog.outbox.delivered([event.seq for event in events])).value
    assert again().value.id == GIVEN


@pytest.mark.parametrize("size", [10, LONG])
def test_of_two_creations_with_the_same_id_at_the_same_time_one_is_made(hooked, size):
    go = [Deferred(), Deferred()]
    server = hooked(create=[*go, NO])
    ours, theirs = pattern(size, 1), pattern(size, 2)
    answers = [server.create(size, FakeBody.whole(data)) for data in (ours, theirs)]
    for each in go:
        each.callback(changed(id=GIVEN))
    server.pump()
    made = [answer for answer in answers if answer.error is None]
    assert len(made) == 1 and made[0].value.offset == size
    assert server.content(GIVEN) == (ours, theirs)[answers.index(made[0])]
    assert server.names() == {GIVEN}


def test_an_upload_with_a_given_id_that_is_cut_off_can_be_resumed(hooked):
    server = hooked(create=[changed(id=GIVEN)])
    body = FakeBody(10).arrive(b"01234")
    answer = server.create(10, body)
    body.lose()
    server.pump()
    assert server.head(GIVEN).value.offset == 5 or server.row(GIVEN).offset == 0
    assert answer.done
    offset = server.head(GIVEN).value.offset
    assert server.patch(GIVEN, offset, DATA[offset:]).value.offset == 10


def test_a_hook_chooses_key_and_remotes(hooked):
    server = hooked(
        replication=FakeReplication(("a", "b"), ("c",)), create=[changed(key="k/1", remotes=("b", "c")), Granted()]
    )
    for body in (None, FakeBody.whole(DATA)):
        server.hooks.says[CREATE][:] = [changed(key="k/1", remotes=("b", "c"))]
        upload_id = server.create(10, body).value.id
        assert {name: each.key for name, each in server.replicas(upload_id).items()} == {"b": "k/1", "c": "k/1"}
        assert server.row(upload_id).required == 1
    server.hooks.says[CREATE][:] = [Granted()]
    assert set(server.replicas(server.create(10).value.id)) == {"a", "b", "c"}


def test_a_final_upload_is_asked_about_with_its_partials(hooked):
    server = hooked(CREATE)
    parts = [server.upload(b"abc", partial=True), server.upload(b"def", partial=True)]
    server.hooks.says[CREATE] = [NO, changed(max_size=5), changed(id=GIVEN, max_size=6)]
    assert server.concat(*parts).error is NO
    assert server.concat(*parts).status == 413
    assert server.concat(*parts).value.id == GIVEN
    assert server.content(GIVEN) == b"abcdef"


# before-append


def test_an_append_that_is_refused_leaves_the_upload_as_it_is(hooked):
    server = hooked(append=[NO])
    upload_id = server.create(10).value.id
    body = FakeBody.whole(DATA)
    assert server.patch(upload_id, 0, body).error is NO
    assert body.events == [], "nothing of it was read"
    assert server.head(upload_id).value.offset == 0
    server.hooks.says[APPEND] = [Granted()]
    assert server.patch(upload_id, 0, DATA).value.offset == 10


def test_a_creation_with_a_body_is_an_append_too(hooked):
    server = hooked(CREATE, append=[NO])
    assert server.create(10, FakeBody.whole(DATA)).error is NO
    assert [kind for kind, *_ in server.hooks.asked] == [CREATE, APPEND]
    assert server.names() == set()
    assert server.create(10).value.offset == 0


def test_what_is_unknown_or_final_is_not_asked_about(hooked):
    server = hooked(APPEND)
    assert isinstance(server.patch("0" * 32, 0, b"x").error, NotFound)
    parts = server.upload(partial=True), server.upload(partial=True)
    server.hooks.asked.clear()
    assert server.patch(server.concat(*parts).value.id, 0, b"x").status == 403
    assert server.hooks.asked == []


def test_nobody_waits_for_a_question_about_an_append(hooked):
    server = hooked(append=[Deferred()])
    upload_id = server.create(10).value.id
    answer = server.patch(upload_id, 0, DATA)
    assert not answer.done
    assert server.head(upload_id).value.offset == 0
    assert server.delete(upload_id).done
    server.hooks.says[APPEND][0].callback(Granted())
    server.pump()
    assert isinstance(answer.error, Gone)


# DELETE while they are asked


def test_delete_ends_what_waits_for_a_hook_at_once(hooked):
    """DELETE always evicts: also a request that waits until a hook has said whether it may append, or finish."""
    server = hooked(append=[Granted(), to_append := Deferred()], finish=[to_finish := Deferred()])
    appending, finishing = (server.create(10).value.id for _ in range(2))
    answers = [server.patch(finishing, 0, DATA), server.patch(appending, 0, DATA)]
    assert [each.done for each in answers] == [False, False]
    for each in (appending, finishing):
        assert server.delete(each).error is None
    assert [type(each.error) for each in answers] == [Gone, Gone]
    assert server.names() == set()
    to_append.callback(Granted())
    to_finish.callback(Granted())
    server.pump()
    assert server.names() == set() and not server.context.questions._under_way


# before-finish


@pytest.mark.parametrize("size", [1, 10, LONG])
def test_an_upload_is_finished_once_a_hook_has_agreed(hooked, size):
    server = hooked(finish=[Deferred(), Granted()])
    data = pattern(size)
    upload_id = server.create(size).value.id
    answer = server.patch(upload_id, 0, data)
    assert not answer.done and server.hooks.asked == [(FINISH, upload_id, size)]
    row = server.row(upload_id)
    assert (row.offset, row.finished) == (size, False), "durable, and not finished"
    assert not server.context.holds.held(upload_id)
    assert server.head(upload_id).value.offset == size - 1
    assert isinstance(server.ask(server.uploads.read(upload_id)).error, NotFound)


def test_the_hooks_yes_finishes_it_and_goes_to_the_client(hooked):
    yes = Deferred()
    server = hooked(finish=[yes])
    upload_id = server.create(10).value.id
    visit = HookContext(REQUEST)
    request = tus.Append(0, None, None, False)
    answer = server.ask(server.uploads.append(upload_id, request, FakeBody.whole(DATA), hooks=visit))
    yes.callback(Granted(answer=Answer(200, {"X-Job": "7"}, b"done")))
    server.pump()
    assert answer.value.finished and answer.value.offset == 10
    assert visit.answer == Answer(200, {"X-Job": "7"}, b"done")
    assert server.head(upload_id).value.offset == 10 and server.row(upload_id).finished
    assert kinds(server, upload_id) == [FactKind.CREATED, FactKind.FINISHED]
    assert server.hooks.requests == [REQUEST]


def test_a_refusal_is_repeated_with_the_last_byte_until_the_hook_agrees(hooked):
    server = hooked(finish=[NO, DOWN, Granted()])
    upload_id = server.create(10).value.id
    assert server.patch(upload_id, 0, DATA).error is NO
    assert server.head(upload_id).value.offset == 9
    assert server.patch(upload_id, 10, b"").status == 409
    assert isinstance(server.patch(upload_id, 9, b"x").error, OffsetMismatch), "another byte"
    assert server.patch(upload_id, 9, b"").value.offset == 9, "which asks nothing"
    assert server.patch(upload_id, 9, b"9").error is DOWN
    assert kinds(server, upload_id) == [FactKind.CREATED]
    assert server.patch(upload_id, 9, b"9").value.offset == 10
    assert len(server.hooks.asked) == 3
    assert server.content(upload_id) == DATA and server.row(upload_id).finished
    assert server.patch(upload_id, 10, b"").value.offset == 10


@pytest.mark.parametrize("no", [NO, DOWN], ids=["refused", "failed"])
def test_creation_with_upload_is_201_with_the_last_byte_withheld(hooked, no):
    server = hooked(finish=[no, Granted()])
    upload = server.create(10, FakeBody.whole(DATA)).value
    assert upload.offset == 9 and not server.row(upload.id).finished
    assert server.patch(upload.id, 9, b"9").value.offset == 10


@pytest.mark.parametrize("no", [NO, DOWN], ids=["refused", "failed"])
def test_an_empty_upload_waits_for_the_hook_too(hooked, no):
    server = hooked(finish=[no, no, Granted()])
    answer = server.create(0)
    assert answer.error is no and answer.cut is not None
    upload_id = answer.cut.id
    assert not server.row(upload_id).finished
    assert server.patch(upload_id, 0, b"").error is no
    assert server.patch(upload_id, 0, b"").value.finished
    assert server.row(upload_id).finished


def test_those_who_ask_meanwhile_get_the_same_answer(hooked):
    yes = Deferred()
    server = hooked(finish=[yes])
    upload_id = server.create(10).value.id
    first, second = server.patch(upload_id, 0, DATA), server.patch(upload_id, 9, b"9")
    assert len(server.hooks.asked) == 1
    yes.callback(Granted())
    server.pump()
    assert first.value.offset == second.value.offset == 10
    assert kinds(server, upload_id).count(FactKind.FINISHED) == 1


def test_a_yes_counts_when_the_client_has_gone(hooked):
    yes = Deferred()
    server = hooked(finish=[yes])
    upload_id = server.create(10).value.id
    answer = server.patch(upload_id, 0, DATA)
    answer.deferred.cancel()
    yes.callback(Granted())
    server.pump()
    assert server.row(upload_id).finished


def test_the_remotes_are_told_of_the_bytes_but_not_of_an_end(hooked):
    remote = FakeReplication()
    server = hooked(replication=remote, finish=[NO, Granted()])
    upload_id = server.create(10).value.id
    server.patch(upload_id, 0, DATA)
    assert [(each.offset, each.finished) for each in remote.told] == [(10, False)]
    server.patch(upload_id, 9, b"9")
    assert remote.told[-1].finished


def test_acknowledging_waits_for_the_hook_and_then_for_the_remote(hooked):
    yes = Deferred()
    server = hooked(replication=FakeReplication(acknowledges=True), finish=[yes])
    upload_id = server.create(10).value.id
    answer = server.patch(upload_id, 0, DATA)
    yes.callback(Granted())
    server.pump()
    assert not answer.done and server.row(upload_id).finished
    assert server.head(upload_id).value.offset == 9
    server.store(upload_id)
    assert answer.value.offset == 10
    assert len(server.hooks.asked) == 1


def test_a_partial_is_asked_about_and_its_final_waits_for_it(hooked):
    server = hooked(finish=[NO])
    part = server.create(3, partial=True).value.id
    assert server.patch(part, 0, b"abc").error is NO
    final = server.concat(part).value.id
    assert server.content(final) is None
    server.hooks.says[FINISH] = [Granted()]
    assert server.patch(part, 2, b"c").value.offset == 3
    assert server.content(final) == b"abc" and server.row(final).finished
    assert server.hooks.asked[-1] == (FINISH, final, 3)


def test_a_final_that_is_refused_ends_and_one_that_cant_be_asked_about_waits(hooked):
    server = hooked(CREATE)
    parts = [server.upload(each, partial=True) for each in (b"abc", b"def")]
    server.hooks.says[FINISH] = [DOWN, Granted(), NO]
    answer = server.concat(*parts)
    late = answer.cut.id
    assert answer.status == 503 and not server.row(late).finished
    server.advance(30.0)
    assert server.row(late).finished and server.content(late) == b"abcdef"
    assert server.concat(*reversed(parts)).error is NO
    refused = server.hooks.asked[-1][1]
    assert isinstance(server.head(refused).error, Gone)
    assert kinds(server, refused) == [FactKind.CREATED, FactKind.TERMINATED]


def test_an_upload_that_waits_for_a_hook_expires_as_others_do(hooked):
    server = hooked(finish=[NO])
    upload_id = server.create(10).value.id
    server.patch(upload_id, 0, DATA)
    assert server.context.expires_at(server.head(upload_id).value) is not None
    server.advance(3700.0)
    server.sweep()
    assert isinstance(server.head(upload_id).error, Gone)


def test_after_a_restart_it_waits_for_its_client(hooked, machine):
    server = hooked(finish=[Deferred()])
    upload_id = server.create(10).value.id
    server.patch(upload_id, 0, DATA)
    again = hooked(on=machine.after_kill(), finish=[NO, Granted()])
    assert again.head(upload_id).value.offset == 9 and not again.row(upload_id).finished
    assert again.patch(upload_id, 9, b"9").error is NO
    assert again.patch(upload_id, 9, b"9").value.offset == 10
    assert kinds(again, upload_id) == [FactKind.CREATED, FactKind.FINISHED]


def test_bytes_that_a_crash_left_uncommitted_finish_nothing_before_the_hook_has_agreed(hooked, machine):
    server = hooked(FINISH)
    data = pattern(LONG)
    upload_id = server.create(LONG).value.id
    server.write_uncommitted(upload_id, data)
    server.bury()
    again = hooked(on=machine.after_kill(), finish=[NO, Granted()])
    assert again.recovered.adopted == 1
    row = again.row(upload_id)
    assert (row.offset, row.finished) == (LONG - 1, False)
    assert again.patch(upload_id, LONG - 1, data[-1:]).error is NO
    assert again.patch(upload_id, LONG - 1, data[-1:]).value.offset == LONG


def test_without_the_hook_after_a_restart_the_last_byte_finishes_it(hooked, machine):
    server = hooked(finish=[NO])
    upload_id = server.create(10).value.id
    server.patch(upload_id, 0, DATA)
    again = hooked(on=machine.after_kill())
    assert again.head(upload_id).value.offset == 9
    assert again.patch(upload_id, 9, b"9").value.offset == 10
    assert again.row(upload_id).finished


def test_a_delete_ends_what_waits_for_a_hook(hooked):
    yes = Deferred()
    server = hooked(finish=[yes])
    upload_id = server.create(10).value.id
    answer = server.patch(upload_id, 0, DATA)
    assert server.delete(upload_id).done
    yes.callback(Granted())
    server.pump()
    assert isinstance(answer.error, Gone)
    assert kinds(server, upload_id) == [FactKind.CREATED, FactKind.TERMINATED]


@pytest.mark.parametrize("kind", list(QuestionKind), ids=lambda kind: kind.value)
def test_a_server_that_stops_breaks_off_what_it_asks(hooked, kind):
    waits = Deferred()
    server = hooked(**{kind.name.lower(): [waits]})
    if kind is CREATE:
        answer = server.create(10)
    else:
        upload_id = server.create(10).value.id
        answer = server.delete(upload_id) if kind is TERMINATE else server.patch(upload_id, 0, DATA)
    assert not answer.done
    server.ask(server.uploads.stop())
    assert isinstance(answer.error, Stopping)
    assert isinstance(server.create(10).error, Stopping)


# before-terminate, and the end


def test_an_upload_whose_end_is_refused_stays(hooked):
    server = hooked(terminate=[NO, Granted()])
    upload_id = server.create(10).value.id
    running = server.patch(upload_id, 0, FakeBody(10).arrive(b"012"))
    assert server.delete(upload_id).error is NO
    assert not running.done, "nobody was evicted"
    visit = HookContext(REQUEST)
    assert server.ask(server.uploads.terminate(upload_id, visit)).done
    assert running.status == 423
    (fact,) = [each for each in told(server, "outside") if each.kind is FactKind.TERMINATED]
    assert fact.data["request"]["uri"] == "/files/"


def test_a_running_upload_is_stopped_with_the_answer_of_a_hook(hooked):
    server = hooked(TERMINATE)
    upload_id = server.create(10).value.id
    body = FakeBody(10).arrive(b"012")
    running = server.patch(upload_id, 0, body)
    assert server.ask(server.uploads.stop_upload(upload_id, NO)).error is None
    assert running.error is NO and body.discarded
    assert isinstance(server.head(upload_id).error, Gone)
    assert server.hooks.asked == [], "nobody is asked about it"
    assert isinstance(server.ask(server.uploads.stop_upload(upload_id)).error, Gone)


def test_an_upload_is_stopped_by_the_api_without_a_reason(hooked):
    server = hooked()
    upload_id = server.create(10).value.id
    running = server.patch(upload_id, 0, FakeBody(10).arrive(b"012"))
    assert server.ask(server.uploads.stop_upload(upload_id)).error is None
    assert isinstance(running.error, Gone)
