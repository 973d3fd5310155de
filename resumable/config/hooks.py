"""Options of hooks: their targets, their messages, and how events are retried."""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

EVENTS = ("created", "progress", "finished", "placed", "stored", "failed", "terminated", "expired")
QUESTIONS = ("before-create", "before-append", "before-finish", "before-terminate")

HOOKS: tuple[Option, ...] = (
    Option(
        "hook",
        "[NAME=]TARGET",
        "",
        "hook that receives events about uploads; repeatable",
        "`https://host/path`, `tusd+https://host/path`, `exec:COMMAND` or `python:NAME`; in the variable one per line."
        " The server stores waiting events under that name: if you change it, they are dropped. See"
        " [hooks.md](hooks.md).",
        tuple,
        separator="\n",
        secret=True,
    ),
    Option(
        "guard",
        "[NAME=]TARGET",
        "",
        "hook that is asked before the server accepts a change; repeatable",
        "As `--hook`. Guards are asked one after another. A guard that fails allows nothing: clients get 503.",
        tuple,
        separator="\n",
        secret=True,
    ),
    Option(
        "hook-events",
        "NAMES",
        "created,finished,placed,stored,failed,terminated,expired",
        "events that hooks receive",
        "You can add `progress`, which is best effort. Events that aren't named are dropped.",
        values.choices(*EVENTS),
        separator=",",
    ),
    Option(
        "guard-questions",
        "NAMES",
        ",".join(QUESTIONS),
        "questions that guards are asked",
        "Each question adds a round trip to its request. With `before-finish`, the last byte of an upload counts only"
        " when the guards have allowed it.",
        values.choices(*QUESTIONS),
        separator=",",
    ),
    Option(
        "hook-secret",
        "SECRET",
        "",
        "secret that signs requests to hooks, the newest first; repeatable",
        "`whsec_` and the base64 of 24 to 64 bytes. Without a secret, requests aren't signed. Other users of the"
        " machine can see flags, so use the variable or `--hook-secret-file`.",
        tuple,
        separator=",",
        secret=True,
    ),
    Option(
        "hook-secret-file",
        "PATH",
        "",
        "file with these secrets, one per line",
        "Read at the start.",
        values.file,
    ),
    Option(
        "hook-forward-headers",
        "NAMES",
        "",
        "headers of clients that hooks receive, such as Cookie or Authorization",
        "The server stores them with the event until it has arrived.",
        values.field_names,
        separator=",",
    ),
    Option(
        "hook-timeout",
        "TIME",
        "5s",
        "time for one request to a hook",
        "A request that takes longer is repeated.",
        values.positive_duration,
    ),
    Option(
        "hook-command-timeout",
        "TIME",
        "10s",
        "time after which a command is killed",
        "For events and questions.",
        values.positive_duration,
    ),
    Option(
        "guard-timeout",
        "TIME",
        "10s",
        "time for one guard to answer, including repeated requests",
        "Clients wait at most this time for each guard, then get 503.",
        values.positive_duration,
    ),
    Option(
        "hook-ca",
        "PATH",
        "",
        "PEM file with the authorities for the certificates of hooks",
        "Unset: the system's.",
        values.file,
    ),
    Option(
        "hook-cert",
        "PATH",
        "",
        "PEM file with the client certificate for hooks that ask for one",
        "It contains the key too, unless you set `--hook-key`.",
        values.file,
    ),
    Option("hook-key", "PATH", "", "PEM file with that certificate's key", "Unencrypted.", values.file),
    Option(
        "hook-concurrency",
        "NUMBER",
        "8",
        "events that are sent to one hook at the same time",
        "Events of one upload always go one after another. Failed events get at most half of the places, events of"
        " one client three quarters. 256 at most.",
        values.integer(1, 256, "a number of events"),
    ),
    Option(
        "hook-commands",
        "NUMBER",
        "4",
        "processes of one command at the same time",
        "For events, and as many for questions and for progress each. Others wait. 64 at most.",
        values.integer(1, 64, "a number of commands"),
    ),
    Option(
        "hook-rate",
        "NUMBER",
        "100",
        "most events that are sent to one hook per second",
        "A higher rate clears a backlog faster, but slows uploads down: each event costs about as much as a small"
        " upload.",
        values.integer(1, 100_000, "a number of events"),
    ),
    Option(
        "hook-give-up-after",
        "TIME",
        "3d",
        "age at which a failing event is given up",
        "It is then dead: later events no longer wait for it, and you can replay it.",
        values.positive_duration,
    ),
    Option(
        "hook-progress-interval",
        "TIME",
        "1s",
        "time between two progress events of one upload",
        "While bytes arrive, however slowly.",
        values.positive_duration,
    ),
    Option(
        "hook-tusd-finished",
        "finished|stored",
        "finished",
        "when a hook written for tusd gets post-finish",
        "`stored`: when every required remote has the upload; `finished`: when the local disk, or the `--spool`, has"
        " it.",
        values.choice("finished", "stored"),
    ),
)
