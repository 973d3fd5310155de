"""A daemon with something of everything that the dashboard shows: uploads under way, stored, parked; a dead event."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from .daemon import Daemon, free_port
from .tus import Tus, metadata, pattern
from .wire import Wire

TOKEN = "operators-only-0123456789"


class BusyDaemon(Daemon):
    """Its admin API is at ``admin``, a URL, with `TOKEN`, and at its socket. ``nas`` is a remote that has a foreign
    object under the name ``taken.mov``."""

    def __init__(self) -> None:
        self.place = tempfile.TemporaryDirectory(prefix="resumable-busy-")
        home = Path(self.place.name)
        for name in ("nas", "archive"):
            (home / name).mkdir()
        (home / "nas" / "taken.mov").write_text("somebody else's")
        self.token_file = home / "token"
        self.token_file.write_text(TOKEN)
        self.admin = f"http://127.0.0.1:{free_port()}"
        self.ids: dict[str, str] = {}
        super().__init__(
            *("--remote", f"file://{home}/nas?name=nas&key={{metadata[filename]}}"),
            *("--remote", f"file://{home}/archive?name=archive&required=no"),
            *("--admin-listen", "socket", "--admin-token-file", str(self.token_file)),
            *("--admin-listen", f"tcp:{self.admin.rpartition(':')[2]}:interface=127.0.0.1"),
            *("--hook", f"billing=http://127.0.0.1:{free_port()}/", "--hook-give-up-after", "1s"),
            *("--part-size", "5M"),
        )
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def socket(self) -> Path:
        return self.upload_dir / ".resumable/admin.sock"

    def whole(self, name: str, size: int) -> str:
        """The id of an upload that is finished."""
        tus = Tus(self.port)
        path = tus.create(size, {"Upload-Metadata": metadata(filename=name, filetype="video/mp4")}, pattern(size))
        tus.close()
        self.ids[name] = path.rpartition("/")[2]
        return self.ids[name]

    def begun(self, name: str, size: int, sent: int) -> str:
        """The path of one that its client has left."""
        tus = Tus(self.port)
        path = tus.create(size, {"Upload-Metadata": metadata(filename=name)}, pattern(sent))
        tus.close()
        self.ids[name] = path.rpartition("/")[2]
        return path

    def moving(self, name: str, size: int, sent: int, rate: int) -> str:
        """The id of one that goes on at so many bytes a second until the daemon is closed."""
        path = self.begun(name, size, sent)
        thread = threading.Thread(target=self._send, args=(path, sent, size, rate), daemon=True)
        thread.start()
        self._threads.append(thread)
        return self.ids[name]

    def _send(self, path: str, offset: int, size: int, rate: int) -> None:
        wire = Wire(self.port)
        try:
            wire.send(
                f"PATCH {path} HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
                f"Content-Type: application/offset+octet-stream\r\nContent-Length: {size - offset}\r\n\r\n"
            )
            while not self._over.wait(0.1) and wire.offer(bytes(rate // 10)):
                pass
        finally:
            wire.close()

    def fill(self) -> None:
        """Make some of everything."""
        for name, size in (("garden.jpg", 3_100_000), ("thesis.pdf", 4_200_000), ("taken.mov", 6_000_000)):
            self.whole(name, size)
        self.begun("Holidays 2019.zip", 80_000_000, 22_000_000)
        self.moving("Iceland in June.mp4", 900_000_000, 60_000_000, 8_000_000)
        self.moving("recording-0417.wav", 300_000_000, 120_000_000, 2_400_000)

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        super().close()
        self.place.cleanup()
