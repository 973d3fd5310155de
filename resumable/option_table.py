"""Everything an operator can set: one table that the flags, the environment variables and the docs come from.

Changes when an option comes, goes or gets another default. Run as a module it writes the tables of the documents
named on its command line anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from resumable import option_values as values


@frozen
class Option:
    """One row of the table.

    ``parse`` gets the text; where ``separator`` is set, which makes the flag repeatable, the list of texts. A comma
    splits flags and variables alike, a blank only variables. ``default`` is text, as a person would write it.
    ``advice`` says what happens at the ends of the scale.
    """

    flag: str
    metavar: str
    default: str
    help: str
    advice: str
    parse: Callable[[Any], Any]
    separator: str = ""

    @property
    def variable(self) -> str:
        return "RESUMABLE_" + self.flag.upper().replace("-", "_")

    @property
    def is_switch(self) -> bool:
        return not self.metavar


OPTIONS: tuple[Option, ...] = (
    Option(
        "port",
        "PORT",
        "8080",
        "TCP port to listen on, on every IPv4 interface",
        "0 takes a free port and logs it. Left out of account when `--listen` is given and this is not.",
        values.integer(0, 65535, "a port number"),
    ),
    Option(
        "listen",
        "ENDPOINT",
        "",
        "Twisted server endpoint to listen on; repeatable",
        "For example `tcp:8080:interface=127.0.0.1`, `tcp6:8080`, `unix:/run/resumable/http.sock:mode=660`,"
        " `ssl:8443:privateKey=key.pem:certKey=cert.pem` or `systemd:domain=INET:index=0`."
        " Endpoints in the variable are separated by blanks.",
        values.endpoints,
        separator=" ",
    ),
    Option(
        "upload-dir",
        "PATH",
        "uploads",
        "directory for uploads and their catalog",
        "On a local file system: network file systems are refused. One server at a time has it.",
        values.directory,
    ),
    Option(
        "base-path",
        "PATH",
        "/files/",
        "URL path under which uploads are made",
        "Answered with and without the slash at its end.",
        values.base_path,
    ),
    Option(
        "public-url",
        "URL",
        "",
        "URL under which the base path is seen from outside",
        "Goes into every `Location`, path included: `https://example.org/files/`."
        " Unset, it is made from each request (see `--behind-proxy`).",
        values.public_url,
    ),
    Option(
        "behind-proxy",
        "ADDRESSES",
        "",
        "proxies whose Forwarded and X-Forwarded-* headers are believed; repeatable",
        "IP addresses and CIDR blocks separated by commas; `loopback` and `private` (10/8, 172.16/12, 192.168/16,"
        " fc00::/7) name the usual ones. Unset, these headers are ignored. Too wide a list lets a client choose"
        " the host that it is told to upload to.",
        values.networks,
        separator=",",
    ),
    Option(
        "max-size",
        "SIZE",
        "0",
        "largest upload in bytes; 0 for no limit",
        "Told to clients as `Tus-Max-Size`; anything larger is refused with 413 before its bytes are read.",
        values.optional_size,
    ),
    Option(
        "expire-after",
        "TIME",
        "7d",
        "idle time after which an unfinished upload is removed; 0 for never",
        "Finished uploads are never removed. Too short, and people who go home over a weekend start over; never,"
        " and abandoned uploads fill the disk.",
        values.optional_duration,
    ),
    Option(
        "remember",
        "TIME",
        "7d",
        "how long a removed upload answers 410 Gone instead of 404",
        "Costs a row in the catalog for each removed upload.",
        values.duration,
    ),
    Option(
        "network-timeout",
        "TIME",
        "60",
        "silence after which a connection is closed; received bytes are kept",
        "Too short breaks clients on bad radio links, who then resume; too long keeps dead connections.",
        values.positive_duration,
    ),
    Option(
        "min-rate",
        "SIZE",
        "100",
        "bytes a second below which a request that drips is closed; 0 for off",
        "Received bytes are kept. Time in which the server itself has paused the client does not count.",
        values.size,
    ),
    Option(
        "shutdown-timeout",
        "TIME",
        "10",
        "time that requests under way get to be committed and answered at a stop",
        "Give the service manager a longer one (`TimeoutStopSec`, `terminationGracePeriodSeconds`).",
        values.duration,
    ),
    Option(
        "reserve",
        "SIZE",
        "64M",
        "free disk space below which new bytes are refused with 507",
        "Leaves room for the catalog and for whatever else lives on the disk. 0 fills the disk to the last block.",
        values.size,
    ),
    Option(
        "cors-origin",
        "ORIGIN",
        "*",
        "web origin that may upload from a browser, * for all, none for no CORS headers; repeatable",
        "Several are separated by commas: `https://example.org,https://www.example.org`.",
        values.origins,
        separator=",",
    ),
    Option(
        "writers",
        "NUMBER",
        "4",
        "threads that write long bodies to disk",
        "One for each disk is enough on a fast one; more help where writes wait long. 64 at most.",
        values.integer(1, 64, "a number of threads"),
    ),
    Option(
        "disable-download",
        "",
        "",
        "answer no GET for uploads",
        "Otherwise whoever knows a finished upload's URL can read it.",
        values.switch,
    ),
)
BY_FLAG: Mapping[str, Option] = {option.flag: option for option in OPTIONS}


def help_line(option: Option) -> str:
    """What ``--help`` says of it."""
    default = f" [{option.default}]" if option.default else ""
    return f"{option.help}{default} ({option.variable})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(option: Option) -> str:
    return "off" if option.is_switch else f"`{option.default}`" if option.default else "not set"


def short_table() -> str:
    """Markdown for the README: flag, default, meaning."""
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    rows += [f"| `--{o.flag}` | {_default(o)} | {_cell(o.help)} |" for o in OPTIONS]
    return "\n".join(rows)


def full_table() -> str:
    """Markdown for docs/configuration.md: one row for each option with all that is known of it."""
    rows = ["| flag | variable | default | meaning |", "|---|---|---|---|"]
    for o in OPTIONS:
        flag = f"--{o.flag} {o.metavar}".rstrip()
        rows.append(f"| `{flag}` | `{o.variable}` | {_default(o)} | {_cell(o.help)}. {_cell(o.advice)} |")
    return "\n".join(rows)


def rewrite(document: str) -> str:
    """The document with each table between ``<!-- options: short|full -->`` and ``<!-- /options -->`` made anew."""
    tables = {"short": short_table, "full": full_table}
    return re.sub(
        r"(<!-- options: (short|full) -->\n).*?(<!-- /options -->)",
        lambda match: f"{match[1]}\n{tables[match[2]]()}\n\n{match[3]}",
        document,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(rewrite(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
