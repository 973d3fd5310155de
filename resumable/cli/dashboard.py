"""``resumable dashboard``: opens the dashboard of a daemon in a browser, through a relay that runs until Ctrl-C.

Invariant: the daemon is asked first, so that what is wrong is said here and not in the browser.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from resumable.cli.admin_client import AdminClient, AdminLine
from resumable.cli.main import add_places, command_parser, place_of, token_of

_DESCRIPTION = (
    "Opens the dashboard of a server in the browser: all uploads live, the last hour, retry, replay, drain. "
    "It is relayed on 127.0.0.1 until Ctrl-C."
)


def parser() -> argparse.ArgumentParser:
    """The parser of what follows ``resumable dashboard``."""
    line = command_parser("resumable dashboard", _DESCRIPTION)
    add_places(line)
    line.add_argument("--port", type=_port, default=0, metavar="NUMBER", help="the relay's, on 127.0.0.1 [a free one]")
    line.add_argument("--no-browser", action="store_true", help="only print the address")
    return line


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 65535")
    return int(text)


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command. The exit status."""
    found = parser().parse_args(arguments)
    where, token = place_of(found, environ), token_of(found)
    AdminClient(AdminLine(where, token)).drain("GET")
    return _relay(where, token, found)


def _relay(where: str, token: str | None, found: argparse.Namespace) -> int:
    """Until Ctrl-C."""
    from twisted.internet import reactor as _reactor
    from twisted.internet.error import CannotListenError
    from twisted.web.server import Site

    from resumable.cli.relay import Relay, agent_for, is_plain_remote

    reactor: Any = _reactor
    if token is not None and is_plain_remote(where):
        sys.stderr.write("resumable: the token goes over the network without TLS; better give an https:// --url\n")
    relay = Relay(*agent_for(reactor, where), token)
    site = Site(relay)
    site.noisy = False
    try:
        port = reactor.listenTCP(found.port, site, interface="127.0.0.1")
    except CannotListenError as error:
        sys.stderr.write(f"resumable: --port {found.port}: {error.socketError.strerror}; give another one, or none\n")
        return 1
    relay.opened_at(port.getHost().port)
    sys.stdout.write(f"{relay.url}\nThis address opens the dashboard once, in one browser. Ctrl-C ends it.\n")
    sys.stdout.flush()
    if not found.no_browser:
        relay.users = _users(os.environ)  # while a browser starts, its command line shows the address to everybody
        reactor.callInThread(_browse, relay.url)
    ended: list[int] = []

    def interrupted(number: int, _: object) -> None:
        ended.append(number)
        reactor.callFromThread(reactor.stop)

    reactor.callWhenRunning(signal.signal, signal.SIGINT, interrupted)
    reactor.run()
    return 130 if ended else 0


def _users(environ: Mapping[str, str]) -> set[int]:
    """This one, the one who has become it by sudo, and root, who could do everything anyway."""
    behind = environ.get("SUDO_UID", "")
    return {0, os.getuid(), *([int(behind)] if behind.isdigit() else [])}


def _browse(url: str) -> None:
    """Open a browser, if there is one: the address is printed anyway."""
    import webbrowser

    webbrowser.open(url)
