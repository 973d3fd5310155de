"""How final uploads are put together: room for them, their partials, many at once, and whose turn it is."""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from resumable.model.errors import CatalogUnavailable
from resumable.model.hooks import Granted
from resumable.model.upload import GoneReason, StoreChange, StoredPart
from resumable.protocol.errors import BadRequest, Gone, NoSpace
from resumable.spool.assembly import SHARES, Assembly
from resumable.uploads import assembly, building
from resumable.uploads.assembly import RETRY
from resumable.uploads.building import CopyTurns
from resumable.uploads.context import Questions
from resumable.uploads.janitor import ANSWERED
from resumable.uploads.limits import UploadLimits
from tests.uploads.asking import GIVEN, changed
from tests.uploads.fakes import FakeHooks
from tests.uploads.final_requests import ASKED, NO, A, B, C, finals, parts, patched, request
from tests.uploads.harness import UPLOADS, Server
from tests.uploads.machine import machines

# space, quota, sizes


def test_a_final_that_does_not_fit_is_507_and_nothing_is_copied(serve):
    """Space: the whole length against the reserve before anything is copied."""
    server = serve(reserve=2000, assembly_step=1000)
    a = server.upload(A, partial=True)
    server.disk.free_bytes = 2000 + len(A) - 1
    server.ask(server.context.space.look(server.spool))
    server.disk.trace.clear()
    answer = server.concat(a)
    assert isinstance(answer.error, NoSpace) and answer.cut is None
    assert "copy_range" not in [operation for operation, _ in server.disk.trace]
    assert server.names() == {a}
    assert server.upload(B), "nobody else is refused"
    server.disk.free_bytes += 1
    assert server.concat(a).value.finished


def test_two_finals_that_do_not_fit_together_are_not_begun_together(finish_hooked):
    server = finish_hooked(reserve=2000, create=[wait := Deferred(), Granted()])
    a, b = parts(server, A, B)
    server.disk.free_bytes = 2000 + 2 * len(A) - 1
    first = server.concat(a)
    assert isinstance(server.concat(a, b).error, NoSpace), "the room is claimed"
    wait.errback(NO)
    server.pump()
    assert first.error is NO
    assert server.concat(a, b).value.finished, "and given back"
    assert server.context.space._claimed == 0


def test_a_claim_is_nobody_elses_room(finish_hooked):
    server = finish_hooked(reserve=2000, create=[wait := Deferred(), Granted()])
    (a,) = parts(server, A)
    server.disk.free_bytes = 2000 + len(A) + 1
    server.ask(server.context.space.look(server.spool))
    server.concat(a)
    server.ask(server.context.space.look(server.spool))
    assert server.context.space.room == 1
    wait.errback(NO)
    server.pump()
    assert server.context.space.room == len(A) + 1


def test_a_final_whose_partials_come_later_waits_for_space_and_takes_none(serve):
    server = serve(reserve=2000, assembly_step=1000)
    a = server.create(len(A), partial=True).value.id
    final = server.concat(a).value.id
    server.disk.free_bytes = 2000 + len(A) - 1
    server.ask(server.context.space.look(server.spool))
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
    looked = Deferred.fromCoroutine(server.context.space.look(server.spool))
    while not looked.called:
        server.turn()
    server.pump()
    cut = answers[0].value
    assert isinstance(cut.error, NoSpace)
    assert server.machine.trace.count("copy_range") < 10
    assert server.names() == {a} and server.names(f"{UPLOADS}/.resumable/finals") == set()
    server.disk.free_bytes = 1 << 30
    server.ask(server.context.space.look(server.spool))
    server.advance(RETRY)
    assert server.content(cut.upload.id) == A


# partials


def test_used_partials_go_an_hour_after_the_last_final_that_used_them(serve):
    """Partials: removed `--keep-partials` (1h) after the last final that used them."""
    server = serve(limits=UploadLimits(keep_partials=3600.0, expire_after=None))
    a, b, unused = (server.upload(each, partial=True) for each in (A, B, C))
    first = server.concat(a, b).value.id
    server.advance(3000)
    second = server.concat(b).value.id
    server.advance(700)
    server.sweep()
    assert server.names() == {b, unused, first, second}
    assert server.row(a).gone is GoneReason.EXPIRED
    server.advance(3000)
    server.sweep()
    assert server.names() == {unused, first, second}
    assert isinstance(server.concat(b, metadata="x").error, BadRequest)


def test_what_is_kept_of_many_is_forgotten_in_one_round(serve, monkeypatch):
    monkeypatch.setattr("resumable.uploads.janitor.BATCH", 3)
    server = serve(limits=UploadLimits(keep_partials=0, remember=100.0))
    for number in range(10):
        assert server.concat(server.upload(B, partial=True), metadata=f"n{number} eA==").value.finished
    server.advance(ANSWERED + 1)
    server.sweep()
    assert server.ask(server.catalog.forget_asked(1e12, 100)).value == 0
    assert server.ask(server.catalog.forget(1e12, 100)).value == 0


def test_with_zero_they_go_at_once(serve):
    """..., at once with 0 (then a later final that names them is refused)."""
    server = serve(limits=UploadLimits(keep_partials=0))
    a, b = (server.upload(each, partial=True) for each in (A, B))
    late = server.create(3, partial=True).value.id
    waiting = server.concat(b, late).value.id
    final = server.concat(a, b).value.id
    assert server.names() == {b, final}, "another final needs it"
    assert server.head(b).value.finished
    assert isinstance(server.concat(a, metadata="x").error, BadRequest)
    server.patch(late, 0, b"abc")
    assert server.names() == {final, waiting}


