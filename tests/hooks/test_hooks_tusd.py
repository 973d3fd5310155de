"""A hook server that was made for tusd works as it is.

The documents are those of tusd's page on hooks, with its example's values.
"""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from attrs import evolve
from twisted.logger import LogLevel, formatEvent
from zope.interface.verify import verifyObject

from resumable.hooks.ask import Guard, Guards, check
from resumable.hooks.http import Posting
from resumable.hooks.interfaces import (
    Allow,
    BadVerdict,
    Event,
    EventKind,
    HookFailed,
    IGuard,
    IHook,
    IWatcher,
    Question,
    Refuse,
)
from resumable.hooks.tusd import TusdFormat, TusdHook, parse, parse_stop
from resumable.model.hooks import Answer, Changes, QuestionKind, RequestView, UploadView
from resumable.protocol.errors import Refused, Unavailable
from tests.hooks.servers import NOW, HookServer

ID = "5d892c228ec8d0451dfec588697e8930"
UPLOAD = UploadView(
    ID, 432724, 432724, {"filename": b"Screenshot 2023-08-17 at 09.00.40 1.png", "filetype": b"image/png"}
)
AGENT = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:109.0) Gecko/20100101 Firefox/116.0"
REQUEST = RequestView(
    "PATCH",
    f"/files/{ID}",
    "127.0.0.1:59395",
    {"host": ("localhost:8080",), "tus-resumable": ("1.0.0",), "user-agent": (AGENT,)},
)
FORMAT = TusdFormat(lambda upload_id: f"/my/upload/directory/{upload_id}")
JSON = {"Content-Type": "application/json"}

# https://tus.github.io/tusd/advanced-topics/hooks/#hook-requests-and-responses
POST_FINISH = {
    "Type": "post-finish",
    "Event": {
        "Upload": {
            "ID": ID,
            "Size": 432724,
            "SizeIsDeferred": False,
            "Offset": 432724,
            "MetaData": {"filename": "Screenshot 2023-08-17 at 09.00.40 1.png", "filetype": "image/png"},
            "IsPartial": False,
            "IsFinal": False,
            "PartialUploads": None,
            "Storage": {"Type": "filestore", "Path": f"/my/upload/directory/{ID}"},
        },
        "HTTPRequest": {
            "Method": "PATCH",
            "URI": f"/files/{ID}",
            "RemoteAddr": "127.0.0.1:59395",
            "Header": {"Host": ["localhost:8080"], "Tus-Resumable": ["1.0.0"], "User-Agent": [AGENT]},
        },
    },
}


def event(kind=EventKind.FINISHED, upload=UPLOAD, request=REQUEST, **details):
    return Event("evt_1", kind, NOW, upload, request, details)


def question(kind=QuestionKind.CREATE):
    return Question("ask_1", kind, NOW, evolve(UPLOAD, offset=0), REQUEST)


def test_a_finished_upload_is_told_as_tusd_documents_it():
    assert FORMAT.document("post-finish", event()) == POST_FINISH


def test_before_an_upload_exists_it_has_neither_id_nor_storage():
    upload = FORMAT.document("pre-create", question())["Event"]["Upload"]
    assert (upload["ID"], upload["Storage"], upload["Offset"], upload["Size"]) == ("", None, 0, 432724)


def test_a_deferred_length_a_partial_and_a_final():
    deferred = FORMAT.document("x", event(upload=evolve(UPLOAD, length=None, partial=True)))["Event"]["Upload"]
    assert (deferred["Size"], deferred["SizeIsDeferred"], deferred["IsPartial"]) == (0, True, True)
    final = FORMAT.document("x", event(upload=evolve(UPLOAD, partials=("a", "b"))))["Event"]["Upload"]
    assert (final["IsFinal"], final["PartialUploads"]) == (True, ["a", "b"])


def test_an_event_that_no_request_caused_has_an_empty_one():
    document = FORMAT.document("post-terminate", event(EventKind.TERMINATED, request=None))
    assert document["Event"]["HTTPRequest"] == {"Method": "", "URI": "", "RemoteAddr": "", "Header": {}}


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        (EventKind.CREATED, "post-create"),
        (EventKind.PROGRESS, "post-receive"),
        (EventKind.FINISHED, "post-finish"),
        (EventKind.TERMINATED, "post-terminate"),
        (EventKind.STORED, None),
        (EventKind.FAILED, None),
        (EventKind.PLACED, None),
        (EventKind.EXPIRED, None),
    ],
)
def test_which_events_tusd_knows(kind, hook):
    assert FORMAT.hook_for(event(kind)) == hook


