"""HTTP Basic and files of tokens: who is in the file gets in, however the file changes, and nobody else."""

from __future__ import annotations

import base64
import os
from unittest import mock

import bcrypt
import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from resumable.auth import basic, tokens
from resumable.auth.basic import Basic, parse_htpasswd
from resumable.auth.guard import AccessGuard
from resumable.auth.interfaces import IAuthorizer
from resumable.auth.rates import Rate, Rates
from resumable.auth.secret import AccessProblem, WatchedFile
from resumable.auth.tokens import StaticTokens, parse_tokens
from resumable.model.principal import Action
from resumable.protocol.errors import TooManyRequests, Unauthorized, Unavailable
from resumable.testing import SteppedPool
from tests.auth.auth_rig import SALT, asking, refusal, result, with_basic, with_bearer


def hashed(password: str, cost: int = 4) -> str:
    """As htpasswd -B writes it."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode().replace("$2b$", "$2y$")


class Rig:
    def __init__(self, path, text, parse, what="the password file"):
        self.clock = Clock()
        self.path = path
        self.pool = SteppedPool(self.clock)
        self.pool.start()
        self.write(text)
        self.file = WatchedFile(what, path, parse, self.pool, self.clock)

    def write(self, text):
        self.path.write_text(text)
        os.utime(self.path, ns=(0, hash(text) % 10**15))

    def later(self, seconds=0.0):
        self.clock.advance(seconds)
        for _ in range(10):
            self.clock.advance(0)

    def ask(self, authorizer, ask):
        answer = authorizer.authorize(ask)
        self.later()
        return answer


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path / "users", f"# people\nalice:{hashed('secret')}\nbob:{hashed('other')}\n", parse_htpasswd)


@pytest.fixture
def people(rig):
    return Basic(rig.file, rig.pool, rig.clock, SALT)


def test_all_are_authorizers(people, rig):
    assert IAuthorizer.providedBy(people) and IAuthorizer.providedBy(StaticTokens(rig.file))


def test_a_user_with_the_right_password_is_let_in_by_name(rig, people):
    identity = result(rig.ask(people, with_basic("alice", "secret")))
    assert identity.name == "alice"
    assert Action.APPEND in identity.actions and Action.ADMIN not in identity.actions


@pytest.mark.parametrize(
    ("user", "password"),
    [("alice", "other"), ("alice", ""), ("Alice", "secret"), ("mallory", "secret"), ("mallory", "other"),
     ("alice", "secret\0"), ("", ""), ("alice", "s" * 500)],
)  # fmt: skip
def test_a_wrong_user_or_password_is_401_with_a_challenge(rig, people, user, password):
    refused = refusal(rig.ask(people, with_basic(user, password)), Unauthorized)
    assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    "value",
    ["", "Basic", "Basic ", "Basic !!!", "Basic YWxpY2U=", "Bearer abc", "Basic /w== x", "YWxpY2U6c2VjcmV0",
     "Basic " + base64.b64encode(b"\xff:secret").decode()],
)  # fmt: skip
def test_what_is_no_basic_credential_is_401(rig, people, value):
    refusal(rig.ask(people, asking(authorization=value)), Unauthorized)


def test_two_authorization_lines_are_none(rig, people):
    line = with_basic("alice", "secret").headers["authorization"][0]
    ask = asking(authorization=line)
    ask.headers["authorization"].append(line)
    refusal(rig.ask(people, ask), Unauthorized)


def test_a_long_password_counts_as_far_as_htpasswd_goes(tmp_path):
    rig = Rig(tmp_path / "users", f"alice:{hashed('x' * 72)}\n", parse_htpasswd)
    people = Basic(rig.file, rig.pool, rig.clock, SALT)
    assert result(rig.ask(people, with_basic("alice", "x" * 90))).name == "alice"


def test_one_hash_is_reckoned_however_many_requests_come(rig, people):
    with mock.patch.object(bcrypt, "checkpw", wraps=bcrypt.checkpw) as checked:
        answers = [people.authorize(with_basic("alice", "secret")) for _ in range(8)]
        rig.later()
        assert {result(answer).name for answer in answers} == {"alice"}
        assert result(rig.ask(people, with_basic("alice", "secret"))).name == "alice"
        assert checked.call_count == 1
        rig.later(basic.REMEMBERED)
        result(rig.ask(people, with_basic("alice", "secret")))
        assert checked.call_count == 2


def costs(checked):
    return [int(call.args[1][4:6]) for call in checked.call_args_list]


def test_an_unknown_user_is_checked_like_one_of_those_in_the_file(tmp_path):
    """Whatever the file's costs are: with one cost for all strangers, people with another could be told by the time."""
    lines = [f"user{n}:{hashed('secret', 4 if n % 2 else 5)}\n" for n in range(20)]
    rig = Rig(tmp_path / "users", "".join(lines), parse_htpasswd)
    taken = []
    for _ in range(2):
        people = Basic(rig.file, rig.pool, rig.clock, os.urandom(16))  # after a restart as well
        with mock.patch.object(bcrypt, "checkpw", wraps=bcrypt.checkpw) as checked:
            for n in range(64):
                for attempt in ("secret", "other"):
                    refusal(rig.ask(people, with_basic(f"stranger{n}", attempt)), Unauthorized)
            taken.append(costs(checked))
    assert taken[0] == taken[1] and len(taken[0]) == 128
    assert taken[0][::2] == taken[0][1::2], "a name always costs the same"
    assert {4, 5} == set(taken[0]) and 16 < taken[0].count(4) < 112


