"""What is shown of URLs: nothing that may be a secret, and enough to know which one it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.masking import has_user, masked, masked_target, server_of

# what may stand in a value of a query and in a password (RFC 3986, appendix A), but for what ends them
VALUES = st.text("abcXYZ019-._~%!$'()*+,;:@/?[]", min_size=1).map(lambda text: f"SECRET{text}SECRET")
PASSWORDS = st.text("abcXYZ019-._~%!$&'()*+,;=:", min_size=1).map(lambda text: f"SECRET{text}SECRET")


@given(VALUES, VALUES)
def test_no_value_of_a_query_is_shown_wherever_the_url_stands(one, other):
    url = f"https://h.example/p?key={one}&other={other}"
    for text in (url, f"asked {url} in vain", f"can't ask '{url}': no", f'{{"url": "{url}"}}', f"<{url}>"):
        assert "SECRET" not in masked(text) and "https://h.example/p?key=..." in masked(text)
    assert masked_target(f"/p?key={one}&other={other}") == "/p?key=...&other=..."
    assert server_of(url) == "https://h.example/..."


@pytest.mark.parametrize("text", ["{}", "asked {} in vain", "can't ask {}: no", '{{"url": "{}"}}', "<{}>"])
def test_a_query_that_is_nothing_but_a_value_is_not_shown(text):
    shown = masked(text.format("https://h.example/p?SECRET"))
    assert "SECRET" not in shown and "https://h.example/p?..." in shown


@given(PASSWORDS)
def test_no_user_and_no_password_is_shown(password):
    for user in (f"ann:{password}", f":{password}", password):
        url = f"https://{user}@h.example:8443/p"
        assert masked(f"asked {url} in vain") == "asked https://...@h.example:8443/p in vain"
        assert server_of(url) == "https://h.example:8443/..."
        assert has_user(url)


@pytest.mark.parametrize(
    "text",
    [
        "an ordinary line; charset=utf-8, a=b & c = d",
        "https://h.example/a/b@c",
        "does it run? Give --upload-dir",
        "s3://bucket/prefix: AccessDenied",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text):
    assert masked(text) == text


@pytest.mark.parametrize(("url", "user"), [("https://h/", False), ("https://h/a@b", False), ("https://@h/", True)])
def test_whether_a_user_is_named(url, user):
    assert has_user(url) is user


def test_a_server_alone_is_shown_as_it_is():
    assert server_of("http://127.0.0.1:8080") == server_of("http://127.0.0.1:8080/") == "http://127.0.0.1:8080"
