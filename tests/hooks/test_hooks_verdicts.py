"""What a hook says is checked to the last member before it counts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.hooks import ask, messages
from resumable.hooks.ask import check
from resumable.hooks.interfaces import Allow, BadVerdict, Refuse
from resumable.model.hooks import Answer, Changes, QuestionKind

CREATE = QuestionKind.CREATE
GOOD_ID = "0123456789abcdef"


def said(document: object) -> object:
    return check(messages.parse(json.dumps(document).encode()), CREATE, {"s3", "disk"})


def test_yes_with_everything():
    change = {"id": GOOD_ID, "metadata": {"name": "é"}, "key": "a/b.txt", "remotes": ["s3"], "max_size": 5}
    response = {"status": 202, "headers": {"X-Job": "7"}, "body": "ok"}
    verdict = said({"allow": True, "change": change, "response": response})
    assert verdict == Allow(
        Changes(GOOD_ID, {"name": "é".encode()}, "a/b.txt", ("s3",), 5), Answer(202, {"X-Job": "7"}, b"ok")
    )


def test_a_plain_yes_and_a_plain_no():
    assert said({"allow": True}) == Allow()
    assert said({"allow": False}) == Refuse()
    assert said({"allow": False, "response": {"status": 402}}) == Refuse(Answer(402))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"true", b"<html>", b"{", b"\xff", b'{"allow": true',
     b"[" * 200_000, b'{"allow": %s}' % (b"1" * 9999)],
    ids=repr,
)  # fmt: skip
def test_garbage_is_no_verdict(data):
    with pytest.raises(BadVerdict):
        messages.parse(data)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"allow": None},
        {"allow": "true"},
        {"allow": 1},
        {"allow": True, "chnage": {}},
        {"allow": False, "change": {"id": GOOD_ID}},
        {"allow": True, "change": []},
        {"allow": True, "change": {"ID": GOOD_ID}},
        {"allow": True, "change": {"id": "short"}},
        {"allow": True, "change": {"id": "../../../../etc/passwd"}},
        {"allow": True, "change": {"id": "with/slash/0123456789"}},
        {"allow": True, "change": {"id": 7}},
        {"allow": True, "change": {"metadata": {"a b": "x"}}},
        {"allow": True, "change": {"metadata": {"a": 1}}},
        {"allow": True, "change": {"metadata": []}},
        {"allow": True, "change": {"metadata": {"a": "x" * 20_000}}},
        {"allow": True, "change": {"metadata": {"a": "\ud800"}}},
        {"allow": True, "change": {"key": "/absolute"}},
        {"allow": True, "change": {"key": "a/../b"}},
        {"allow": True, "change": {"key": "a//b"}},
        {"allow": True, "change": {"key": "a\\b"}},
        {"allow": True, "change": {"key": "a\x00b"}},
        {"allow": True, "change": {"key": "a\u202eb"}},
        {"allow": True, "change": {"key": "x/" * 600 + "y"}},
        {"allow": True, "change": {"key": ""}},
        {"allow": True, "change": {"key": "\ud800"}},
        {"allow": True, "change": {"remotes": "s3"}},
        {"allow": True, "change": {"remotes": ["unknown"]}},
        {"allow": True, "change": {"remotes": ["s3", "s3"]}},
        {"allow": True, "change": {"remotes": [["s3"]]}},
        {"allow": True, "change": {"max_size": -1}},
        {"allow": True, "change": {"max_size": 2**63}},
        {"allow": True, "change": {"max_size": True}},
        {"allow": True, "change": {"max_size": "5"}},
        {"allow": True, "response": {"status": 404}},
        {"allow": False, "response": {"status": 200}},
        {"allow": False, "response": {"status": 600}},
        {"allow": False, "response": {"status": "403"}},
        {"allow": False, "response": {"status": True}},
        {"allow": False, "response": {"body": {"a": 1}}},
        {"allow": False, "response": {"body": "x" * (ask.MAX_BODY + 1)}},
        {"allow": False, "response": {"headers": ["a"]}},
        {"allow": False, "response": {"headers": {"X": "a\r\nSet-Cookie: b"}}},
        {"allow": False, "response": {"headers": {"X": 1}}},
        {"allow": False, "response": {"headers": {"X Y": "a"}}},
        {"allow": False, "response": {"headers": {"X": "é"}}},
        {"allow": False, "response": {"headers": {f"X-{n}": "a" for n in range(33)}}},
        {"allow": False, "response": {"headers": {"X": "a" * 9000}}},
        {"allow": False, "response": "no"},
    ],
    ids=lambda document: json.dumps(document)[:60],
)
def test_what_is_not_understood_or_not_allowed_is_no_verdict(document):
    with pytest.raises(BadVerdict):
        said(document)


OURS = """content-length transfer-encoding CONNECTION Keep-Alive te Trailer Upgrade Location Upload-Offset upload-length
Tus-Resumable Access-Control-Allow-Origin Host Date Server Proxy-Authenticate Content-Encoding"""


@pytest.mark.parametrize("name", OURS.split())
def test_no_hook_sets_headers_of_framing_or_of_the_protocols(name):
    with pytest.raises(BadVerdict, match="may not set"):
        check(Refuse(Answer(403, {name: "x"})), CREATE)


@pytest.mark.parametrize("kind", [kind for kind in QuestionKind if kind is not CREATE])
def test_only_what_does_not_exist_yet_can_be_changed(kind):
    assert check(Allow(), kind) == Allow()
    with pytest.raises(BadVerdict, match="nothing can be changed"):
        check(Allow(Changes(max_size=1)), kind)


@pytest.mark.parametrize(
    "verdict", [None, True, "yes", {}, Changes(), Answer(), Allow(answer=None), Refuse(Answer(body="x"))]
)
def test_python_that_answers_something_else_has_not_said_yes(verdict):
    with pytest.raises(BadVerdict):
        check(verdict, CREATE)


@pytest.mark.parametrize("key", ["a", "a/b/c", "Rechnung ü.pdf", "a.b..c", "2026/01/x_y-z", "x" * 255])
def test_keys_that_are_safe(key):
    assert ask.safe_key(key)


def test_a_watcher_may_stop_or_say_nothing():
    assert ask.check_stop(messages.parse_stop(b"  \n")) is None
    assert messages.parse_stop(b"{}") is None
    assert ask.check_stop(messages.parse_stop(b'{"stop": true, "response": {"status": 409}}')) == Refuse(Answer(409))
    for wrong in (True, Allow(), Refuse(Answer(200))):
        with pytest.raises(BadVerdict):
            ask.check_stop(wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["allow", "change", "response", "id", "headers", "metadata", "key", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_verdict_or_bad(document):
    try:
        verdict = said(document)
    except BadVerdict:
        return
    assert isinstance(verdict, Allow | Refuse) and document["allow"] is isinstance(verdict, Allow)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_verdict_or_bad(data):
    try:
        messages.parse(data)
    except BadVerdict as error:
        assert error.reason.isprintable()
