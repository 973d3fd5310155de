"""What operators set becomes settings of hooks."""

from __future__ import annotations

import base64

import pytest
from attrs import evolve
from twisted.python import usage

from resumable.config.options import Options
from resumable.hooks.ask import Patience
from resumable.hooks.http import Tls
from resumable.hooks.interfaces import EventKind
from resumable.hooks.retry_policy import RetryPolicy
from resumable.hooks.settings import HookSettings, HookTarget
from resumable.model.hooks import QuestionKind
from tests.certificates import Authority

SECRETS = [b"a secret of 24 bytes or more", b"an older secret, of 24 bytes or more"]
TEXTS = ["whsec_" + base64.b64encode(each).decode() for each in SECRETS]


def parse(*flags, **environ):
    options = Options(environ)
    options.parseOptions(flags)
    return options.settings().hooks


def refusal(*flags):
    with pytest.raises(usage.UsageError) as caught:
        parse(*flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_any_flag_nobody_is_told_or_asked():
    assert parse() == HookSettings()
    assert parse().deliverers == ()


def test_hooks_and_guards_come_from_flags_or_from_lines_of_a_variable():
    expected = (
        HookTarget("hook", "http", "https://h/x?a=b,c"),
        HookTarget("log", "command", arguments=("/bin/log", "a b")),
    )
    assert parse("--hook", "https://h/x?a=b,c", "--hook", "log=exec:/bin/log 'a b'").hooks == expected
    found = parse(RESUMABLE_HOOK="https://h/x?a=b,c\n log=exec:/bin/log 'a b'\n\n", RESUMABLE_GUARD="tusd+http://g/")
    assert found.hooks == expected
    assert found.guards == (HookTarget("guard", "tusd", "http://g/"),)
    assert found.deliverers == ("hook", "log")


def test_every_flag_counts():
    found = parse(
        *("--hook-events", "created,progress", "--guard-questions", "before-finish"),
        *("--hook-secret", TEXTS[0], "--hook-secret", TEXTS[1], "--hook-forward-headers", "X-Own,COOKIE"),
        *("--hook-timeout", "20s", "--hook-command-timeout", "1m", "--guard-timeout", "7s", "--hook-commands", "2"),
        *("--hook-concurrency", "3", "--hook-rate", "5", "--hook-give-up-after", "1h"),
        *("--hook-progress-interval", "4s", "--hook-tusd-finished", "stored"),
    )
    assert found == HookSettings(
        events=frozenset({EventKind.CREATED, EventKind.PROGRESS}),
        questions=frozenset({QuestionKind.FINISH}),
        secrets=tuple(SECRETS),
        forward=("x-own", "cookie"),
        timeout=20.0,
        command_timeout=60.0,
        commands=2,
        patience=Patience(within=7.0),
        retry_policy=evolve(RetryPolicy(), concurrency=3, per_second=5.0, timeout=120.0, give_up_after=3600.0),
        progress_interval=4.0,
        tusd_finished=EventKind.STORED,
    )


def test_secrets_come_from_a_file_too(tmp_path):
    file = tmp_path / "secrets"
    file.write_text(f"{TEXTS[0]}\n\n  {TEXTS[1]}\n")
    assert parse("--hook-secret-file", str(file)).secrets == tuple(SECRETS)
    file.write_text("\n")
    assert "is empty" in refusal("--hook-secret-file", str(file))
    file.write_bytes(b"\xff")
    assert "no text" in refusal("--hook-secret-file", str(file))
    file.write_text("whsec_hidden")
    assert "hidden" not in refusal("--hook-secret-file", str(file))


def test_certificates_are_read_at_the_start(tmp_path):
    pem = tmp_path / "ca.pem"
    pem.write_text("no certificate")
    assert "--hook-ca" in refusal("--hook-ca", str(pem))
    assert "can't be read" in refusal("--hook-cert", str(tmp_path / "nothing"))
    assert "needs --hook-cert" in refusal("--hook-key", str(pem))


def test_authorities_and_a_certificate_make_a_policy(tmp_path):
    authority = Authority()
    for name, text in zip(("ca", "cert", "key"), (authority.pem, *authority.issue("client")), strict=True):
        (tmp_path / name).write_text(text)
    flags = [text for name in ("ca", "cert", "key") for text in (f"--hook-{name}", str(tmp_path / name))]
    assert isinstance(parse(*flags).policy, Tls)


@pytest.mark.parametrize(
    "flags",
    [
        ("--hook", "ftp://hidden/"),
        ("--guard", "https://user:hidden@h/"),
        ("--hook-secret", "whsec_hidden"),
        ("--hook-forward-headers", "Content-Length"),
        ("--hook-forward-headers", "a b"),
        ("--hook-events", "before-create"),
        ("--guard-questions", "created"),
        ("--hook-rate", "0"),
    ],
    ids=lambda flags: " ".join(flags),
)
def test_what_can_not_be_is_told_without_repeating_a_target_or_a_secret(flags):
    assert "hidden" not in refusal(*flags)
