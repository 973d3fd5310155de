"""What docs/hooks.md shows is what the code does."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from resumable.hooks import messages, tusd
from resumable.hooks.ask import check, check_stop
from resumable.hooks.command import PASSED_ON, facts
from resumable.hooks.interfaces import Allow, EventKind, IGuard, Refuse
from resumable.hooks.messages import WebhookSigner
from resumable.model.hooks import Answer, Changes, QuestionKind
from tests.hooks.servers import SECRET, event, question

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text("utf-8")


def block(mark: str, language: str) -> str:
    match = re.search(rf"^<!-- {mark} -->\n```{language}\n(.*?)^```$", PAGE, re.S | re.M)
    assert match, f"no block marked {mark}"
    return match[1]


def run(mark: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "hooks_page"}
    exec(compile(block(f"run: {mark}", "python"), f"hooks.md, {mark}", "exec"), names)
    return names


def answer(mark: str) -> bytes:
    return block(f"example: {mark}", "json").encode()


def test_the_event_that_is_shown_is_made_like_that():
    shown = json.loads(answer("event"))
    assert shown == messages.document(event(EventKind.STORED, remote="s3", key="a.txt"), "/files/")


def test_the_answers_that_are_shown_are_understood():
    create = QuestionKind.CREATE
    assert check(messages.parse(answer("yes")), create) == Allow()
    pairs = {"filename": b"invoice.pdf", "customer": b"7"}
    changes = Changes("customer-7_2027-01-15_0001", pairs, "invoices/7/invoice.pdf", ("archive",), 104857600)
    assert check(messages.parse(answer("change")), create) == Allow(changes, Answer(headers={"X-Job": "4711"}))
    refusal = check(messages.parse(answer("no")), create)
    assert isinstance(refusal, Refuse) and refusal.answer.status == 402
    stop = check_stop(messages.parse_stop(answer("stop")))
    assert stop is not None and stop.answer.status == 410


@pytest.mark.parametrize("kind", [*EventKind, *QuestionKind])
def test_every_event_and_question_has_a_row(kind):
    assert re.search(rf"^\| `{kind.value}` \|", PAGE, re.M)


@pytest.mark.parametrize("change", [each for each in Changes.__annotations__])
def test_every_change_has_a_row(change):
    assert re.search(rf"^\| `{change}` \|", PAGE, re.M)


@pytest.mark.parametrize("hook", [*tusd.QUESTIONS.values(), *tusd.EVENTS.values()])
def test_every_hook_of_tusd_is_named(hook):
    assert f"`{hook}`" in PAGE


def test_variables_of_commands_are_named():
    assert set(re.findall(r"`(HOOK_[A-Z]+)`", PAGE)) == set(facts(event(EventKind.STORED, remote="s3")))
    assert all(f"`{name}`" in PAGE for name in PASSED_ON)


def test_the_way_to_verify_works():
    headers = WebhookSigner([SECRET]).headers("evt_1", int(time.time()), b'{"a": 1}')
    secret = "whsec_" + base64.b64encode(SECRET).decode()
    verified = run("verify")["verified"]
    assert verified(secret, headers, b'{"a": 1}') == {"a": 1} and verified(secret, headers, b"{}") is None


def test_the_hook_in_python_works():
    hook = run("python")["OneFolderForEachCustomer"]()
    assert IGuard.providedBy(hook)
    for kind, wanted in (
        (QuestionKind.FINISH, Allow()),
        (QuestionKind.CREATE, Refuse(Answer(400, body=b"Which customer?"))),
    ):
        with pytest.raises(StopIteration) as stopped:
            hook.ask(question(kind)).send(None)
        assert stopped.value.value == wanted


@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "length", "status"),
    [("before-create", "5", 0), ("before-create", "1073741825", 1), ("before-create", "", 1), ("created", "", 0)],
)
def test_the_script_decides(kind, length, status):
    (script,) = (each for each in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.S | re.M) if "HOOK_EVENT" in each)
    shell = shutil.which("sh")
    done = subprocess.run([shell, "-c", script], env={"HOOK_EVENT": kind, "HOOK_LENGTH": length}, timeout=300)
    assert done.returncode == status
