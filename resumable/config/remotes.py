"""Options of the remote tier: which remotes there are, what waits for them, how hard they are worked.

Changes when one of these comes, goes or gets another default.
"""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

REMOTES: tuple[Option, ...] = (
    Option(
        "remote",
        "URL",
        "",
        "where each upload is copied to while it arrives; repeatable",
        "For example `s3://bucket/prefix?region=eu-central-1` or `file:///mnt/nas?required=no`; URLs in the variable"
        " are separated by blanks. `AWS_S3_BUCKET` adds `s3://$AWS_S3_BUCKET` unless a bucket of that name is among"
        " them. All of what a URL can say is in [remotes.md](remotes.md).",
        tuple,
        separator=" ",
        secret=True,
    ),
    Option(
        "part-size",
        "SIZE",
        "8M",
        "size of the parts in which uploads go to remotes",
        "Grown where the store's number of parts would not suffice. Smaller: more requests; larger: more is sent again"
        " after a failure, and the remote is further behind the client. From 5M to 5G.",
        values.size_between("5M", "5G"),
    ),
    Option(
        "overwrite",
        "refuse|replace",
        "refuse",
        "what to do when a remote has another object under the key",
        "`refuse` parks the replica with the reason; `replace` replaces what is there for good. With the default key,"
        " which is the upload's id, neither happens.",
        values.choice("refuse", "replace"),
    ),
    Option(
        "ack",
        "spool|remote",
        "spool",
        "who must have an upload before its last request is answered",
        "`spool`: this machine's disk. `remote`: every required remote too, which costs its time for each upload and"
        " needs it up.",
        values.choice("spool", "remote"),
    ),
    Option(
        "ack-timeout",
        "TIME",
        "60s",
        "with `--ack remote`: time after which the last request is answered 503, to be sent again",
        "Proxies and clients have to wait longer than that. Too short, and large uploads are answered 503 several times"
        " while the remote still finishes them.",
        values.positive_duration,
    ),
    Option(
        "local",
        "keep|drop|reclaim",
        "keep",
        "what becomes of the local copy once all remotes have it",
        "`drop` removes it, `reclaim` keeps it until its space is needed or `--reclaim-after` has passed. Both need a"
        " required remote. Downloads of what is gone here: `--download-from-remote`.",
        values.choice("keep", "drop", "reclaim"),
    ),
    Option(
        "reclaim-after",
        "TIME",
        "never",
        "with `--local reclaim`: age after which a local copy goes, also when there is space",
        "Counts from when the last remote had it. Short frees space early; never lets the disk fill up to `--reserve`.",
        values.optional_duration,
    ),
    Option(
        "max-lag",
        "SIZE",
        "0",
        "how far a required remote may fall behind before clients are slowed down; 0 for as far as the disk goes",
        "A pause of more than 30 s becomes a 503 with Retry-After. Too small, and one slow part pauses everybody; keep"
        " it at several times `--part-size` times `--parts`.",
        values.optional_size,
    ),
    Option(
        "max-lag-age",
        "TIME",
        "0",
        "how long a finished upload may wait for a required remote before clients are slowed down; 0 for ever",
        "As `--max-lag`. Too short, and each hiccup of the store is one for the clients.",
        values.optional_duration,
    ),
    Option(
        "terminate-remote",
        "delete|keep",
        "delete",
        "whether an upload that a client deletes is deleted from the remotes too",
        "Unfinished ones are always removed.",
        values.choice("delete", "keep"),
    ),
    Option(
        "remote-attempts",
        "NUMBER",
        "0",
        "failed tries in a row after which a replica is parked; 0 for no limit",
        "What can't work, such as a foreign object under the key, is parked at once. A parked replica waits for"
        " somebody to start it again; with too few tries an outage parks everything.",
        values.optional_integer(0, 1_000_000, "a number of tries"),
    ),
    Option(
        "give-up-after",
        "TIME",
        "never",
        "time of failing after which a replica is parked",
        "As `--remote-attempts`; make it longer than the longest outage that should pass by itself.",
        values.optional_duration,
    ),
    Option(
        "retry-delay",
        "TIME",
        "1s",
        "pause before the first retry, at most; doubled for each one after it",
        "The pause is a random one up to that. Too short burdens a store that struggles.",
        values.positive_duration,
    ),
    Option(
        "retry-delay-max",
        "TIME",
        "60s",
        "longest pause between two tries",
        "Too long, and a store that is back stands idle; what it asks for itself (Retry-After) is always waited for.",
        values.positive_duration,
    ),
    Option(
        "parts-per-upload",
        "NUMBER",
        "4",
        "parts of one upload that are under way to one remote at once",
        "More helps one large upload on a fast line with long delays. 64 at most.",
        values.integer(1, 64, "a number of parts"),
    ),
    Option(
        "parts-per-remote",
        "NUMBER",
        "16",
        "parts that are under way to one remote at once, each a connection",
        "Too many, and the store throttles; too few, and small uploads queue. 256 at most.",
        values.integer(1, 256, "a number of parts"),
    ),
    Option(
        "parts",
        "NUMBER",
        "32",
        "parts that are under way to all remotes at once",
        "Each holds 256 KiB of memory for a moment. 1024 at most.",
        values.integer(1, 1024, "a number of parts"),
    ),
    Option(
        "remote-timeout",
        "TIME",
        "60s",
        "silence after which a request to a remote is given up and tried again",
        "Too short gives up on a store that is only slow; too long holds a place for a dead connection.",
        values.positive_duration,
    ),
    Option(
        "sweep",
        "on|dry-run|off",
        "on",
        "remove what crashes left unfinished in the remotes, older than a day",
        "Only what is under keys of our own uploads is removed, the rest is reported; `dry-run` removes nothing.",
        values.choice("on", "dry-run", "off"),
    ),
    Option(
        "check",
        "",
        "",
        "try credentials, bucket and rights of every remote, tell what to change, and end",
        "Ends with status 0 if all of them would work. Without it the server starts, reports what is wrong and"
        " retries.",
        values.switch,
    ),
    Option(
        "status-path",
        "NAME",
        "status",
        "name under an upload's URL where its progress can be read as JSON; none for nowhere",
        "Whoever knows the URL of an upload can read it. Names of remotes, keys and errors are for admins only.",
        values.optional_segment,
    ),
)
