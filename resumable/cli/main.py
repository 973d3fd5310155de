"""The command ``resumable``, and the grammar of its command line, with argparse.

Invariants: status 0 means done, and all is well; 1 that something is wrong or not there; 2 that the command line makes
no sense. Whatever goes wrong is one line, never a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, TypeVar

from attrs import frozen

from resumable import __version__
from resumable.cli import commands
from resumable.cli.admin_client import AdminClient, AdminLine, BadUrl, DaemonRefused, NoDaemon, NotAllowed, where
from resumable.cli.commands import ENOUGH
from resumable.cli.configured import UnusableConfig, configured
from resumable.cli.entry import guarded
from resumable.cli.line_parser import CommandParser, LineParser, value
from resumable.cli.texts import plain
from resumable.config.option import PREFIX, mentioned_variables, unknown_variables
from resumable.listening import run_directory
from resumable.model import values as option_values

T = TypeVar("T")
STATES: Final = ("uploading", "assembling", "finished", "stored", "gone", "unfinished", "any")


@frozen
class OwnCommand:
    """A command that reads its arguments itself. ``module``: the one here with its ``main(arguments, environ)``, which
    answers the exit status, and where it has one its ``parser()``, of which completion and manual pages are made. It is
    imported for this command only: most of them need all of the daemon."""

    module: str
    help: str


OWN: Final = {
    "serve": OwnCommand("serve", "take uploads, in the foreground, until Ctrl-C"),
    "put": OwnCommand("put", "send files and directories; the same command again goes on"),
    "get": OwnCommand("get", "fetch files; the same command again goes on"),
    "dashboard": OwnCommand("dashboard", "open the dashboard of a server in the browser"),
    "doctor": OwnCommand("checkup", "look at what the daemon depends on, and say what to change"),
    "config": OwnCommand("configure", "check, show or begin the configuration of the server"),
    "catalog": OwnCommand("moving", "move the records between SQLite and PostgreSQL"),
    "examples": OwnCommand("examples", "list complete programs to begin with, and copy one"),
    "completion": OwnCommand("completion", "print a script that completes commands and flags in a shell"),
    "man": OwnCommand("manual", "print a manual page"),
}

#: Those of them that come first in the help.
_FIRST: Final = ("serve", "put", "get")
_DESCRIPTION: Final = "Serves, sends and manages resumable uploads."
_ID: Final = "an id, or its first characters, 4 at least"

#: The socket of a daemon with an upload directory of its own, below that.
OWN_SOCKET: Final = Path(".resumable") / "admin.sock"


class BadToken(Exception):
    """The file with the token can't be used."""


class Misspelt(Exception):
    """An environment variable is set that looks like one of ours and is none."""


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command that ``arguments`` name. The exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _status(given, environ))


def _status(given: list[str], environ: Mapping[str, str]) -> int:
    try:
        return _run(given, environ)
    except KeyboardInterrupt:
        return 130
    except FileNotFoundError as error:  # no path means anything in a directory that is gone
        sys.stderr.write(f"resumable: {error.filename or 'the working directory'}: {error.strerror}\n")
    except BadUrl as error:
        sys.stderr.write(f"resumable: --url: {error}\n")
        return 2
    except NoDaemon as error:
        sys.stderr.write(f"resumable: {error}: does it run? Give --upload-dir, --run-dir or --url\n")
    except DaemonRefused as error:
        hint = "; give --token-file" if isinstance(error, NotAllowed) else ""
        sys.stderr.write(f"resumable: {plain(error).rstrip('.')}{hint}\n")
    except (BadToken, UnusableConfig, Misspelt) as error:
        sys.stderr.write(f"resumable: {error}\n")
        return 2
    return 1


