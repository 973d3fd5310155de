"""Options for the names and places of finished files on this machine."""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

PLACING: tuple[Option, ...] = (
    Option(
        "place",
        "TEMPLATE",
        "",
        "path of each finished file below `--place-dir`",
        "A template of text, `{id}`, `{date}`, `{year}`, `{month}`, `{day}`, `{owner}` and `{metadata[NAME]}`:"
        " `{date}/{metadata[filename]}`. Unset, files stay in the upload directory, named by their ids. See"
        " [placing.md](placing.md).",
        values.text,
    ),
    Option(
        "place-dir",
        "PATH",
        "",
        "directory below which `--place` puts files",
        "Unset, `finished` in the upload directory. It must be on the same file system, because files are not copied."
        " Keep this flag when you stop using `--place`; otherwise placed files can't be downloaded.",
        values.directory,
    ),
    Option(
        "place-collision",
        "number|refuse|replace",
        "number",
        "what to do when another file has that path",
        "`number` names it `name (2).ext`; `refuse` keeps the id as its name until the path is free; `replace` replaces"
        " the other file for good.",
        values.choice("number", "refuse", "replace"),
    ),
    Option(
        "place-file-mode",
        "MODE",
        "",
        "permissions of placed files, in octal",
        "For example `640`. Unset, `--file-mode`. The server must be able to read them.",
        values.permissions(0o400, 0o666, "permissions like 640, readable by the server's user, executable by nobody"),
    ),
    Option(
        "place-dir-mode",
        "MODE",
        "",
        "permissions of directories that are created for them, including `--place-dir`, in octal",
        "For example `2750`. Unset, `--dir-mode`. Existing directories keep their permissions.",
        values.permissions(0o700, 0o7777, "permissions like 750, with all rights for the server's user"),
    ),
    Option(
        "sidecar",
        "",
        "",
        "write NAME.info.json with the metadata beside each placed file",
        "It appears before the file does.",
        values.switch,
    ),
)
