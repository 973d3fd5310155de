"""Options for what finished files are called on this machine, and where they go.

Changes when one of these comes, goes or gets another default.
"""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

PLACING: tuple[Option, ...] = (
    Option(
        "place",
        "TEMPLATE",
        "",
        "path that each finished file gets below `--place-dir`",
        "Made of text, `{id}`, `{date}`, `{year}`, `{month}`, `{day}`, `{owner}` and `{metadata[NAME]}`:"
        " `{date}/{metadata[filename]}`. Unset, files stay in the upload directory under their ids. See"
        " [placing.md](placing.md).",
        values.text,
    ),
    Option(
        "place-dir",
        "PATH",
        "",
        "directory below which `--place` puts files",
        "Unset, `finished` in the upload directory. On the same file system as that one: files are not copied. Keep it"
        " when you give up `--place`, or what was placed can't be downloaded any more.",
        values.directory,
    ),
    Option(
        "place-collision",
        "number|refuse|replace",
        "number",
        "what happens when a file's place is taken",
        "`number` calls it `name (2).ext`; `refuse` leaves it under its id until the place is free; `replace` takes the"
        " place, and what was there is gone for good.",
        values.choice("number", "refuse", "replace"),
    ),
    Option(
        "place-file-mode",
        "MODE",
        "",
        "permissions of placed files, in octal",
        "For example `640`. Unset, as `--file-mode`. The server must be able to read them.",
        values.permissions(0o400, 0o666, "permissions like 640, readable by the server's user, executable by nobody"),
    ),
    Option(
        "place-dir-mode",
        "MODE",
        "",
        "permissions of the directories that are made for them, `--place-dir` among them, in octal",
        "For example `2750`. Unset, as `--dir-mode`. A directory that is there stays as it is.",
        values.permissions(0o700, 0o7777, "permissions like 750, with all rights for the server's user"),
    ),
    Option(
        "sidecar",
        "",
        "",
        "write what is known of a placed file to NAME.info.json beside it",
        "It is there before the file is.",
        values.switch,
    ),
)
