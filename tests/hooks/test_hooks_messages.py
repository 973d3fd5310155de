"""Events in JSON, and their signatures."""

from __future__ import annotations

import base64
import json
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from resumable.hooks import messages
from resumable.hooks.deliver import message_of
from resumable.hooks.interfaces import EventKind
from resumable.hooks.messages import WebhookSigner, parse_secret
from resumable.model.hooks import QuestionKind, RequestView, UploadView, as_data, from_data, view
from resumable.model.outbox import OutboxEvent
from resumable.model.upload import Fact, FactKind, Upload
from tests.hooks.servers import NOW, REQUEST, SECRET, UPLOAD, event, question

DOCUMENT = {
    "specversion": "1.0",
    "id": "evt_an-upload-id-1234_stored_7",
    "source": "/files/",
    "type": "resumable.upload.stored",
    "subject": "an-upload-id-1234",
    "time": "2027-01-15T08:00:00.250Z",
    "sequence": "0000000000000000007",
    "datacontenttype": "application/json",
    "data": {
        "upload": {
            "id": "an-upload-id-1234",
            "length": 10,
            "offset": 4,
            "metadata": {"filename": "a.txt", "odd": "\ufffd"},
            "raw_metadata": "filename YS50eHQ=,odd /w==",
            "partial": False,
            "partials": [],
            "identity": None,
            "digest": None,
        },
        "request": {
            "id": "7f3a-1",
            "method": "POST",
            "uri": "/files/",
            "address": "192.0.2.7:4711",
            "headers": {"cookie": ["a=1", "b=2"], "authorization": ["Bearer t"], "x-own": ["yes"]},
            "protocol": "tus",
            "protocol_version": "1.0.0",
        },
        "details": {"remote": "s3", "key": "a.txt"},
    },
}


def test_an_event_is_a_cloudevent():
    stored = event(EventKind.STORED, remote="s3", key="a.txt")
    assert messages.document(stored, "/files/") == DOCUMENT
    assert json.loads(messages.dumps(messages.document(stored, "/files/"))) == DOCUMENT
    assert stored.remote == "s3" and event().remote is None


def test_a_question_is_one_too():
    assert messages.document(question(QuestionKind.FINISH), "x")["type"] == "resumable.upload.before-finish"


def test_a_event_gives_the_same_event_each_time():
    data = {**as_data(UPLOAD, REQUEST), "remote": "s3", "key": "a.txt"}
    kept = json.loads(json.dumps(data))  # as the catalog keeps it
    event = OutboxEvent(7, "hook", Fact(FactKind.STORED, UPLOAD.id, NOW, kept))
    assert messages.document(message_of(event), "/files/") == DOCUMENT
    assert message_of(event) == message_of(event)
    assert message_of(event).id.replace("-", "").replace("_", "").isalnum()


def test_the_sequence_of_events_grows_as_text_too():
    texts = [messages.sequence_of(number) for number in (1, 9, 10, 2**31, 2**63 - 1)]
    assert texts == sorted(texts) and len(set(map(len, texts))) == 1
    assert [int(text) for text in texts] == [1, 9, 10, 2**31, 2**63 - 1]


def test_progress_and_questions_have_no_sequence():
    assert "sequence" not in messages.document(event(EventKind.PROGRESS), "x")
    assert "sequence" not in messages.document(question(), "x")


@pytest.mark.parametrize("kind", FactKind)
def test_every_fact_gives_an_event_whatever_its_data_lacks(kind):
    made = message_of(OutboxEvent(1, "hook", Fact(kind, "u", 0.0)))
    assert (made.kind.value, made.upload, made.request) == (kind.value, UploadView("u"), None)


@pytest.mark.parametrize(
    ("upload", "request_"),
    [
        (UPLOAD, REQUEST),
        (UploadView("u", None, 0, partial=True, identity="me"), None),
        (UploadView("u", 9, 9, partials=("a", "b")), RequestView("PATCH", "/files/u")),
    ],
)
def test_what_a_fact_keeps_of_an_upload_comes_back(upload, request_):
    kept = json.loads(json.dumps({**as_data(upload, request_), "reason": "x"}))
    assert from_data(upload.id, kept) == (upload, request_, {"reason": "x"})


def test_an_event_that_an_older_release_has_kept_names_no_protocol():
    kept = as_data(UPLOAD, REQUEST)
    for name in ("protocol", "protocol_version"):
        del kept["request"][name]
    _, request, _ = from_data(UPLOAD.id, kept)
    assert (request.protocol, request.protocol_version) == (None, None)


def test_a_record_as_hooks_see_it():
    record = Upload("u", 0, 0, length=5, offset=2, metadata="a MQ==", concat="partial", owner="me")
    assert view(record) == UploadView("u", 5, 2, {"a": b"1"}, "a MQ==", True, (), "me")
    assert view(Upload("u", 0, 0, metadata="a?b !")).metadata == {}


def test_a_signature_is_that_of_standard_webhooks():
    secret = "whsec_" + base64.b64encode(SECRET).decode()
    body = messages.dumps(DOCUMENT)
    headers = WebhookSigner([parse_secret(secret)]).headers("evt_1", int(time.time()), body)
    assert Webhook(secret).verify(body, headers) == DOCUMENT
    for wrong in ({"webhook-id": "evt_2"}, {"webhook-timestamp": str(int(time.time()) - 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers | wrong)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)


def test_while_a_secret_is_changed_both_the_old_and_the_new_one_verify():
    secrets = [bytes([n]) * 32 for n in range(3)]
    headers = WebhookSigner(secrets).headers("evt_1", int(time.time()), b"{}")
    for secret in secrets:
        assert Webhook(secret).verify(b"{}", headers) == {}
    assert "webhook-signature" not in WebhookSigner().headers("evt_1", 1, b"{}")


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "whsec_" + "A" * 100, "ü" * 40])
def test_a_bad_secret_is_refused_and_not_repeated(text):
    with pytest.raises(ValueError, match="a secret") as caught:
        parse_secret(text)
    assert len(text) < 8 or text not in str(caught.value)


def test_a_secret_may_lack_its_prefix_and_padding():
    assert parse_secret(base64.b64encode(SECRET).decode().rstrip("=") + "\n") == SECRET