def _run(given: list[str], environ: Mapping[str, str]) -> int:
    if given and (own := OWN.get(given[0])) is not None:
        module = import_module(f"resumable.cli.{own.module}")
        status: int = module.main(given[1:], environ)
        return status
    if not given:
        parser().print_help()
        return 0
    found = parsed(parser(), given)
    environ = configured(environ)
    _check_environment(environ)
    status = found.run(AdminClient(AdminLine(place_of(found, environ), token_of(found))), found)
    return int(status)


def _check_environment(environ: Mapping[str, str]) -> None:
    """Warn of variables that the daemon would ignore. Raises Misspelt."""
    if not any(name.startswith(PREFIX) for name in environ):
        return
    from resumable.config import BY_FLAG, OPTIONS

    mentioned = mentioned_variables([environ.get(BY_FLAG["remote"].variable, "")])
    for each in unknown_variables(environ, {option.variable for option in OPTIONS} | mentioned):
        if each.misspelt:
            raise Misspelt(str(each))
        sys.stderr.write(f"resumable: {each}\n")


def place_of(found: Namespace, environ: Mapping[str, str]) -> str:
    """Flags win over the environment, which is the daemon's."""
    if found.url is not None:
        return str(found.url)
    if found.run_dir is not None:
        return f"unix:{run_directory.socket_of(Path(found.run_dir).absolute())}"
    listened = environ.get("RESUMABLE_ADMIN_LISTEN", "").split()
    if found.upload_dir is None and listened and "socket" not in listened:
        for endpoint in listened:
            if (place := where(endpoint)) is not None:
                return place
    if (shared := _shared(found, environ)) is not None:
        return f"unix:{shared}"
    directory = found.upload_dir or environ.get("RESUMABLE_UPLOAD_DIR", "").strip() or "uploads"
    return f"unix:{Path(directory).absolute() / OWN_SOCKET}"


def _shared(found: Namespace, environ: Mapping[str, str]) -> Path | None:
    """The socket of a daemon that shares its upload directory, which is in its run directory."""
    given = environ.get("RESUMABLE_RUN_DIR", "").strip()
    if found.upload_dir is not None:
        return None
    if given:
        return run_directory.socket_of(Path(given).absolute())
    if environ.get("RESUMABLE_CATALOG", "sqlite").strip().lower() in ("", "sqlite"):
        own = Path(environ.get("RESUMABLE_UPLOAD_DIR", "").strip() or "uploads") / OWN_SOCKET
        return None if own.exists() else run_directory.found(None, environ, temporary=False)
    return run_directory.found(None, environ)


def token_of(found: Namespace) -> str | None:
    if found.token_file is None:
        return None
    try:
        token = Path(found.token_file).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise BadToken(f"--token-file {found.token_file}: {getattr(error, 'strerror', None) or error}") from error
    if not token or any(not char.isprintable() for char in token):
        raise BadToken(f"--token-file {found.token_file}: expected one line with a token")
    return token


def parser() -> argparse.ArgumentParser:
    """The parser of all commands. It ends the process with status 2 for an unknown argument."""
    root = LineParser("resumable", description=_DESCRIPTION, allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"resumable {__version__}")
    add = root.add_subparsers(parser_class=CommandParser, metavar="COMMAND", required=True).add_parser
    for name, own in OWN.items():
        if name in _FIRST:
            add(name, add_help=False, help=own.help)
    _ls(_command(add, "ls", commands.ls, "list uploads"))
    show = _command(add, "show", commands.show, "tell all of one upload, in both tiers")
    show.add_argument("id", metavar="ID", help=_ID)
    rm = _command(add, "rm", commands.rm, "end uploads and remove them, from remotes too as DELETE would")
    rm.add_argument("ids", metavar="ID", nargs="+", help=_ID)
    rm.add_argument("--yes", action="store_true", help="don't ask whether that is meant")
    rm.add_argument("--force", action="store_true", help="also those that a request appends to now")
    _retry(_command(add, "retry", commands.retry, "send on what remotes were given up for"))
    hooks = _command(add, "hooks", commands.hooks, "list hooks with their waiting and dead events")
    hooks.add_argument("what", choices=("dead", "replay"), nargs="?", help="list its dead events, or send them again")
    hooks.add_argument("hook", metavar="HOOK", nargs="?")
    replay = _command(add, "replay", commands.replay, "deliver the events again that a hook was given up for")
    replay.add_argument("hook", metavar="HOOK")
    drain = _command(add, "drain", commands.drain, "let no upload begin, while those that have may end")
    drain.add_argument("what", choices=("on", "off", "status"))
    for name, own in OWN.items():
        if name not in _FIRST:
            add(name, add_help=False, help=own.help)
    return root


