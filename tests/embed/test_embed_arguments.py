"""An argument of an embedded server means what the flag of that name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from resumable.embed.arguments import settings_of
from resumable.model.errors import StartupError


def test_arguments_are_texts_numbers_paths_switches_and_lists():
    settings = settings_of(
        {
            "upload_dir": Path("here"),
            "max_size": "10G",
            "expire_after": 3600,
            "remote": ["memory://?name=one", "memory://?name=two"],
            "disable_draft": True,
            "disable_download": False,
            "public_url": None,
        }
    )
    assert settings.upload_dir.name == "here"
    assert (settings.max_size, settings.expire_after) == (10 << 30, 3600.0)
    assert [each.name for each in settings.remotes] == ["one", "two"]
    assert (settings.draft, settings.download, settings.public_url) == (False, True, None)


def test_no_port_is_opened_that_was_not_asked_for():
    settings = settings_of({})
    assert settings.listen == settings.admin_listen == ()
    assert settings_of({"port": 8000}).listen == ("tcp:8000",)
    assert settings_of({"listen": "tcp:8000:interface=127.0.0.1"}).listen == ("tcp:8000:interface=127.0.0.1",)
    assert settings_of({"admin_listen": "socket"}).admin_listen


def test_the_environment_sets_nothing_but_what_a_remote_names(monkeypatch):
    monkeypatch.setenv("RESUMABLE_MAX_SIZE", "1K")
    monkeypatch.setenv("RESUMABLE_MAX_SICE", "1K")
    monkeypatch.setenv("AWS_S3_BUCKET", "somebody-elses")
    settings = settings_of({})
    assert (settings.max_size, settings.remotes) == (None, ())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_sise": "1G"}, "there is no option max_sise: did you mean max_size?"),
        ({"max-size": "1G"}, "there is no option max-size: did you mean max_size?"),
        ({"max_size": "much"}, "--max-size 'much': expected"),
        ({"max_size": ["1G", "2G"]}, "max_size: expected one value"),
        ({"max_size": object}, "max_size=<class 'object'>: expected text, a number or a path"),
        ({"hook_secret": object}, "hook_secret: expected text"),
        ({"disable_draft": "yes"}, "disable_draft='yes': expected True or False"),
        ({"check": True}, "check has no meaning within another program"),
        ({"workers": 4}, "workers has no meaning within another program"),
        ({"log_level": "debug"}, "log_level has no meaning within another program"),
        ({"tls_cert": "x.pem"}, "tls_cert is for port or listen"),
        ({"local": "drop"}, "--local drop needs a --remote"),
        ({"remote": ["ftp://user:secret@host"]}, "remote"),
        ({"hook": ["python:not_there_at_all"], "guard": "nonsense"}, "https://..., tusd"),
    ],
)
def test_a_mistake_is_one_line_in_one_kind_of_exception(given, told):
    with pytest.raises(StartupError) as caught:
        settings_of(given)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value) and "secret@" not in str(caught.value)


def test_one_worker_is_what_there_is():
    assert settings_of({"workers": 1}).workers == 1