def test_a_right_password_for_someone_else_lets_no_stranger_in(rig, people):
    for n in range(8):  # whoever's hash stands in for them
        for word in ("secret", "other"):
            refusal(rig.ask(people, with_basic(f"stranger{n}", word)), Unauthorized)


def at(address, user, password):
    return evolve(with_basic(user, password), peer=address)


def test_strangers_with_wrong_passwords_keep_nobody_out(rig, people):
    """Neither somebody who was here before nor somebody new waits for more than a few of their checks."""
    result(rig.ask(people, at("192.0.2.1", "alice", "secret")))
    rig.clock.advance(basic.REMEMBERED)
    rig.later()
    guesses = [people.authorize(at("198.51.100.9", "alice", f"guess {n}")) for n in range(1000)]
    alice = people.authorize(at("192.0.2.1", "alice", "secret"))
    bob = people.authorize(at("192.0.2.2", "bob", "other"))
    assert checks_until(rig, alice, bob) <= 6
    assert (result(alice).name, result(bob).name) == ("alice", "bob")
    answers = [outcome(each) for each in guesses]
    assert answers.count(Unavailable) > 900 and answers.count(Unauthorized) <= 12


def checks_until(rig, *answers):
    """How many hashes were reckoned until the last of these was answered; in the end all are."""
    with mock.patch.object(bcrypt, "checkpw", wraps=bcrypt.checkpw) as checked:
        counts = []
        for answer in answers:
            answer.addBoth(lambda value: counts.append(checked.call_count) or value)
        rig.later()
    return max(counts)


def outcome(answer):
    got = []
    answer.addBoth(got.append)
    return type(got[0].value)


def test_who_was_here_before_gets_in_however_many_addresses_guess(rig, people):
    result(rig.ask(people, at("192.0.2.1", "alice", "secret")))
    rig.clock.advance(basic.REMEMBERED)
    rig.later()
    guesses = [people.authorize(at(f"198.51.{n // 250}.{n % 250}", f"name{n}", "guess")) for n in range(1000)]
    alice = people.authorize(at("192.0.2.1", "alice", "secret"))
    assert checks_until(rig, alice) <= 5
    assert result(alice).name == "alice"
    assert {outcome(each) for each in guesses} == {Unavailable, Unauthorized}


def test_a_guess_is_never_told_faster_because_somebody_else_is_in(rig, people):
    """What is remembered would tell guesses apart a thousand times faster than the hashes do."""
    result(rig.ask(people, at("192.0.2.1", "alice", "secret")))
    with mock.patch.object(bcrypt, "checkpw", wraps=bcrypt.checkpw) as checked:
        rig.ask(people, at("198.51.100.9", "alice", "secret"))
        assert checked.call_count == 1
        rig.ask(people, at("192.0.2.1", "alice", "secret"))
        assert checked.call_count == 1


def test_an_address_that_can_afford_no_more_costs_no_hash(rig):
    rates = Rates(rig.clock.seconds, requests=(Rate(2.0), Rate()))
    people = Basic(rig.file, rig.pool, rig.clock, SALT, rates.afford)
    guard = AccessGuard(people, lambda upload_id: None, lambda: 0.0, rates=rates)

    def check(ask):
        answer = Deferred.fromCoroutine(guard.check(evolve(ask, upload_id=None)))
        rig.later()
        return answer

    result(check(at("2001:db8::1", "alice", "secret")))
    with mock.patch.object(bcrypt, "checkpw", wraps=bcrypt.checkpw) as checked:
        for n in range(2):
            refusal(check(at(f"2001:db8::{n}", f"guess{n}", "guess")), Unauthorized)
        for n in range(20):
            refused = refusal(check(at(f"2001:db8::{n + 9}", "bob", f"guess{n}")), TooManyRequests)
            assert refused.headers["Retry-After"] == "1"
        assert checked.call_count == 2
        assert result(check(at("2001:db8::1", "alice", "secret"))).name == "alice", "it was right a moment ago"
        assert result(check(at("2001:db8:0:1::1", "bob", "other"))).name == "bob", "that is another network"
        assert checked.call_count == 3