def test_post_finish_can_wait_until_every_remote_has_the_upload():
    late = evolve(FORMAT, finished=EventKind.STORED)
    assert late.hook_for(event(EventKind.FINISHED)) is None
    assert late.hook_for(event(EventKind.STORED, remote="s3")) is None
    assert late.hook_for(event(EventKind.STORED)) == "post-finish"


@pytest_twisted.ensureDeferred
async def test_events_are_posted_as_plain_json(rig):
    server = HookServer((200, JSON, b"{}"))
    hook = TusdHook(rig(server, Posting(forward=("host-x", "user-agent"))).poster, FORMAT)
    assert verifyObject(IHook, hook) and verifyObject(IGuard, hook) and verifyObject(IWatcher, hook)
    await hook.deliver(event())
    await hook.deliver(event(EventKind.EXPIRED))
    assert [json.loads(body) for body in server.bodies] == [POST_FINISH]
    assert server.header("content-type") == "application/json" and server.header("user-agent") == AGENT


def test_progress_has_what_has_arrived_as_tusd_counts_it():
    progress = event(EventKind.PROGRESS, evolve(UPLOAD, offset=5), received=77)
    assert FORMAT.document("post-receive", progress)["Event"]["Upload"]["Offset"] == 77


@pytest_twisted.ensureDeferred
async def test_the_questions_that_tusd_asks(rig):
    server = HookServer({})
    hook = TusdHook(rig(server).poster, FORMAT)
    for kind in QuestionKind:
        assert await hook.ask(question(kind)) == Allow()
    assert [json.loads(body)["Type"] for body in server.bodies] == ["pre-create", "pre-finish", "pre-terminate"]


# The responses of that page, and of the tests of tusd's own package.
REJECTS = {
    "HTTPResponse": {
        "StatusCode": 400,
        "Body": '{"message":"no project with ID 1234 found"}',
        "Header": {"Content-Type": "application/json"},
    },
    "RejectUpload": True,
}
CHANGES = {
    "ChangeFileInfo": {"ID": "my-custom-upload-id", "MetaData": {"my-custom-field": "..."}},
    "RejectUpload": False,
    "StopUpload": True,
}
SENDS_A_LINK = {
    "HTTPResponse": {"Header": {"Link": '<https://example.com/files/12345>; rel="related"'}},
    "StopUpload": True,
}
EXAMPLE_SERVER = {
    "HTTPResponse": {"Headers": {"X-Some-Header": "yes"}, "StatusCode": 400, "Body": "no filename provided"},
    "RejectUpload": True,
}


def said(document, kind=QuestionKind.CREATE):
    return check(parse(json.dumps(document).encode(), kind), kind)


def test_an_upload_is_rejected_as_documented():
    body = b'{"message":"no project with ID 1234 found"}'
    assert said(REJECTS) == Refuse(Answer(400, {"Content-Type": "application/json"}, body))


def test_what_a_rejection_leaves_out_is_as_in_tusd():
    plain = {"Content-Type": "text/plain; charset=utf-8"}
    assert said({"RejectUpload": True}) == Refuse(Answer(400, plain, b"upload has been rejected by server\n"))
    # the example server of tusd writes Headers, which Go does not know
    assert said(EXAMPLE_SERVER) == Refuse(Answer(400, plain, b"no filename provided"))


def test_an_upload_is_changed_as_documented():
    changes = Changes("my-custom-upload-id", {"my-custom-field": b"..."})
    assert said(CHANGES) == Allow(changes)
    assert said({"ChangeFileInfo": {"Storage": {"Path": "a/b.pdf"}}}) == Allow(Changes(key="a/b.pdf"))
    assert said(CHANGES, QuestionKind.FINISH) == Allow()


def test_a_pre_finish_hook_sends_more_to_the_client_as_documented():
    link = Answer(headers=SENDS_A_LINK["HTTPResponse"]["Header"])
    assert said(SENDS_A_LINK, QuestionKind.FINISH) == Allow(answer=link)
    body = {"HTTPResponse": {"StatusCode": 200, "Body": "done"}}
    assert said(body, QuestionKind.FINISH) == Allow(answer=Answer(200, body=b"done"))


def test_a_pre_finish_hook_that_answers_with_an_error_refuses():
    verdict = said({"HTTPResponse": {"StatusCode": 422, "Body": "infected"}}, QuestionKind.FINISH)
    assert isinstance(verdict, Refuse) and (verdict.answer.status, verdict.answer.body) == (422, b"infected")


