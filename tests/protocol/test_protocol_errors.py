"""Errors hint a status, a title and header fields."""

import pytest

from resumable.protocol import errors


@pytest.mark.parametrize(
    ("error", "status", "title", "headers"),
    [
        (errors.BadRequest("x"), 400, "Bad Request", {}),
        (errors.Unauthorized("x", ["A", "B"]), 401, "Unauthorized", {"WWW-Authenticate": "A, B"}),
        (errors.Forbidden("x"), 403, "Forbidden", {}),
        (errors.NotFound("x"), 404, "Not Found", {}),
        (errors.MethodNotAllowed(["HEAD", "PATCH"]), 405, "Method Not Allowed", {"Allow": "HEAD, PATCH"}),
        (errors.OffsetMismatch(7), 409, "Conflict", {"Upload-Offset": "7"}),
        (errors.Gone("x"), 410, "Gone", {}),
        (errors.UnsupportedVersion("x"), 412, "Precondition Failed", {"Tus-Version": "1.0.0"}),
        (errors.PreconditionFailed("x"), 412, "Precondition Failed", {}),
        (errors.TooLarge("x"), 413, "Content Too Large", {}),
        (errors.TooLarge("x", offset=0), 413, "Content Too Large", {"Upload-Offset": "0"}),
        (errors.UnsupportedMediaType("x"), 415, "Unsupported Media Type", {}),
        (errors.RangeNotSatisfiable(5), 416, "Range Not Satisfiable", {"Content-Range": "bytes */5"}),
        (errors.Held("x"), 423, "Locked", {"Retry-After": "1"}),
        (errors.TooManyRequests("x", 9), 429, "Too Many Requests", {"Retry-After": "9"}),
        (errors.ChecksumMismatch("x"), 460, "Checksum Mismatch", {}),
        (errors.InternalError(), 500, "Internal Server Error", {}),
        (errors.Stopping(), 503, "Service Unavailable", {"Retry-After": "1"}),
        (errors.Unavailable("x", retry_after=5), 503, "Service Unavailable", {"Retry-After": "5"}),
        (errors.Refused(418, {"X-Reason": "tea"}), 418, "Refused", {"X-Reason": "tea"}),
        (errors.NoSpace(), 507, "Insufficient Storage", {"Retry-After": "60"}),
    ],
)
def test_each_error_hints_its_status_title_and_headers(error, status, title, headers):
    assert (error.status, error.title, error.headers) == (status, title, headers)
    assert isinstance(error, errors.TusError)
    assert error.detail and str(error) == error.detail


def test_a_mismatch_names_both_offsets():
    detail = errors.OffsetMismatch(70, provided=69).detail
    assert "70" in detail and "69" in detail


def test_who_comes_second_at_an_offset_is_not_told_that_it_is_wrong():
    detail = errors.OffsetMismatch(70, provided=70).detail
    assert "not 70" not in detail and "another request" in detail


def test_errors_do_not_share_their_headers():
    first, second = errors.BadRequest("x"), errors.BadRequest("y")
    first.headers["X"] = "1"
    assert second.headers == {}


def test_most_errors_are_no_kind_of_problem_of_their_own():
    error = errors.BadRequest("x")
    assert (error.type, error.members) == (None, {})
