"""The guard: several authorizers make one answer, an upload is its creator's, and what fails opens nothing."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resumable.auth.guard import AccessGuard, AnyOf
from resumable.auth.interfaces import IAuthorizer
from resumable.auth.rates import Rate, Rates
from resumable.model.principal import ALL, EVERYDAY, Action, Principal
from resumable.protocol.errors import Forbidden, NotFound, TooManyRequests, Unauthorized, Unavailable
from tests.auth.auth_rig import ID, LOOK, NOW, refusal, result, wall


@implementer(IAuthorizer)
class Saying:
    """Answers always the same."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def authorize(self, ask):
        self.asked.append(ask)
        if isinstance(self.answer, Exception):
            return fail(self.answer)
        return succeed(self.answer)


class Raising(Saying):
    def authorize(self, ask):
        raise self.answer


ALICE, NOBODY = Principal("alice"), Principal("")
WRONG = Unauthorized("wrong", ['Bearer realm="x", error="invalid_token"'])
MISSING = Unauthorized("missing", ['Basic realm="x"'])
AWAY = Unavailable("away", 5)
NOT_YOU = Forbidden("not you")


class Records:
    def __init__(self, **owners):
        self.owners = owners
        self.asked = []

    def __call__(self, upload_id):
        self.asked.append(upload_id)
        return succeed(self.owners.get(upload_id))


def guard(answer, owner="alice", **further):
    records = Records(**({} if owner is None else {ID: owner}))
    authorizer = answer if hasattr(answer, "authorize") else Saying(answer)
    return AccessGuard(authorizer, records, wall, **further), records


def check(checked, ask=LOOK):
    return Deferred.fromCoroutine(checked.check(ask))


@pytest.mark.parametrize("authorizer", [AnyOf([])])
def test_they_are_authorizers(authorizer):
    assert verifyObject(IAuthorizer, authorizer)


@pytest.mark.parametrize("action", sorted(EVERYDAY, key=str))
def test_the_creator_may_do_everything_with_an_upload(action):
    checked, records = guard(ALICE)
    assert result(check(checked, evolve(LOOK, action=action))) == ALICE
    assert records.asked == [ID]


@pytest.mark.parametrize("action", sorted(EVERYDAY - {Action.CREATE}, key=str))
def test_to_a_stranger_an_upload_of_somebody_else_is_one_that_never_was(action):
    ask = evolve(LOOK, action=action)
    foreign = refusal(check(guard(Principal("mallory"))[0], ask), NotFound)
    unknown = refusal(check(guard(Principal("mallory"), owner=None)[0], ask), NotFound)
    assert (foreign.detail, foreign.headers, foreign.status) == (unknown.detail, unknown.headers, unknown.status)
    nobody = refusal(check(guard(NOBODY)[0], ask), NotFound)
    assert nobody.detail == unknown.detail


@pytest.mark.parametrize("identity", [ALICE, Principal("mallory"), NOBODY])
def test_an_upload_of_nobody_is_for_whoever_was_let_in(identity):
    assert result(check(guard(identity, owner="")[0])) == identity


@pytest.mark.parametrize("refused", [WRONG, MISSING, AWAY, NOT_YOU])
@pytest.mark.parametrize("action", list(Action))
def test_nothing_is_looked_up_for_who_was_not_let_in(refused, action):
    checked, records = guard(refused)
    assert refusal(check(checked, evolve(LOOK, action=action)), type(refused)) is refused
    assert records.asked == []


def test_every_request_is_asked_about():
    authorizer = Saying(ALICE)
    checked, _ = guard(authorizer)
    for action in Action:
        check(checked, evolve(LOOK, action=action)).addErrback(lambda failure: failure.trap(Forbidden))
    assert [ask.action for ask in authorizer.asked] == list(Action)


@pytest.mark.parametrize("action", [Action.LIST, Action.ADMIN])
def test_listing_and_administration_are_for_admins(action):
    ask = evolve(LOOK, action=action, upload_id=None)
    for identity in (ALICE, NOBODY):
        refusal(check(guard(identity)[0], ask), Forbidden)
    assert result(check(guard(ALICE, admins=frozenset({"alice"}))[0], ask)) == evolve(ALICE, actions=ALL)
    root = Principal("root", actions=ALL)
    assert result(check(guard(root)[0], ask)) == root


def test_an_admin_may_see_the_uploads_of_all():
    assert result(check(guard(Principal("root"), admins=frozenset({"root"}))[0])).name == "root"


def test_nobody_is_never_an_admin():
    refusal(check(guard(NOBODY, admins=frozenset({""}))[0], evolve(LOOK, action=Action.ADMIN)), Forbidden)


def test_what_an_identity_may_not_do_is_403_whether_the_upload_is_there_or_not():
    reader = Principal("alice", actions=frozenset({Action.READ}))
    for owner in ("alice", "bob", None):
        checked, records = guard(reader, owner=owner)
        refusal(check(checked), Forbidden)
        assert records.asked == []


def test_uploads_named_in_a_header_are_bound_as_well():
    checked, _ = guard(ALICE, owner="bob")
    refusal(Deferred.fromCoroutine(checked.own(ALICE, ID)), NotFound)
    refusal(Deferred.fromCoroutine(checked.own(ALICE, "b" * 22)), NotFound)