def test_a_termination_is_rejected_by_its_own_member():
    assert said({"RejectUpload": True}, QuestionKind.TERMINATE) == Allow()
    verdict = said({"RejectTermination": True}, QuestionKind.TERMINATE)
    assert isinstance(verdict, Refuse) and verdict.answer.status == 400


def test_members_are_read_as_go_reads_them():
    assert isinstance(said({"rejectupload": True, "unknown": [1]}), Refuse)
    assert said({"HTTPResponse": None, "RejectUpload": None, "ChangeFileInfo": {"MetaData": None, "ID": ""}}) == Allow()


@pytest.mark.parametrize(
    "document",
    [
        {"RejectUpload": "true"},
        {"HTTPResponse": []},
        {"HTTPResponse": {"StatusCode": "400"}},
        {"HTTPResponse": {"StatusCode": True}},
        {"HTTPResponse": {"Body": {}}},
        {"HTTPResponse": {"Header": []}},
        {"HTTPResponse": {"Header": {"X": ["a"]}}},
        {"ChangeFileInfo": {"ID": "a/b"}},
        {"ChangeFileInfo": {"ID": 5}},
        {"ChangeFileInfo": {"MetaData": {"a": 1}}},
        {"ChangeFileInfo": {"MetaData": ["a"]}},
        {"ChangeFileInfo": {"Storage": {"Path": "/etc/passwd"}}},
        {"ChangeFileInfo": {"Storage": {"Path": "../elsewhere"}}},
    ],
    ids=json.dumps,
)
def test_what_cannot_be_read_or_done_is_no_yes(document):
    with pytest.raises(BadVerdict):
        said(document)


# What Go passes on and we can't.
UNSENDABLE = {
    "Location": "https://example.com/else",
    "Content-Length": "0",
    "Access-Control-Allow-Origin": "*",
    "Upload-Offset": "7",
    "Tus-Resumable": "9",
    "Connection": "close",
    "Transfer-Encoding": "chunked",
    "X-Name": "Gr\u00fc\u00dfe",
    "a b": "no name",
    "": "none",
}


@pytest.mark.parametrize("kind", [QuestionKind.CREATE, QuestionKind.FINISH, QuestionKind.TERMINATE])
@pytest.mark.parametrize("rejects", [True, False])
def test_a_header_that_cannot_be_passed_on_is_left_out_and_the_rest_counts(kind, rejects):
    headers = {**UNSENDABLE, "X-Own": " yes ", "X-Lines": "one\r\ntwo", "X-None": None}
    answer = {"Header": headers, "Body": "words"}
    document = {"HTTPResponse": answer, "RejectUpload": rejects, "RejectTermination": rejects}
    left_out = []
    verdict = check(parse(json.dumps(document).encode(), kind, left_out.append), kind)
    assert isinstance(verdict, Refuse) is rejects
    sent = {name: value for name, value in verdict.answer.headers.items() if name != "Content-Type"}
    assert sent == {"X-Own": "yes", "X-Lines": "one  two", "X-None": ""} and verdict.answer.body == b"words"
    assert left_out == [f"header {name!a}" for name in UNSENDABLE]


def test_more_headers_than_can_be_passed_on_are_left_out():
    left_out = []
    many = {f"X-{number:03}": "x" * 400 for number in range(100)}
    verdict = parse(json.dumps({"HTTPResponse": {"Header": many}}).encode(), QuestionKind.CREATE, left_out.append)
    assert check(verdict, QuestionKind.CREATE) == verdict and 15 < len(verdict.answer.headers) < 32
    assert len(left_out) + len(verdict.answer.headers) == 100


@pytest.mark.parametrize("kind", [QuestionKind.CREATE, QuestionKind.FINISH, QuestionKind.TERMINATE])
def test_a_client_that_is_told_of_an_error_has_been_refused(kind):
    verdict = said({"HTTPResponse": {"StatusCode": 402, "Body": "pay"}}, kind)
    assert isinstance(verdict, Refuse) and (verdict.answer.status, verdict.answer.body) == (402, b"pay")


@pytest.mark.parametrize("status", [100, 204, 302, 999])
def test_a_rejection_without_an_error_status_is_one_with_the_usual(status):
    verdict = said({"HTTPResponse": {"StatusCode": status}, "RejectUpload": True})
    assert isinstance(verdict, Refuse) and verdict.answer.status == 400


@pytest.mark.parametrize("status", [100, 302, 999])
def test_a_status_that_cannot_be_passed_on_is_left_out(status):
    answer = {"StatusCode": status, "Header": {"X-Own": "1"}}
    assert said({"HTTPResponse": answer}) == Allow(answer=Answer(None, {"X-Own": "1"}))


