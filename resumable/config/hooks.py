"""Options of hooks: which there are, what they get, and how events are retried."""

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
        "who is told what happens to uploads; repeatable",
        "`https://host/path`, `tusd+https://host/path`, `exec:COMMAND` or `python:NAME`; in the variable one on each"
        " line. The name is that under which events are kept until they have arrived: change it, and those that wait"
        " are dropped. See [hooks.md](hooks.md).",
        tuple,
        separator="\n",
        secret=True,
    ),
    Option(
        "guard",
        "[NAME=]TARGET",
        "",
        "who is asked before something is done, one after another; repeatable",
        "As `--hook`. A guard that can't be asked opens nothing: clients get 503.",
        tuple,
        separator="\n",
        secret=True,
    ),
    Option(
        "hook-events",
        "NAMES",
        "created,finished,placed,stored,failed,terminated,expired",
        "what hooks are told",
        "`progress` can be added, and is best effort. What isn't named is dropped.",
        values.choices(*EVENTS),
        separator=",",
    ),
    Option(
        "guard-questions",
        "NAMES",
        ",".join(QUESTIONS),
        "what guards are asked",
        "Each question costs its request a round trip. With `before-finish` among them, the last byte of an upload"
        " counts once the guards have agreed.",
        values.choices(*QUESTIONS),
        separator=",",
    ),
    Option(
        "hook-secret",
        "SECRET",
        "",
        "what requests to hooks are signed with, the newest first; repeatable",
        "`whsec_` and the base64 of 24 to 64 bytes. Without any, nothing is signed. Others on this machine can see"
        " flags: better take the variable or `--hook-secret-file`.",
        tuple,
        separator=",",
        secret=True,
    ),
    Option(
        "hook-secret-file",
        "PATH",
        "",
        "file with such secrets, one on each line",
        "Read at the start.",
        values.file,
    ),
    Option(
        "hook-forward-headers",
        "NAMES",
        "",
        "headers of clients that hooks are shown, such as Cookie or Authorization",
        "They are kept with the event until it has arrived.",
        values.field_names,
        separator=",",
    ),
    Option(
        "hook-timeout",
        "TIME",
        "5s",
        "time for one request to a hook",
        "What took longer is repeated.",
        values.positive_duration,
    ),
    Option(
        "hook-command-timeout",
        "TIME",
        "10s",
        "time after which a command is killed",
        "Events and questions alike.",
        values.positive_duration,
    ),
    Option(
        "guard-timeout",
        "TIME",
        "10s",
        "time for one guard to answer, with all its repetitions",
        "Clients wait that long at the most for each guard, then get 503.",
        values.positive_duration,
    ),
    Option(
        "hook-ca",
        "PATH",
        "",
        "PEM file with the authorities whose certificates hooks may show",
        "Unset: the system's.",
        values.file,
    ),
    Option(
        "hook-cert",
        "PATH",
        "",
        "PEM file with a certificate that is shown to hooks that ask for one",
        "With its key, if there is no `--hook-key`.",
        values.file,
    ),
    Option("hook-key", "PATH", "", "PEM file with that certificate's key", "Unencrypted.", values.file),
    Option(
        "hook-concurrency",
        "NUMBER",
        "8",
        "events under way to one hook at once",
        "Those of one upload go one after another, whatever it is. Those that failed get half of it, those of "
        "one client three quarters. 256 at most.",
        values.integer(1, 256, "a number of events"),
    ),
    Option(
        "hook-commands",
        "NUMBER",
        "4",
        "how many of one command run at once",
        "For events, and as many for questions and for progress. Each is a process; the others wait. 64 at most.",
        values.integer(1, 64, "a number of commands"),
    ),
    Option(
        "hook-rate",
        "NUMBER",
        "100",
        "events that go to one hook in a second, at most",
        "More empties a backlog faster, and takes more time from uploads: each costs about as much as a small upload.",
        values.integer(1, 100_000, "a number of events"),
    ),
    Option(
        "hook-give-up-after",
        "TIME",
        "3d",
        "age at which an event that fails is dead",
        "It is kept, no longer in the way of others, and can be replayed.",
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
        "when a hook made for tusd gets post-finish",
        "`stored`: when every required remote has the upload.",
        values.choice("finished", "stored"),
    ),
)
