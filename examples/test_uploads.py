"""Tests with a real upload server, which the fixture starts: pytest test_uploads.py.

The fixture is there wherever resumable-server is installed. `from resumable.testing import upload_server` is the same
as a context manager, for other test frameworks.
"""

import pytest


def test_my_program_uploads_a_file(upload_server):
    url = upload_server.upload(b"hello", filename="hello.txt")  # call your own program here, with upload_server.url
    finished = upload_server.wait_for("finished", url)
    assert finished.name == "hello.txt"
    assert finished.path.read_bytes() == b"hello"


@pytest.mark.upload_server(max_size="1K")
def test_large_files_are_refused(upload_server):
    with pytest.raises(RuntimeError, match="413"):
        upload_server.upload(bytes(2000))


@pytest.mark.upload_server(hook="python:my_hooks", guard="python:my_hooks")
def test_my_hooks_take_only_pictures(upload_server):
    with pytest.raises(RuntimeError, match="415"):
        upload_server.upload(b"%PDF", filename="letter.pdf")
    upload_server.upload(b"\x89PNG", filename="picture.png")
    upload_server.wait_for("finished")