def test_a_path_is_taken_as_it_stands_in_the_documentation():
    path = "./upload-e7a036dc-33f4-451f-9520-49032b87e952/presentation.pdf"
    assert said({"ChangeFileInfo": {"Storage": {"Path": path}}}) == Allow(Changes(key=path.removeprefix("./")))


@pytest_twisted.ensureDeferred
async def test_of_what_is_left_out_one_warning_is_given(rig, logged):
    server = HookServer({"HTTPResponse": {"Header": {"Location": "/x", "X-Own": "1"}, "StatusCode": 201}})
    hook = TusdHook(rig(server).poster, FORMAT, "tusd+https://h")
    for _ in range(3):
        assert await hook.ask(question()) == Allow(answer=Answer(201, {"X-Own": "1"}))
    warnings = [formatEvent(each) for each in logged if each["log_level"] is LogLevel.warn]
    assert warnings == ["hook tusd+https://h: the header 'Location' of its answer can't be passed on: left out"]


@pytest_twisted.ensureDeferred
async def test_an_id_with_folders_is_refused_and_the_log_says_once_what_to_change(rig, logged):
    it = rig(HookServer({"ChangeFileInfo": {"ID": "2027/invoice-0000000001"}}))
    guards = Guards(
        [Guard("tusd", TusdHook(it.poster, FORMAT), target="tusd+https://h")],
        clock=it.clock, wall=lambda: NOW, new_id=lambda: "ask_1",
    )  # fmt: skip
    for _ in range(3):
        with pytest.raises(Unavailable):
            await guards.before(QuestionKind.CREATE, UPLOAD, REQUEST)
    (line,) = [formatEvent(each) for each in logged if each["log_level"] is LogLevel.error]
    assert line.startswith("hook tusd (tusd+https://h) failed at before-create of ") and "Storage.Path" in line


@pytest.mark.parametrize(
    "answer",
    [(200, {}, b"{}"), (200, {"Content-Type": "text/html"}, b"{}"), (200, JSON, b""), (200, JSON, b"[]"),
     (204, {}, b""), (403, JSON, b"{}"), (302, {"Location": "/"}, b"{}")],
    ids=repr,
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_an_answer_that_tusd_would_not_take_opens_nothing(rig, answer):
    hook = TusdHook(rig(HookServer(answer)).poster, FORMAT)
    with pytest.raises(HookFailed):
        await hook.ask(question())


@pytest_twisted.ensureDeferred
async def test_an_upload_is_stopped_as_documented(rig):
    stop = {
        "HTTPResponse": {
            "StatusCode": 400,
            "Body": '{"message":"associated project is no longer available"}',
            "Header": {"Content-Type": "application/json"},
        },
        "StopUpload": True,
    }
    server = HookServer({}, stop)
    hook = TusdHook(rig(server).poster, FORMAT)
    progress = event(EventKind.PROGRESS)
    assert await hook.watch(progress) is None
    refuse = await hook.watch(progress)
    assert refuse.answer.status == 400 and b"no longer available" in refuse.answer.body
    assert json.loads(server.bodies[0])["Type"] == "post-receive"
    assert parse_stop(b'{"StopUpload": true}').answer.body == b"upload has been stopped by server\n"


@pytest_twisted.ensureDeferred
async def test_the_client_sees_what_a_tusd_hook_has_said(rig):
    it = rig(HookServer(REJECTS))
    guards = Guards(
        [Guard("tusd", TusdHook(it.poster, FORMAT))], clock=it.clock, wall=lambda: NOW, new_id=lambda: "ask_1"
    )
    with pytest.raises(Refused) as caught:
        await guards.before(QuestionKind.CREATE, UPLOAD, REQUEST)
    assert caught.value.status == 400 and b"no project with ID 1234" in caught.value.body
    assert len(caught.value.body) >= 256


@pytest.mark.parametrize(
    ("url", "storage"),
    [
        ("s3://bucket/a%20b", {"Type": "s3store", "Bucket": "bucket", "Key": f"a b/{ID}"}),
        ("gs://bucket", {"Type": "gcsstore", "Bucket": "bucket", "Key": ID}),
        ("az://container/x", {"Type": "azurestore", "Container": "container", "Key": f"x/{ID}"}),
    ],
)
def test_an_upload_whose_spool_is_a_store_is_an_object_there(url, storage):
    made = TusdFormat(lambda upload_id: f"{url}/{upload_id}").document("post-finish", event())
    assert made["Event"]["Upload"]["Storage"] == storage
