"""Signed URLs: exactly what was signed, until it expires; whatever is changed in one makes it worthless."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from unittest import mock

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from resumable.auth import sign as sign_command
from resumable.auth import signed
from resumable.auth.interfaces import AuthRequest, IAuthorizer
from resumable.auth.secret import AccessProblem, Secret, WatchedFile
from resumable.auth.signed import LONGEST, Grant, SignedUrls, parse_keys, sign, verify
from resumable.model.principal import EVERYDAY, Action
from resumable.protocol.errors import Forbidden, Unauthorized
from resumable.protocol.fields import LARGEST
from resumable.testing import SteppedPool
from tests.auth.auth_rig import ID, NOW, asking, refusal, result

KEY, OLDER = Secret(b"k" * 32), Secret(b"o" * 32)
GRANT = Grant(frozenset({Action.CREATE, Action.APPEND}), "/files/", "user-17", int(NOW) + 60, 1000)
CREATE = AuthRequest(Action.CREATE, "POST", "/files/")


class Rig:
    def __init__(self, path, now=NOW):
        self.clock = Clock()
        self.pool = SteppedPool(self.clock)
        self.pool.start()
        path.write_text("# newest first\n" + "k" * 32 + "\n" + "o" * 32 + "\n")
        self.now = now
        self.urls = SignedUrls(WatchedFile("the keys", path, parse_keys, self.pool, self.clock), lambda: self.now)

    def ask(self, ask):
        answer = self.urls.authorize(ask)
        self.clock.pump([0] * 5)
        return answer

    def mint(self, *args, **kwargs):
        answer = Deferred.fromCoroutine(self.urls.mint(*args, **kwargs))
        self.clock.pump([0] * 5)
        return result(answer)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path / "keys")


def in_query(token, ask=CREATE):
    return evolve(ask, query=f"token={token}")


def test_it_is_an_authorizer(rig):
    assert IAuthorizer.providedBy(rig.urls)


@pytest.mark.parametrize("ask", [in_query(sign(KEY, GRANT)), asking(CREATE, x_upload_token=sign(KEY, GRANT))])
def test_a_signed_request_is_let_in_within_what_was_signed(rig, ask):
    found = result(rig.ask(ask))
    assert (found.name, found.max_size, found.until) == ("user-17", 1000, GRANT.expires)
    assert found.actions == GRANT.actions


def test_numbers_may_be_absurd_and_no_upload_gets_more_than_the_catalog_counts(rig):
    found = result(rig.ask(in_query(by_hand({**GOOD, "expires": 10**300, "max_size": 10**300}))))
    assert (found.max_size, found.until) == (LARGEST, 10**300)
    refusal(rig.ask(in_query(by_hand({**GOOD, "expires": -(10**300)}))), Unauthorized)


def test_a_token_in_the_query_goes_on_in_the_location(rig):
    token = sign(KEY, GRANT)
    assert result(rig.ask(in_query(token))).carry == f"token={token}"
    assert result(rig.ask(asking(CREATE, x_upload_token=token))).carry == ""


def test_what_is_minted_is_accepted(rig):
    token = rig.mint("bob", "/files/", seconds=60, max_size=None)
    found = result(rig.ask(in_query(token)))
    assert (found.name, found.max_size, found.until) == ("bob", None, NOW + 60)


def test_minting_signs_with_the_first_key_and_older_ones_still_verify(rig):
    assert verify([KEY], rig.mint("bob", "/files/", seconds=60, max_size=5))
    assert result(rig.ask(in_query(sign(OLDER, GRANT)))).name == "user-17"


def test_a_key_that_was_taken_out_counts_no_longer(rig):
    refusal(rig.ask(in_query(sign(Secret(b"x" * 32), GRANT))), Unauthorized)


def test_a_token_expires(rig):
    rig.now = NOW + 59
    result(rig.ask(in_query(sign(KEY, GRANT))))
    rig.now = NOW + 60
    refusal(rig.ask(in_query(sign(KEY, GRANT))), Unauthorized)


@pytest.mark.parametrize("action", sorted(set(Action) - GRANT.actions, key=str))
def test_an_action_that_was_not_signed_is_403(rig, action):
    refusal(rig.ask(in_query(sign(KEY, GRANT), evolve(CREATE, action=action))), Forbidden)


@pytest.mark.parametrize(
    ("prefix", "path", "covered"),
    [
        ("/files/", "/files/", True),
        ("/files", "/files/", True),
        ("/files/", "/files", True),
        ("/files/", f"/files/{ID}", True),
        (f"/files/{ID}", f"/files/{ID}", True),
        (f"/files/{ID}", f"/files/{ID}/", True),
        (f"/files/{ID}", f"/files/{ID}x", False),
        (f"/files/{ID}", f"/files/{ID[:-1]}", False),
        (f"/files/{ID}", "/files/", False),
        ("/files/", "/file", False),
        ("/files/", "/filesx", False),
        ("/files/", "/other", False),
        ("/files/", "/files/../other", False),
        ("/files/", "/files/./x", False),
        ("/files/", "/files//x", False),
        ("/", "/anything", True),
        ("/files//", "/files//", False),
    ],
)
def test_a_path_covers_itself_and_what_is_below(prefix, path, covered):
    assert evolve(GRANT, path=prefix).covers(path) is covered


def test_an_uncovered_path_is_403(rig):
    refusal(rig.ask(in_query(sign(KEY, GRANT), evolve(CREATE, path="/other/"))), Forbidden)


def parts(token):
    version, payload, mac = token.split(".")
    return version, json.loads(base64.urlsafe_b64decode(payload + "==")), mac


def encode(members):
    return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "change",
    [
        {"actions": ["create", "append", "read"]},
        {"path": "/"},
        {"identity": "user-18"},
        {"expires": int(NOW) + 61},
        {"max_size": 1001},
        {"max_size": None},
    ],
)
def test_each_member_is_signed(rig, change):
    version, members, mac = parts(sign(KEY, GRANT))
    changed = {name: value for name, value in {**members, **change}.items() if value is not None}
    refusal(rig.ask(in_query(f"{version}.{encode(changed)}.{mac}")), Unauthorized)


@given(st.data())
def test_any_changed_character_makes_it_worthless(data):
    token = sign(KEY, GRANT)
    place = data.draw(st.integers(0, len(token) - 2))  # the very last has two bits that nobody reads
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != token[place]))
    assert verify([KEY], token[:place] + other + token[place + 1 :]) is None


def test_the_last_character_is_compared_too():
    token = sign(KEY, GRANT)
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".replace(token[-1], ""):
        assert verify([KEY], token[:-1] + other) is None


def by_hand(members, version="v1"):
    raw = members if isinstance(members, bytes) else json.dumps(members).encode()
    text = version + "." + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    mac = hmac.new(KEY.reveal(), text.encode(), hashlib.sha256).digest()
    return text + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


GOOD = {"actions": ["create"], "path": "/files/", "identity": "bob", "expires": int(NOW) + 60}


def test_anybody_with_the_key_can_sign():
    assert verify([KEY], by_hand(GOOD)) == Grant(frozenset({Action.CREATE}), "/files/", "bob", int(NOW) + 60)


@pytest.mark.parametrize(
    "members",
    [
        [], 5, None, b"{", b"\xff", b"[" * 1000, {},
        *({name: value for name, value in GOOD.items() if name != left} for left in GOOD),
        {**GOOD, "further": 1},
        {**GOOD, "actions": []}, {**GOOD, "actions": "create"}, {**GOOD, "actions": [5]}, {**GOOD, "actions": ["fly"]},
        {**GOOD, "actions": ["admin"]}, {**GOOD, "actions": ["create", "list"]}, {**GOOD, "actions": [["create"]]},
        {**GOOD, "path": ""}, {**GOOD, "path": "files"}, {**GOOD, "path": 5},
        {**GOOD, "identity": ""}, {**GOOD, "identity": 5}, {**GOOD, "identity": None},
        {**GOOD, "expires": NOW + 0.5}, {**GOOD, "expires": True}, {**GOOD, "expires": "9999999999"},
        {**GOOD, "max_size": -1}, {**GOOD, "max_size": True}, {**GOOD, "max_size": "5"},
    ],
)  # fmt: skip
def test_a_permission_that_makes_no_sense_is_none_even_signed(members):
    assert verify([KEY], by_hand(members)) is None


@pytest.mark.parametrize("token", ["", "v1", "v1..", "v2.e30." + "A" * 43, by_hand(GOOD, "v2"), "x" * (LONGEST + 1)])
def test_what_is_no_token_is_refused(rig, token):
    refusal(rig.ask(evolve(CREATE, query=f"x=1&token={token}")), Unauthorized)


def test_two_different_tokens_are_none(rig):
    ask = evolve(asking(CREATE, x_upload_token=sign(KEY, GRANT)), query="token=" + sign(OLDER, GRANT))
    refusal(rig.ask(ask), Unauthorized)


def test_without_a_token_one_is_asked_for(rig):
    assert refusal(rig.ask(CREATE), Unauthorized).headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "change",
    [{"actions": frozenset()}, {"actions": frozenset({Action.ADMIN})}, {"path": "x"}, {"identity": ""},
     {"max_size": -1}, {"path": "/" + "x" * LONGEST}],
)  # fmt: skip
def test_what_would_not_be_accepted_is_not_signed(change):
    with pytest.raises(ValueError):
        sign(KEY, evolve(GRANT, **change))


@pytest.mark.parametrize("text", ["", "# none", "short", "x" * 32 + "\nshort", ("x" * 32 + "\n") * 17])
def test_a_file_without_long_keys_is_refused_at_the_start(text):
    with pytest.raises(AccessProblem) as caught:
        parse_keys(text)
    assert "\n" not in str(caught.value) and "xxx" not in str(caught.value)


def test_macs_are_compared_in_constant_time_with_all_keys():
    with mock.patch.object(signed.hmac, "compare_digest", wraps=hmac.compare_digest) as compared:
        assert verify([KEY, OLDER], sign(KEY, GRANT))
        assert compared.call_count == 2


@given(
    st.sets(st.sampled_from(sorted(EVERYDAY, key=str)), min_size=1),
    st.text("abc/", max_size=20),
    st.integers(0, 2**53),
    st.none() | st.integers(0, 2**63),
)
def test_whatever_can_be_signed_comes_back_as_it_was(actions, path, expires, largest):
    grant = Grant(frozenset(actions), "/" + path, "alice", expires, largest)
    assert verify([KEY], sign(KEY, grant)) == grant


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("/files/a", "/files/a"),
        ("/files/?token=v1.a.b", "/files/?token=..."),
        ("/files/?a=1&token=v1.a.b&token=v1.c.d&b", "/files/?a=1&token=...&token=...&b"),
        ("/files/?%74oken=v1.a.b", "/files/?token=..."),
        ("/files/?tokens=1&xtoken=2", "/files/?tokens=1&xtoken=2"),
        ("*", "*"),
    ],
)
def test_a_token_in_a_uri_is_told_to_no_hook(uri, told):
    assert signed.without_token(uri) == told


def test_a_token_is_made_on_the_command_line(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    made = sign_command.token([str(keys), "ann", "/files/", "60", "create,read", "5"], 1000.5)
    grant = Grant(frozenset({Action.CREATE, Action.READ}), "/files/", "ann", 1060, 5)
    assert verify(parse_keys(keys.read_text()), made) == grant
    for wrong in (
        [],
        [str(keys), "ann", "files", "60"],
        [str(keys), "ann", "/files/", "soon"],
        ["/none", "a", "/", "1"],
    ):
        with pytest.raises(ValueError):
            sign_command.token(wrong, 0.0)