def test_credentials_that_have_expired_meanwhile_let_nobody_in():
    refusal(check(guard(evolve(ALICE, until=NOW))[0]), Unavailable)
    assert result(check(guard(evolve(ALICE, until=NOW + 1))[0])).name == "alice"


@pytest.mark.parametrize("problem", [ValueError("secret"), KeyError("x"), RecursionError()])
@pytest.mark.parametrize("kind", [Saying, Raising])
def test_an_authorizer_that_fails_lets_nobody_in(problem, kind):
    refused = refusal(check(guard(kind(problem))[0]), Unavailable)
    assert refused.headers["Retry-After"] and "secret" not in refused.detail


@pytest.mark.parametrize("answer", [None, True, "alice", ("alice",)])
def test_an_answer_that_is_no_identity_lets_nobody_in(answer):
    refusal(check(guard(answer)[0]), Unavailable)


def test_a_lookup_that_fails_lets_nobody_in():
    checked = AccessGuard(Saying(ALICE), lambda upload_id: fail(Unavailable("no catalog")), wall)
    refusal(check(checked), Unavailable)


class Counting:
    def __init__(self):
        self.counted = []

    def request(self, name):
        self.counted.append(name)

    def refused(self, address):
        self.counted.append(f"refused{address}")


def test_requests_are_counted_by_identity_or_by_address():
    rates = Counting()
    result(check(guard(ALICE, rates=rates)[0]))
    result(check(guard(NOBODY, owner="", rates=rates)[0]))
    assert rates.counted == ["alice", " 192.0.2.1"]


@pytest.mark.parametrize("refused", [WRONG, MISSING, NOT_YOU])
def test_who_is_not_let_in_counts_by_address(refused):
    rates = Counting()
    refusal(check(guard(refused, rates=rates)[0]), type(refused))
    refusal(check(guard(refused, rates=rates)[0], evolve(LOOK, peer="2001:db8::1:2:3")), type(refused))
    assert rates.counted == ["refused 192.0.2.1", "refused 2001:db8::/64"]


def test_a_failure_of_ours_counts_against_nobody():
    rates = Counting()
    refusal(check(guard(AWAY, rates=rates)[0]), Unavailable)
    assert rates.counted == []


def test_refused_requests_over_the_limit_are_429_and_keep_nobody_else_out():
    clock = Clock()
    rates = Rates(clock.seconds, requests=(Rate(2.0), Rate(2.0)))
    stranger, friend = guard(WRONG, rates=rates)[0], guard(ALICE, rates=rates)[0]
    answers = []
    for n in range(5):
        check(stranger, evolve(LOOK, peer=f"2001:db8::{n}")).addErrback(lambda failure: answers.append(failure.value))
    assert [each.status for each in answers] == [401, 401, 429, 429, 429]
    assert answers[-1].headers["Retry-After"] == "1"
    assert result(check(friend, evolve(LOOK, peer="2001:db8::1"))) == ALICE, "also from there"
    clock.advance(0.5)
    refusal(check(stranger, evolve(LOOK, peer="2001:db8::1")), Unauthorized)


def test_a_name_that_is_an_address_shares_nothing_with_it():
    rates = Rates(lambda: 0.0, requests=(Rate(1.0), Rate()))
    refusal(check(guard(WRONG, rates=rates)[0]), Unauthorized)
    assert result(check(guard(Principal(LOOK.peer), owner="", rates=rates)[0])).name == LOOK.peer


def test_too_many_requests_are_429_and_look_nothing_up():
    rates = Rates(lambda: 0.0, requests=(Rate(1.0), Rate()))
    checked, records = guard(ALICE, rates=rates)
    result(check(checked))
    assert refusal(check(checked), TooManyRequests).headers["Retry-After"] == "1"
    assert len(records.asked) == 1


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([ALICE], ALICE),
        ([WRONG, ALICE], ALICE),
        ([AWAY, ALICE], ALICE),
        ([NOT_YOU, ALICE], ALICE),
        ([ALICE, AWAY], ALICE),
        ([WRONG, AWAY], Unavailable),
        ([AWAY, NOT_YOU], Unavailable),
        ([WRONG, NOT_YOU], Forbidden),
        ([WRONG, MISSING], Unauthorized),
        ([ValueError("x"), WRONG], Unavailable),
        ([ValueError("x"), ALICE], ALICE),
    ],
)
def test_any_of_several_may_let_in_and_what_fails_never_does(answers, expected):
    answer = AnyOf([Saying(answer) for answer in answers]).authorize(LOOK)
    if isinstance(expected, Principal):
        assert result(answer) == expected
    else:
        refusal(answer, expected)


def test_all_challenges_are_told_and_what_was_wrong_before_what_is_missing():
    refused = refusal(AnyOf([Saying(MISSING), Saying(WRONG), Saying(MISSING)]).authorize(LOOK), Unauthorized)
    assert refused.detail == "wrong"
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="x", Bearer realm="x", error="invalid_token"'


def test_questions_do_not_show_credentials():
    ask = evolve(LOOK, query="token=hush", headers={"authorization": ["hush"]})
    assert "hush" not in repr(ask) and "hush" not in repr(Principal("a", carry="token=hush"))