def _ls(ls: argparse.ArgumentParser) -> None:
    ls.add_argument("--state", choices=STATES, help="only those in it [all but gone]")
    ls.add_argument("--remote", metavar="NAME", help="only those with a replica there")
    ls.add_argument("--parked", action="store_true", help="only those with a replica that was given up")
    ls.add_argument("--owner", metavar="NAME", help='only those of this identity, "" for nobody\'s')
    ls.add_argument("--older-than", metavar="TIME", type=value(option_values.duration), help="created before that")
    ls.add_argument("--idle", metavar="TIME", type=value(option_values.duration), help="not touched for that long")
    ls.add_argument("--min-size", metavar="SIZE", type=value(option_values.size), help="only those that are as large")
    ls.add_argument("--newest", action="store_true", help="the newest first")
    most = value(option_values.integer(1, 10**9, "a number"))
    ls.add_argument("--limit", metavar="NUMBER", type=most, default=ENOUGH, help=f"so many at most [{ENOUGH}]")
    ls.add_argument("--all", action="store_true", help="however many there are")
    ls.add_argument("--full-id", action="store_true", help="whole ids in a terminal, too")
    ls.add_argument("--watch", action="store_true", help="draw them anew each second, the newest first, until Ctrl-C")


def _retry(retry: argparse.ArgumentParser) -> None:
    retry.add_argument("ids", metavar="ID", nargs="*", help=_ID)
    retry.add_argument("--remote", metavar="NAME", help="only the replica there")
    retry.add_argument("--all", action="store_true", help="instead of an ID: everything that was parked for --remote")


def parsed(root: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments. Ends the process with status 2 for arguments that make no sense."""
    given = root.parse_args(arguments)
    _check(root, given)
    return given


def _check(root: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """The checks that argparse lacks; ends the process as it would."""
    if given.run is commands.retry:
        if given.all and (given.ids or given.remote is None):
            root.error("retry --all takes --remote NAME, and no ID")
        if not given.all and not given.ids:
            root.error("retry takes an ID, or --all --remote NAME")
    if given.run is commands.hooks and given.what is not None and given.hook is None:
        given.command.error(f"{given.what} takes the name of a HOOK")
    if given.run is commands.ls and given.watch and (given.json or given.all):
        given.command.error("--watch goes without --json and --all")


def _command(
    add: Callable[..., argparse.ArgumentParser], name: str, run: commands.Command, help_line: str
) -> argparse.ArgumentParser:
    description = f"{help_line[0].upper()}{help_line[1:]}."
    command = add(name, help=help_line, description=description, allow_abbrev=False)
    command.set_defaults(run=run, command=command)
    add_places(command)
    command.add_argument("--json", action="store_true", help="JSON instead of text")
    return command


def add_places(command: argparse.ArgumentParser) -> None:
    """The options that say which daemon is meant: see `place_of` and `token_of`."""
    where = command.add_argument_group("the daemon")
    where.add_argument("--upload-dir", metavar="PATH", help="the one of this upload directory [uploads]")
    where.add_argument("--run-dir", metavar="PATH", help="the one with this run directory, with --catalog postgresql")
    where.add_argument("--url", help="the one that answers operators there: http://..., or unix:/path")
    where.add_argument("--token-file", metavar="PATH", help="with the token that --url asks for")


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Of a command that reads its arguments itself."""
    return LineParser(name, description=description, allow_abbrev=False)