def test_a_final_is_not_made_of_what_went_while_hooks_were_asked(finish_hooked):
    server = finish_hooked(create=[wait := Deferred()])
    (a,) = parts(server, A)
    answer = server.concat(a)
    server.delete(a)
    wait.callback(Granted())
    server.pump()
    assert answer.status == 409
    assert server.names() == set()
    assert server.context.space._claimed == 0


def test_a_final_whose_given_id_is_taken_is_refused_for_good_as_any_upload_is(finish_hooked):
    """docs/hooks.md: it must be new, else 400. Of a 409 clients think that asking again helps."""
    server = finish_hooked(create=[changed(id=GIVEN)])
    ids = parts(server, A, B)
    assert server.concat(*ids).value.id == GIVEN
    answer = server.concat(*ids, metadata="x")
    assert isinstance(answer.error, BadRequest) and answer.cut is None
    assert server.names() == {*ids, GIVEN} and server.content(GIVEN) == A + B
    assert server.context.space._claimed == 0
    assert server.delete(GIVEN).done
    assert isinstance(server.concat(*ids, metadata="x").error, BadRequest), "it was used"


def test_a_partial_that_finishes_while_hooks_are_asked_is_not_waited_for(finish_hooked):
    server = finish_hooked(create=[wait := Deferred()])
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
    turns, order = CopyTurns(1), []
    turns.take(0)
    for name, left in (("big", 100), ("big too", 100), ("small", 0), ("small too", 0)):
        turns.take(left).addCallback(lambda _, name=name: order.append(name))
    for _ in range(4):
        turns.give_back()
    assert order == ["small", "small too", "big", "big too"]


def test_nobody_is_passed_for_ever():
    turns, order = CopyTurns(1), []
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
    take, copy = CopyTurns.take, Assembly.copy
    monkeypatch.setattr(CopyTurns, "take", lambda self, left: asked.append(left) or take(self, left))
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
    server.ask(server.context.space.look(server.spool))
    server.patch(a, 0, A)
    server.ask(server.context.space.look(server.spool))
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
    server.ask(server.context.space.look(server.spool))
    server.context.space.room = 10**9
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
    server = serve(limits=UploadLimits(keep_partials=0))
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
        server = Server(machine, questions=Questions(hooks), limits=UploadLimits(keep_partials=0)).start()
        ids = [server.upload(each, partial=True) for each in (A, B)]
        machine.crash_at(step)
        first = server.concat(*ids, request=ASKED)
        over = not machine.down
        server.bury()
        after = machine.after_power_loss(Random(step)) if step % 2 else machine.after_kill()
        hooks = FakeHooks(finish=[Granted()], create=[Granted()])
        server = Server(after, questions=Questions(hooks), limits=UploadLimits(keep_partials=0)).start()
        final = server.concat(*ids, request=ASKED).value
        assert server.content(final.id) == A + B
        assert not first.done or first.value.id == final.id
        server.sweep()
        assert server.names() == {final.id}
        server.bury()
        if over:
            return
    raise AssertionError("it has no end")


# in an object store


class StoredCopy:
    """The copy of a final as one in a store is. ``made``: it is the object already."""

    steps_left = copied = 0
    complete = False
    segment = None

    def __init__(self, length, made):
        self.length, self.made, self.discarded = length, made, 0

    def next_size(self, shared):
        return self.length

    def look(self):
        return succeed(None)

    def copy(self, size):
        self.copied, self.complete = size, True
        return succeed(None)

    def name(self):
        made = {"key": "k"} if self.made else None
        parts = () if self.made else (StoredPart(0, self.length, 1, "n", "r"),)
        self.segment = StoreChange(1, parts, multipart=None if self.made else "handle", made=made)
        return succeed(None)

    def discard(self):
        self.discarded += 1
        return succeed(None)


@pytest.fixture(params=[False, True])
def stored(request):
    """Makes a server's finals go to a store; answers where their copies will be."""

    def store(server):
        copies, joinable = [], []

        def assembly(final_id, sources):
            copies.append(StoredCopy(sum(size for _, size in sources), request.param))
            return copies[-1]

        server.spool.assembly = assembly
        server.context.listeners.joinable.append(joinable.append)
        return copies, joinable, request.param

    return store


def test_a_final_in_a_store_is_to_be_completed_once_its_commit_has_landed(serve, stored):
    server = serve()
    copies, joinable, is_whole = stored(server)
    commits, commit = [], server.catalog.commit
    server.catalog.commit = lambda change, *rest: commits.append(change) or commit(change, *rest)
    a = server.upload(A, partial=True)
    commits.clear()
    final = server.concat(a).value
    assert final.finished and commits[-1].segment is copies[0].segment
    assert joinable == ([] if is_whole else [final.id]) and not copies[0].discarded


def test_what_a_refused_final_has_made_in_a_store_is_given_up(finish_hooked, stored):
    server = finish_hooked(NO)
    copies, joinable, _ = stored(server)
    (a,) = parts(server, A)
    assert server.concat(a).error is not None
    assert [each.discarded for each in copies] == [1] and not joinable


def test_the_loser_of_two_that_put_a_final_together_gives_its_copy_up(serve, stored):
    server = serve()
    copies, joinable, _ = stored(server)
    a = server.upload(A, partial=True)
    server.catalog.commit = lambda change, *rest: succeed(False)
    server.concat(a)
    assert [each.discarded for each in copies] == [1] and not joinable


def test_a_commit_without_an_answer_leaves_the_copy_that_it_may_have_recorded(serve, stored):
    server = serve()
    copies, joinable, _ = stored(server)
    a = server.upload(A, partial=True)
    server.catalog.commit = lambda change, *rest: fail(CatalogUnavailable("gone"))
    assert server.concat(a).status == 503
    assert [each.discarded for each in copies] == [0] and not joinable
