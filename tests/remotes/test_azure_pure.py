"""Names of blocks, choice of credentials, failures of the SDK: without a store."""

from __future__ import annotations

import itertools

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError
from hypothesis import given
from hypothesis import strategies as st

from resumable.httpclient.client import retry_after
from resumable.remotes.azure.access import AzureAccess, AzureSecret, secret_from
from resumable.remotes.azure.errors import error_from
from resumable.remotes.azure.records import (
    LIMITS,
    UNKNOWN_LENGTH,
    WIDTH,
    Auth,
    block_name,
    is_of,
    metadata_of,
    owner,
    parts_among,
    properties_for,
)
from resumable.remotes.errors import (
    AuthFailed,
    Conflict,
    NotThere,
    Permanent,
    Throttled,
    Transient,
    Unusable,
    Unwelcome,
)
from resumable.remotes.plan import MIB, TIB, Part, PartLimits, plan_for

IDS = st.text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789_-", min_size=1, max_size=128)
NOW = 1_800_000_000.0


# blocks


@given(IDS, st.integers(0, LIMITS.largest_object), st.integers(0, LIMITS.largest_part))
def test_names_of_blocks_are_equally_long_and_short_enough(upload_id, offset, size):
    name = block_name(upload_id, Part(1, offset, size))
    assert len(name) == WIDTH <= 64 and name.isascii()
    assert is_of(name, upload_id)


@given(IDS, IDS)
def test_no_two_uploads_share_a_name(one, other):
    assert (owner(one) == owner(other)) == (one == other)
    if one != other:
        assert not is_of(block_name(one, Part(1, 0, 1)), other)


@given(st.integers(0, 1000), st.sets(st.integers(0, 40)), st.lists(st.text(max_size=WIDTH), max_size=3))
def test_parts_are_known_by_their_names_and_by_nothing_else(length, indices, others):
    plan = plan_for(length, 32, PartLimits(smallest_part=1))
    parts = [part for part in plan.parts(length) if part.number in indices]
    names = [block_name("mine", part) for part in parts]
    wrong = [
        block_name("mine", Part(1, 7, 32)),
        block_name("mine", Part(1, 0, 33)),
        block_name("other", Part(1, 0, 32)),
    ]
    assert parts_among([*reversed(names), *wrong, *others], "mine", plan, length) == parts


def test_what_is_planned_fits_into_what_azure_takes():
    for length in (None, 0, 1, LIMITS.parts * 8 * MIB, LIMITS.parts * 8 * MIB + 1, LIMITS.largest_object):
        limits = LIMITS if length is not None else PartLimits(1, 4000 * MIB, 50_000, UNKNOWN_LENGTH)
        plan = plan_for(length, 8 * MIB, limits)
        assert sum(step.count for step in plan.steps) <= 50_000
        assert max(step.size for step in plan.steps) <= 4000 * MIB
        assert plan.capacity >= (length or 0) and plan.first_size >= 8 * MIB
    assert plan_for(None, 8 * MIB, PartLimits(1, 4000 * MIB, 50_000, UNKNOWN_LENGTH)).capacity >= 100 * TIB
    assert plan_for(None, 8 * MIB, PartLimits(1, 4000 * MIB, 50_000, UNKNOWN_LENGTH)).first_size == 8 * MIB


# properties


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=300)))
def test_whatever_clients_say_fits_into_headers_and_names_are_identifiers(metadata):
    properties = properties_for("an-id", metadata, True)
    for name, value in metadata_of(properties).items():
        assert name.isidentifier() and name.isascii() and value.isascii() and value.isprintable()
    assert metadata_of(properties)["resumable_upload_id"] == "an-id"
    assert sum(len(name) + len(value) for name, value in metadata_of(properties).items()) <= 8192


def test_a_client_cannot_name_another_upload():
    said = {
        "resumable_upload_id": b"x",
        "resumable-upload-id": b"x",
        "Resumable_Dropped": b"x",
        "a-b": b"1",
        "a_b": b"2",
    }
    assert metadata_of(properties_for("mine", said, True)) == {"resumable_upload_id": "mine", "a_b": "1"}


# credentials


def test_the_first_that_is_there_is_taken(tmp_path):
    file = tmp_path / "sas"
    file.write_text("?sv=1&sig=x\n")
    environ = {"AZURE_STORAGE_KEY": "a2V5", "AZURE_STORAGE_SAS_TOKEN": "t", "AZURE_STORAGE_CONNECTION_STRING": "c"}
    assert secret_from({"sas-file": str(file)}, environ) == AzureSecret(Auth.SAS, "?sv=1&sig=x", str(file))
    found = []
    while environ:
        found.append(secret_from({}, environ).auth)
        environ = dict(itertools.islice(environ.items(), len(environ) - 1))
    assert found == [Auth.CONNECTION_STRING, Auth.KEY, Auth.KEY]
    assert secret_from({}, {}).auth is Auth.IDENTITY
    assert secret_from({"auth": "identity"}, {"AZURE_STORAGE_KEY": "k"}) == AzureSecret(Auth.IDENTITY)
    assert secret_from({"auth": "sas"}, {"AZURE_STORAGE_KEY": "k", "AZURE_STORAGE_SAS_TOKEN": "t"}).value == "t"


