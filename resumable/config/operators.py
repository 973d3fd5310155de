"""Options for operators: the admin listener, metrics, readiness and the log."""

from __future__ import annotations

from resumable.config.option import Option
from resumable.model import values

OPERATORS: tuple[Option, ...] = (
    Option(
        "admin-listen",
        "ENDPOINT|socket|none",
        "socket",
        "where the metrics and the admin API listen; repeatable",
        "A Twisted server endpoint, for example `unix:/run/resumable/admin.sock:mode=660` or"
        " `tcp:9090:interface=127.0.0.1`. `socket`: `.resumable/admin.sock` in the upload directory, or with PostgreSQL"
        " `admin.sock` in the run directory; only the daemon's own user can connect, as to any Unix socket without a"
        " `mode=`. If the path is too long for a socket, there"
        " is none. On a TCP port everybody can read the metrics; the API needs the token of `--admin-token-file`."
        " Separate endpoints in the variable by blanks.",
        values.admin_endpoints,
        separator=" ",
    ),
    Option(
        "admin-token-file",
        "FILE",
        "",
        "file with the token for the admin API on TCP ports",
        "Clients send it as `Authorization: Bearer TOKEN`. It has at least 16 bytes and is read at the start. Without"
        " it a TCP port serves only the metrics, `/healthz` and `/readyz`. Unix sockets need no token.",
        values.file,
    ),
    Option(
        "admin-on-public",
        "",
        "",
        "serve the admin API under `/admin/` on the upload ports too, for admins",
        "It includes the metrics. Access rules say who is an admin: `--admin`, or `--auth-jwt-admin-scope`. A separate"
        " port keeps operators apart from clients, and works while clients use all connections.",
        values.switch,
    ),
    Option(
        "ready-remotes",
        "none|required|all",
        "none",
        "remotes that must be up for `/readyz` to answer 200",
        "`none`: the server accepts uploads while remotes are down, thanks to its disk or `--spool`. With the others"
        " a load balancer sends clients to other servers; if all servers use the same store, to none.",
        values.choice("none", "required", "all"),
    ),
    Option(
        "log-format",
        "text|json",
        "text",
        "lines for people, or one JSON object for each event",
        "It goes where twistd's log goes (standard output, `--logfile`). It has no effect with twistd's `--logger` and"
        " `--syslog`.",
        values.choice("text", "json"),
    ),
    Option(
        "log-level",
        "debug|info|warn|error",
        "info",
        "lowest level that is logged",
        "`debug` logs each request to a remote; `warn` logs only problems. The metrics count problems at any level.",
        values.choice("debug", "info", "warn", "error"),
    ),
    Option(
        "access-log",
        "off|debug|info",
        "off",
        "log a line for each request, at this level",
        "The line has client, method, path, status, bytes, time, X-Request-ID and protocol; of a query only the names."
        " It costs a sixth of a small request's time.",
        values.choice("off", "debug", "info"),
    ),
)
