"""Upload-Concat: T50."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol import concat
from resumable.protocol.errors import BadRequest
from resumable.protocol.names import valid_id

A, B = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"


def test_T50_partial():
    assert concat.parse("partial") == concat.PARTIAL


@pytest.mark.parametrize(
    ("value", "urls"),
    [
        ("final;/files/a /files/b", ("/files/a", "/files/b")),
        ("final; /files/a /files/b", ("/files/a", "/files/b")),
        ("final;a", ("a",)),
        ("final;/f/a /f/a /f/b", ("/f/a", "/f/a", "/f/b")),
        ("final;http://h/f/a  http://h/f/b?token=x", ("/f/a", "/f/b")),
        ("final;/f/a?token=x /f/a?b=/f/c", ("/f/a", "/f/a")),
    ],
)
def test_T50_final_lists_urls_in_order_and_may_repeat_them(value, urls):
    assert concat.parse(value) == concat.FinalUpload(urls)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "Partial",
            "partial;",
            "partial ",
            "final",
            "final;",
            "final; ",
            "final ;a",
            "Final;a",
            "final:a",
            "final,a",
        ),
        *("final;a\tb", "final;a\r\nX: y", "final;é", "final;a\0", "finally;a"),
    ],
)
def test_T50_anything_else_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Concat"):
        concat.parse(value)


@pytest.mark.parametrize("base", ["/files", "/files/"])
@pytest.mark.parametrize(
    "url",
    [
        A,
        f"/files/{A}",
        f"http://127.0.0.1:8080/files/{A}",
        f"https://tus.example.org/files/{A}",
        f"HTTPS://[::1]:1/files/{A}",
        f"/files/{A}?token=v1.x.y",
        f"http://h/files/{A}?token=v1.x.y&a=/b?c",
    ],
)
def test_T50_absolute_urls_of_any_host_paths_and_ids_are_understood(url, base):
    assert concat.upload_id(url, base) == A


def test_T50_uploads_may_live_at_the_root_or_deeper_or_under_another_public_path():
    assert concat.upload_id(f"/{A}", "/") == A
    assert concat.upload_id(f"http://h/{A}", "/") == A
    assert concat.upload_id(f"/a/b/{A}", "/a/b/") == A
    assert concat.upload_id(f"https://h/public/{B}", "/files/", "/public/") == B


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "/",
            "/files/",
            "/files/short",
            f"/other/{A}",
            f"/files//{A}",
            f"//files/{A}",
            f"/files/{A}/",
            f"/files/x/{A}",
        ),
        *(
            f"/files/?{A}",
            f"/files/{A}#x",
            f"http://h/files/?x=/files/{A}",
            f"files/{A}",
            f"./{A}",
            f"../files/{A}",
            f"/{A}",
        ),
        *(f"ftp://h/files/{A}", f"//h/files/{A}", f"http:///files/{A}", f"http://h?/files/{A}", f"/files/../files/{A}"),
        *(
            f"/files/%2e%2e/{A}",
            f"/files%2f{A}",
            "/files/../../../../../etc/passwd",
            f"/FILES/{A}",
            f"javascript:/files/{A}",
        ),
        *(
            f"http://h\\files/{A}",
            f"/files\\{A}",
            "-" + A,
            f"/files/-{A}",
            "http://h",
            f"http://{A}",
            f"http:/files/{A}",
        ),
    ],
)
def test_T50_a_url_of_nothing_here_is_400(url):
    with pytest.raises(BadRequest, match="Upload-Concat"):
        concat.upload_id(url, "/files/")


@given(st.text(max_size=60) | st.text("finalprt; /:-", max_size=20).map("final;".__add__))
def test_T50_any_value_is_understood_or_400(value):
    try:
        parsed = concat.parse(value)
    except BadRequest as error:
        assert error.detail.isascii() and error.detail.isprintable()
        return
    assert value.isascii() and value.isprintable()
    assert parsed == "partial" or parsed.urls


@given(st.text(max_size=60) | st.from_regex(rf"(https?:/)?/?[a-z.%/]{{0,6}}/files/?{A}?.?"))
def test_T50_any_url_is_a_valid_id_or_400(url):
    try:
        assert valid_id(concat.upload_id(url, "/files"))
    except BadRequest as error:
        assert error.detail.isascii() and error.detail.isprintable()
