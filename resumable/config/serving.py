"""Options of the server itself: where it listens, what it takes, where it keeps it.

Changes when one of these comes, goes or gets another default.
"""

from __future__ import annotations

from resumable.config.option import Option
from resumable.http import cors
from resumable.model import values

SERVING: tuple[Option, ...] = (
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
        " `ssl:8443:privateKey=key.pem:certKey=chain.pem` or `systemd:domain=INET:index=0`; `haproxy:` before one of"
        " these takes the PROXY protocol from `--behind-proxy`. Endpoints in the variable are separated by blanks.",
        values.endpoints,
        separator=" ",
    ),
    Option(
        "tls-cert",
        "FILE",
        "",
        "certificate (PEM, with its chain) with which `--port` speaks TLS",
        "Renewed files are taken within a minute, or at SIGHUP. Certificates of other endpoints are named in"
        " `--listen ssl:...`.",
        values.file,
    ),
    Option(
        "tls-key",
        "FILE",
        "",
        "its private key (PEM), if that is in a file of its own",
        "Without passphrase.",
        values.file,
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
        "file-mode",
        "MODE",
        "600",
        "permissions of data files, in octal",
        "Files are for the server's own user, whatever the umask is. `640` lets its group read them, if the directories"
        " do. Files that are there stay as they are. See [deployment.md](deployment.md#who-can-read-the-files).",
        values.permissions(0o600, 0o666, "permissions like 640, with all rights for the server's user but to execute"),
    ),
    Option(
        "dir-mode",
        "MODE",
        "700",
        "permissions of the upload directory, if the server makes it, in octal",
        "And of others that it makes, but for its own `.resumable`, which is for nobody else. `710` lets the group get"
        " to what is below. A directory that is there stays as it is.",
        values.permissions(0o700, 0o7777, "permissions like 750, with all rights for the server's user"),
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
        "keep-partials",
        "TIME",
        "1h",
        "time for which partial uploads are kept after the last final upload made of them is finished",
        "Until then each byte is on the disk twice, where the file system shares no blocks, and another final upload"
        " may name them; later that is refused. 0 removes them at once.",
        values.duration,
    ),
    Option(
        "final-timeout",
        "TIME",
        "30s",
        "how long at most the request that joins partial uploads waits for the final one",
        "The server goes on with it after that. The answer is then 201 without `Upload-Offset` or, where hooks or"
        " `--ack remote` may still say no, 503: the same request again waits for the same upload. Proxies and clients"
        " have to wait longer than that.",
        values.positive_duration,
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
        "silence after which a connection is closed, as is one that takes none of its answers; received bytes are kept",
        "Too short breaks clients on bad radio links, who then resume; too long keeps dead connections.",
        values.positive_duration,
    ),
    Option(
        "min-rate",
        "SIZE",
        "100",
        "least bytes a second; a client that sends or reads slower is cut off; 0 for off",
        "It is an average over `--network-timeout`. What has been received is kept. Time in which the server itself has"
        " paused the client does not count.",
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
        "Several are separated by commas: `https://example.org,https://*.example.org`. In a pattern `*` is one or more"
        " parts of a name, or any port: `http://localhost:*`. See [browsers.md](browsers.md).",
        cors.parse_origins,
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
    Option(
        "download-from-remote",
        "proxy|redirect|off",
        "proxy",
        "how uploads are downloaded whose local copy is gone",
        "`proxy`: through this server. `redirect`: from the store itself, by a URL that is good for a while; clients"
        " must reach the store, and whoever is shown the URL can read the file; where no URL can be signed, as `proxy`."
        " `off`: 404. See [downloads.md](downloads.md).",
        values.choice("proxy", "redirect", "off"),
    ),
    Option(
        "download-url-expires",
        "TIME",
        "5m",
        "with `--download-from-remote redirect`: time for which the store's URL is good",
        "It counts to the beginning of the download. Too short, and a client whose clock or line is slow is refused, as"
        " is one that goes on later; too long, and a URL that leaks can be used by others. From 1s to 7d.",
        values.duration_between("1s", "7d"),
    ),
)
