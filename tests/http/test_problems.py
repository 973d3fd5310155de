"""The document of a refusal (RFC 9457): a kind of problem of its own has a URI, and adds members."""

from __future__ import annotations

import json

from resumable.http.h1 import problem


def test_a_refusal_says_its_status_in_words() -> None:
    assert json.loads(problem(409, "Why.")) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "Why.",
    }


def test_a_kind_of_problem_is_named_and_adds_its_members() -> None:
    document = json.loads(problem(409, "Why.", "", "https://example.org/kind", {"expected-offset": 7}))
    assert (document["type"], document["expected-offset"], document["status"]) == ("https://example.org/kind", 7, 409)