@pytest.mark.parametrize(
    ("options", "environ", "what"),
    [
        ({"auth": "key"}, {}, "AZURE_STORAGE_KEY"),
        ({"key-file": "/nowhere/at/all"}, {}, "cannot be read"),
        ({}, {}, "which account"),
        ({}, {"AZURE_STORAGE_KEY": "a2V5"}, "account"),
        ({"account": "abc"}, {"AZURE_STORAGE_KEY": "not base64!"}, "not base64"),
        ({}, {"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=c2VjcmV0"}, "connection string is none"),
        ({}, {"AZURE_STORAGE_CONNECTION_STRING": "nonsense"}, "connection string is none"),
        (
            {"account": "other"},
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=mine;AccountKey=c2VjcmV0"},
            "for the account mine, not other",
        ),
    ],
)
def test_credentials_that_cannot_be_are_refused_without_telling_them(options, environ, what):
    with pytest.raises(ValueError) as caught:
        AzureAccess("container", options, environ)
    assert what in str(caught.value) and "c2VjcmV0" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "environ", "url"),
    [
        ({"account": "abc"}, {"AZURE_STORAGE_KEY": "a2V5"}, "https://abc.blob.core.windows.net/container"),
        ({"account": "abc", "client-id": "an-id"}, {}, "https://abc.blob.core.windows.net/container"),
        (
            {"endpoint": "https://abc.blob.core.usgovcloudapi.net", "auth": "identity"},
            {},
            "https://abc.blob.core.usgovcloudapi.net/container",
        ),
        (
            {},
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=abc;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn"},
            "https://abc.blob.core.chinacloudapi.cn/container",
        ),
    ],
)
def test_where_the_container_is(options, environ, url):
    access = AzureAccess("container", options, environ)
    assert access.client.url == url
    assert access.renew(access.client) is False
    access.close()


def test_a_secret_has_no_representation():
    assert "sesame" not in repr(AzureSecret(Auth.KEY, "sesame"))


# failures


class Response:
    reason, content_type = "because", "text/plain"

    def __init__(self, status: int, code: str = "", **headers: str) -> None:
        self.status_code = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if code:
            self.headers["x-ms-error-code"] = code

    def text(self, *_: object) -> str:
        return "?sig=c2VjcmV0"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", Transient),
        (503, "ServerBusy", Throttled),
        (429, "", Throttled),
        (502, "", Transient),
        (408, "", Transient),
        (400, "Md5Mismatch", Transient),
        (404, "BlobNotFound", NotThere),
        (404, "", NotThere),
        (404, "ContainerNotFound", Unusable),
        (409, "ContainerBeingDeleted", Unusable),
        (409, "BlobAlreadyExists", Conflict),
        (412, "", Conflict),
        (409, "BlobArchived", Conflict),
        (401, "NoAuthenticationInformation", AuthFailed),
        (403, "InsufficientAccountPermissions", AuthFailed),
        (403, "", AuthFailed),
        (413, "RequestBodyTooLarge", Permanent),
        (400, "MetadataTooLarge", Unwelcome),
        (400, "InvalidMetadata", Unwelcome),
        (431, "", Unwelcome),
        (307, "", Unusable),
        (200, "", Transient),
    ],
)
def test_each_answer_is_one_kind_of_failure(status, code, kind):
    error = error_from("Put Blob", HttpResponseError("it says sig=c2VjcmV0", response=Response(status, code)), NOW)
    assert type(error) is kind and error.status == status
    assert error.reason == f"Put Blob: {status} {error.code}" and "sig" not in error.reason


def test_a_clock_that_is_wrong_is_told_from_a_wrong_key():
    response = Response(403, "AuthenticationFailed", Date="Fri, 15 Jan 2027 09:00:00 GMT")
    error = error_from("Put Blob", HttpResponseError("no", response=response), NOW)
    assert NOW == 1_800_000_000.0  # 15 Jan 2027 08:00:00
    assert type(error) is Unusable and "3600 s behind" in error.reason and "clock" in error.advice
    assert type(error_from("Put Blob", HttpResponseError("no", response=response), NOW + 3590)) is AuthFailed


def test_a_token_that_cannot_be_got_and_a_network_that_fails_tell_no_url():
    error = error_from("Put Blob", ClientAuthenticationError("long\nwords with sig=x"), NOW)
    assert type(error) is AuthFailed and error.reason == "Put Blob: no credentials (ClientAuthenticationError)"
    cause = ConnectionResetError(104, "reset by https://x?sig=y")
    error = error_from("Put Blob", ServiceRequestError("https://x?sig=y", error=cause), NOW)
    assert type(error) is Transient and error.reason == "Put Blob: ConnectionResetError"
    assert error_from("Put Blob", ServiceRequestError("https://x?sig=y"), NOW).reason == "Put Blob: ServiceRequestError"


def test_a_pause_is_in_seconds_and_at_most_an_hour():
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"x-ms-retry-after-ms": "1500"}) == 1.5
    assert retry_after({"retry-after": "99999"}) == retry_after({"retry-after": "9" * 5000}) == 3600.0
    assert retry_after({"retry-after": "\u00b2"}) is None
    assert retry_after({"retry-after": "soon"}) is None
