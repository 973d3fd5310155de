"""The conformance tests once more, over HTTP/2; what they send byte by byte goes over HTTP/1.1, to the same port."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .http2 import Http2
from .test_conformance import *  # noqa: F403
from .test_conformance import MAX
from .test_conformance_extensions import *  # noqa: F403
from .tus import Tus, check
from .wire import Answer

FLAGS = ("--max-size", str(MAX), "--network-timeout", "2", "--h2c", "--expire-after", "1h")


class Tus2(Tus):
    """A client over HTTP/2."""

    _link: Http2 | None = None

    def ask(
        self,
        method: str,
        target: str | None = None,
        fields: Mapping[str, str | None] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Answer:
        whole = body if isinstance(body, bytes) else b"".join(body or ())
        announced = {} if body is None or not isinstance(body, bytes) else {"Content-Length": str(len(body))}
        said = {"Tus-Resumable": "1.0.0", **announced, **(fields or {})}
        sent = {name: value for name, value in said.items() if value is not None and name != "Transfer-Encoding"}
        for again in (True, False):
            if self._link is None:
                self._link = Http2(self.port, timeout=self.timeout)
            try:
                path = (target or self.base).removeprefix(f"http://127.0.0.1:{self.port}")  # has no absolute form
                number = self._link.begin(method, path, sent, end=body is None)
                if body is not None:
                    self._link.send(number, whole, end=True, trailers=trailers)
                return check(method, self._link.answer(number))
            except OSError:  # an idle connection is closed
                self.close()
                if not again:
                    raise
        raise AssertionError

    def close(self) -> None:
        super().close()
        if self._link is not None:
            self._link.close()
            self._link = None


CLIENT = Tus2
