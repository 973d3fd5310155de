"""Options of what an operator sees: figures, the log, and whether the daemon is ready.

Changes when one of these comes, goes or gets another default.
"""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

SIGHT: tuple[Option, ...] = (
    Option(
        "admin-listen",
        "ENDPOINT|socket|none",
        "socket",
        "where operators find figures and the admin API; repeatable",
        "A Twisted server endpoint, for example `unix:/run/resumable/admin.sock:mode=660` or"
        " `tcp:9090:interface=127.0.0.1`. `socket`: `.resumable/admin.sock` in the upload directory, for nobody but the"
        " daemon's own user, as is any other Unix socket whose `mode=` isn't given; there is none if its path is too"
        " long. On a TCP port anybody sees the figures, the rest is for those with `--admin-token-file`'s token."
        " Endpoints in the variable are separated by blanks.",
        values.admin_endpoints,
        separator=" ",
    ),
    Option(
        "admin-token-file",
        "FILE",
        "",
        "file with the token that opens the admin API elsewhere than on Unix sockets",
        "Sent as `Authorization: Bearer TOKEN`; at least 16 bytes, read at the start. Without it a TCP listener of"
        " operators has figures, `/healthz` and `/readyz` only. Unix sockets ask for no token.",
        values.file,
    ),
    Option(
        "admin-on-public",
        "",
        "",
        "the admin API under `/admin/` on the ports for uploads as well, for admins",
        "With figures. The rules of access tell who is an admin: `--admin`, or `--auth-jwt-admin-scope`. A port of its"
        " own keeps operators apart from clients, and works while those take all connections.",
        values.switch,
    ),
    Option(
        "ready-remotes",
        "none|required|all",
        "none",
        "remotes that have to be up for `/readyz` to say so",
        "`none`: uploads are taken while remotes are down, which is what the local disk is for. With the others a load"
        " balancer sends clients elsewhere; if all nodes share the store, nowhere.",
        values.choice("none", "required", "all"),
    ),
    Option(
        "log-format",
        "text|json",
        "text",
        "lines for people, or one JSON object for each event",
        "Goes where twistd's log goes (standard output, `--logfile`). Not with twistd's `--logger` and `--syslog`.",
        values.choice("text", "json"),
    ),
    Option(
        "log-level",
        "debug|info|warn|error",
        "info",
        "what is logged: this and what is worse",
        "`debug` tells of each attempt at a remote; `warn` says nothing while all is well. What is wrong counts in the"
        " figures at any level.",
        values.choice("debug", "info", "warn", "error"),
    ),
    Option(
        "access-log",
        "off|debug|info",
        "off",
        "log a line for each request, at this level",
        "With its method, path, status, bytes, time, X-Request-ID and client; of a query only the names. Costs a sixth"
        " of a small request's time.",
        values.choice("off", "debug", "info"),
    ),
)
