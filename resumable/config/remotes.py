"""Options of remotes: their URLs, the requests that wait for them, their retries and limits."""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

REMOTES: tuple[Option, ...] = (
    Option(
        "remote",
        "URL",
        "",
        "store to which each upload is copied while it arrives; repeatable",
        "For example `s3://bucket/prefix?region=eu-central-1` or `file:///mnt/nas?required=no`. Separate URLs"
        " in the variable by blanks. `AWS_S3_BUCKET` adds `s3://$AWS_S3_BUCKET`, unless one of the URLs already names"
        " that bucket. [remotes.md](remotes.md) has all options of a URL.",
        tuple,
        separator=" ",
        secret=True,
    ),
    Option(
        "part-size",
        "SIZE",
        "8M",
        "size of the parts that are sent to remotes",
        "Larger uploads get larger parts, if the store limits their number. Smaller parts mean more requests. After a"
        " failure a larger part is sent again, and the remote is further behind the client. From 5M to 5G.",
        values.size_between("5M", "5G"),
    ),
    Option(
        "overwrite",
        "refuse|replace",
        "refuse",
        "what to do when a remote has another object under the key",
        "`refuse` parks the replica with the reason; `replace` replaces the other object for good. With the default"
        " key, the upload's id, neither happens.",
        values.choice("refuse", "replace"),
    ),
    Option(
        "ack",
        "spool|remote",
        "spool",
        "where an upload must be before its last request is answered",
        "`spool`: on this machine's disk, or in the `--spool`. `remote`: in every required remote too. Then each"
        " upload waits for the remotes, and none is finished while one of them is down.",
        values.choice("spool", "remote"),
    ),
    Option(
        "ack-timeout",
        "TIME",
        "60s",
        "with `--ack remote`: time after which the last request is answered 503; the client sends it again",
        "The time-outs of proxies and clients must be longer. If it is too short, large uploads are answered 503"
        " several times while the remote finishes them.",
        values.positive_duration,
    ),
    Option(
        "local",
        "keep|drop|reclaim",
        "keep",
        "what happens to the local copy when all remotes have it",
        "`drop` removes it. `reclaim` keeps it until its space is needed or `--reclaim-after` has passed. Both need a"
        " required remote. For downloads after that see `--download-from-remote`.",
        values.choice("keep", "drop", "reclaim"),
    ),
    Option(
        "reclaim-after",
        "TIME",
        "never",
        "with `--local reclaim`: age at which a local copy is removed even if there is space",
        "The age counts from the time at which the last remote had it. A short time frees space early; with `never` the"
        " disk fills up to `--reserve`.",
        values.optional_duration,
    ),
    Option(
        "max-lag",
        "SIZE",
        "0",
        "bytes that a required remote may lack before clients are slowed down; 0: only the disk limits them",
        "A pause of more than 30 s becomes a 503 with Retry-After. If it is too small, one slow part pauses everybody;"
        " make it several times `--part-size` times `--parts`.",
        values.optional_size,
    ),
    Option(
        "max-lag-age",
        "TIME",
        "0",
        "time that a finished upload may wait for a required remote before clients are slowed down; 0 for no limit",
        "As `--max-lag`. If it is too short, clients feel each short failure of the store.",
        values.optional_duration,
    ),
    Option(
        "terminate-remote",
        "delete|keep",
        "delete",
        "whether DELETE of an upload also deletes its objects in the remotes",
        "Unfinished objects are always removed.",
        values.choice("delete", "keep"),
    ),
    Option(
        "remote-attempts",
        "NUMBER",
        "0",
        "failed attempts in a row after which a replica is parked; 0 for no limit",
        "A replica that can't succeed, because another object has its key, say, is parked at once. A parked replica"
        " waits for `resumable retry`. With too few attempts an outage parks everything.",
        values.optional_integer(0, 1_000_000, "a number of attempts"),
    ),
    Option(
        "give-up-after",
        "TIME",
        "never",
        "how long a replica may fail before it is parked",
        "As `--remote-attempts`. Make it longer than the longest outage that should end without you.",
        values.optional_duration,
    ),
    Option(
        "retry-delay",
        "TIME",
        "1s",
        "longest pause before the first retry; it doubles for each further one",
        "The pause is random, up to this time. If it is too short, retries burden a struggling store.",
        values.positive_duration,
    ),
    Option(
        "retry-delay-max",
        "TIME",
        "60s",
        "longest pause between two attempts",
        "If it is too long, a store that works again stays idle. The server always waits for the store's own"
        " Retry-After.",
        values.positive_duration,
    ),
    Option(
        "parts-per-upload",
        "NUMBER",
        "4",
        "parts of one upload that are sent to one remote at the same time",
        "More help one large upload on a fast line with a long round trip. At most 64.",
        values.integer(1, 64, "a number of parts"),
    ),
    Option(
        "parts-per-remote",
        "NUMBER",
        "16",
        "parts that are sent to one remote at the same time, each on its own connection",
        "With too many the store throttles; with too few small uploads queue. At most 256.",
        values.integer(1, 256, "a number of parts"),
    ),
    Option(
        "parts",
        "NUMBER",
        "32",
        "parts that are sent to all remotes at the same time",
        "Each holds 256 KiB of memory for a moment. At most 1024.",
        values.integer(1, 1024, "a number of parts"),
    ),
    Option(
        "remote-timeout",
        "TIME",
        "60s",
        "silence after which a request to a remote is cancelled and retried",
        "If it is too short, requests to a slow store are cancelled; if it is too long, a dead connection blocks a"
        " place.",
        values.positive_duration,
    ),
    Option(
        "sweep",
        "on|dry-run|off",
        "on",
        "remove unfinished objects that crashes left in the remotes, when they are older than a day",
        "It removes only objects under keys of its own uploads, and reports the others. `dry-run` removes nothing.",
        values.choice("on", "dry-run", "off"),
    ),
    Option(
        "check",
        "",
        "",
        "test credentials, bucket and rights of every remote, print what to change, and exit",
        "The exit status is 0 if all of them work. Without `--check` the server starts, logs the problem and retries.",
        values.switch,
    ),
    Option(
        "status-path",
        "NAME",
        "status",
        "name under an upload's URL at which its progress is shown as JSON; none for no such URL",
        "Everybody who knows the URL of an upload can read it. Only admins see names of remotes, keys and errors.",
        values.optional_segment,
    ),
)