def test_a_changed_file_counts_after_a_second(rig, people):
    result(rig.ask(people, with_basic("alice", "secret")))
    rig.write(f"alice:{hashed('new')}\n")
    rig.later(1.0)
    refusal(rig.ask(people, with_basic("alice", "secret")), Unauthorized)
    refusal(rig.ask(people, with_basic("bob", "other")), Unauthorized)
    assert result(rig.ask(people, with_basic("alice", "new"))).name == "alice"


@pytest.mark.parametrize("broken", ["", "alice:secret\n", None])
def test_a_file_that_breaks_lets_nobody_in_until_it_is_mended(rig, people, broken):
    result(rig.ask(people, with_basic("alice", "secret")))
    good = rig.path.read_text()
    if broken is None:
        rig.path.unlink()
    else:
        rig.write(broken)
    rig.later(1.0)
    assert refusal(rig.ask(people, with_basic("alice", "secret")), Unavailable).headers["Retry-After"]
    rig.write(good)
    rig.later(1.0)
    assert result(rig.ask(people, with_basic("alice", "secret"))).name == "alice"


@pytest.mark.parametrize(
    "line",
    [
        "alice:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/",
        "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "alice:secret",
        "alice",
        ":" + "$2y$10$" + "a" * 21 + "." + "a" * 31,
        "alice:$2y$31$" + "a" * 21 + "." + "a" * 31,
        "alice:$2y$10$" + "a" * 53,
    ],
)
def test_a_line_that_is_not_bcrypt_is_refused_at_the_start_with_its_number(line):
    with pytest.raises(AccessProblem, match="line 2") as caught:
        parse_htpasswd("# comment\n" + line)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_user_that_is_there_twice_is_refused():
    with pytest.raises(AccessProblem, match="line 2"):
        parse_htpasswd(f"alice:{hashed('x')}\nalice:{hashed('y')}")


def test_without_bcrypt_the_start_says_what_to_install(rig):
    with (
        mock.patch.dict("sys.modules", {"bcrypt": None}),
        pytest.raises(AccessProblem, match=r"pip install 'res.*basic"),
    ):
        Basic(rig.file, rig.pool, rig.clock, SALT)


TOKEN = "a-token-that-cannot-be-guessed"


@pytest.fixture
def known(tmp_path):
    return Rig(
        tmp_path / "tokens",
        f"{TOKEN} ci\nanother-token-of-some-length reader read,inspect\n",
        parse_tokens,
        "the file of tokens",
    )


def test_a_known_token_is_let_in_by_name_and_to_what_it_may(known):
    authorizer = StaticTokens(known.file)
    assert result(known.ask(authorizer, with_bearer(TOKEN))).name == "ci"
    reader = result(known.ask(authorizer, with_bearer("another-token-of-some-length")))
    assert reader.actions == {Action.READ, Action.INSPECT}


@pytest.mark.parametrize("token", [TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x", "ci"])
def test_an_unknown_token_is_401_invalid_token(known, token):
    refused = refusal(known.ask(StaticTokens(known.file), with_bearer(token)), Unauthorized)
    assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]


def test_without_a_token_one_is_asked_for(known):
    refused = refusal(known.ask(StaticTokens(known.file), asking()), Unauthorized)
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="resumable"'


def test_tokens_are_compared_in_constant_time_and_all_of_them(known):
    with mock.patch.object(tokens.hmac, "compare_digest", wraps=tokens.hmac.compare_digest) as compared:
        result(known.ask(StaticTokens(known.file), with_bearer(TOKEN)))
        assert compared.call_count == 2


@pytest.mark.parametrize(
    "line",
    ["short ci", TOKEN, f"{TOKEN} ci read,fly", f"{TOKEN} ci read more", f"{TOKEN}=é ci", f"{TOKEN} a\n{TOKEN} b", ""],
)
def test_a_file_of_tokens_that_makes_no_sense_is_refused_without_showing_one(line):
    with pytest.raises(AccessProblem) as caught:
        parse_tokens(line)
    assert TOKEN not in str(caught.value) and "\n" not in str(caught.value)


def test_known_tokens_are_not_printed():
    assert TOKEN not in repr(parse_tokens(f"{TOKEN} ci")) and "digest" not in repr(parse_tokens(f"{TOKEN} ci"))
