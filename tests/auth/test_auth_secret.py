"""Secrets come from the command line or from files, and never show."""

from __future__ import annotations

import os
import pickle

import pytest

from resumable.auth import secret
from resumable.auth.secret import AccessProblem, Secret, read_secret


def test_a_secret_from_a_file_is_trimmed(tmp_path):
    (tmp_path / "key").write_text("  hush\n\n")
    assert read_secret("the key", None, tmp_path / "key").reveal() == b"hush"


def test_a_secret_may_be_given_as_it_is():
    assert read_secret("the key", "hush", None).reveal() == b"hush"


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda value: repr([value])])
def test_a_secret_never_shows(show):
    assert "hush" not in show(Secret(b"hush"))


def test_a_secret_is_not_pickled():
    with pytest.raises(TypeError):
        pickle.dumps(Secret(b"hush"))


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"x" * (secret.LARGEST + 1)])
def test_a_file_without_a_secret_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AccessProblem, match=r"^the key: ") as caught:
        read_secret("the key", None, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_directory_or_a_pipe_is_no_secret(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(AccessProblem, match=r"^the key: "):
            read_secret("the key", None, path)


@pytest.mark.parametrize(("value", "name"), [(None, None), ("hush", "key")])
def test_both_or_none_of_secret_and_file_are_refused(tmp_path, value, name):
    with pytest.raises(AccessProblem, match="one of the two") as caught:
        read_secret("the key", value, name and tmp_path / name)
    assert "hush" not in str(caught.value)
