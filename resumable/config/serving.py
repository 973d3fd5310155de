"""Options of the server itself: its ports, its directory, its limits, its downloads, the places of finished files."""

from __future__ import annotations

from resumable.config.option import Option
from resumable.http import cors
from resumable.model import values

SERVING: tuple[Option, ...] = (
    Option(
        "port",
        "PORT",
        "8080",
        "TCP port to listen on, at the address of `--host`",
        "0 chooses a free port and logs it. With `--listen` and without `--port`, the default port is not opened.",
        values.integer(0, 65535, "a port number"),
    ),
    Option(
        "host",
        "ADDRESS",
        "",
        "IP address on which `--port` listens",
        "Unset, every IPv4 interface, as with `0.0.0.0`. `127.0.0.1`, `::1` or `localhost`: only this machine can"
        " connect. `::`: every interface, IPv6 and IPv4. For other endpoints name the address in `--listen`.",
        values.host,
    ),
    Option(
        "listen",
        "ENDPOINT",
        "",
        "Twisted server endpoint to listen on; repeatable",
        "For example `tcp:8080:interface=127.0.0.1`, `tcp6:8080`, `unix:/run/resumable/http.sock:mode=660`,"
        " `ssl:8443:privateKey=key.pem:certKey=chain.pem` or `systemd:domain=INET:index=0`; `haproxy:` before one of"
        " these accepts the PROXY protocol from `--behind-proxy`. Separate endpoints in the variable by blanks.",
        values.endpoints,
        separator=" ",
    ),
    Option(
        "tls-cert",
        "FILE",
        "",
        "certificate (PEM, with its chain): `--port` then uses TLS",
        "Renewed files are loaded within a minute, or at SIGHUP. For other endpoints name the certificate in"
        " `--listen ssl:...`.",
        values.file,
    ),
    Option(
        "tls-key",
        "FILE",
        "",
        "private key (PEM) of that certificate, if it is in its own file",
        "It has no passphrase.",
        values.file,
    ),
    Option(
        "upload-dir",
        "PATH",
        "uploads",
        "directory for uploads and their catalog",
        "It must be on a local file system; network file systems are refused. Only one server at a time can use it."
        " With `--catalog postgresql://...` all servers use the same one, which may be on NFS; with `--spool` there is"
        " none.",
        values.directory,
    ),
    Option(
        "catalog",
        "URL",
        "sqlite",
        "where the records of uploads are: `sqlite`, or a PostgreSQL database that several servers share",
        "`sqlite` is a file in the upload directory, for one server. With `postgresql://user@host/database` any number"
        " of servers share the uploads and `--upload-dir`; see [scaling.md](scaling.md). It needs the extra `postgres`."
        " The password may be in the URL, in `PGPASSWORD` or in `~/.pgpass`.",
        values.catalog_url,
        secret=True,
    ),
    Option(
        "spool",
        "URL",
        "",
        "object store that holds the uploads in place of the upload directory, with `--catalog postgresql://...`",
        "`s3://bucket/prefix`, `az://container/prefix` or `gs://bucket/prefix`, with the options of a `--remote`'s URL."
        " The servers then need no disk that lasts. All servers of one catalog name the same. `--part-size` and"
        " `--remote-timeout` hold here too. See [scaling.md](scaling.md#without-a-directory).",
        values.text,
        secret=True,
    ),
    Option(
        "scratch-size",
        "SIZE",
        "1G",
        "with `--spool`: bytes of the run directory that uploads under way may use, in each worker",
        "A part stays there until the store has it. If it is too small, few uploads proceed at once and the others"
        " wait; if it is larger than the disk, or memory, behind `--run-dir`, uploads fail with 507. At least four"
        " parts. Three quarters are for appends, a quarter for completing uploads. A body with a checksum must fit.",
        values.size_between("20M", "1T"),
    ),
    Option(
        "run-dir",
        "PATH",
        "",
        "directory for what is one server's own while it runs, with `--catalog postgresql://...`",
        "For example its admin socket, and the scratch of `--spool`. By default the first one of systemd's"
        " `RUNTIME_DIRECTORY`, `/run/resumable` if it can be written, or a new one in the temporary directory.",
        values.directory,
    ),
    Option(
        "workers",
        "NUMBER",
        "1",
        "processes that take requests on this machine; `auto`: one for each processor",
        "More than one needs `--catalog postgresql://...`. They share the ports; one that dies is started again.",
        values.workers,
    ),
    Option(
        "file-mode",
        "MODE",
        "600",
        "permissions of data files, in octal",
        "By default only the server's own user can read, whatever the umask is. `640` lets the group read, if"
        " `--dir-mode` does too. Existing files keep their permissions. See"
        " [deployment.md](deployment.md#who-can-read-the-files).",
        values.permissions(
            0o600, 0o666, "permissions like 640, with read and write for the server's user and execute for nobody"
        ),
    ),
    Option(
        "dir-mode",
        "MODE",
        "700",
        "permissions of the upload directory, if the server creates it, in octal",
        "They apply to all directories that the server creates, except `.resumable`, which is always 700. `710` lets"
        " the group pass through. Existing directories keep their permissions.",
        values.permissions(0o700, 0o7777, "permissions like 750, with all rights for the server's user"),
    ),
    Option(
        "base-path",
        "PATH",
        "/files/",
        "URL path of the uploads",
        "It works with and without the slash at its end.",
        values.base_path,
    ),
    Option(
        "public-url",
        "URL",
        "",
        "URL of the base path as clients see it",
        "Every `Location` begins with it: `https://example.org/files/`. Unset, the server derives it from each"
        " request (see `--behind-proxy`).",
        values.public_url,
    ),
    Option(
        "behind-proxy",
        "ADDRESSES",
        "",
        "proxies whose Forwarded and X-Forwarded-* headers are trusted; repeatable",
        "IP addresses and CIDR blocks separated by commas; `loopback` and `private` (10/8, 172.16/12, 192.168/16,"
        " fc00::/7) name common ranges. Unset, these headers are ignored. If the list is too wide, a client can"
        " choose the host in its `Location`.",
        values.networks,
        separator=",",
    ),
    Option(
        "max-size",
        "SIZE",
        "0",
        "largest upload in bytes; 0 for no limit",
        "Clients see it as `Tus-Max-Size`. A larger upload is refused with 413 before its bytes are read.",
        values.optional_size,
    ),
    Option(
        "expire-after",
        "TIME",
        "7d",
        "idle time after which an unfinished upload is removed; 0 for never",
        "Finished uploads are never removed. If it is too short, people who continue after a weekend must start over;"
        " with `never`, abandoned uploads fill the disk.",
        values.optional_duration,
    ),
    Option(
        "keep-partials",
        "TIME",
        "1h",
        "how long partial uploads are kept after the last final upload made of them was finished",
        "Until then another final upload may use them, and each byte is on the disk twice, unless the file system"
        " shares blocks. 0 removes them at once.",
        values.duration,
    ),
    Option(
        "final-timeout",
        "TIME",
        "30s",
        "how long the request for a final upload waits until it is finished, at most",
        "After that the server continues in the background. The answer is then 201 without `Upload-Offset`; or 503 if"
        " hooks or `--ack remote` can still refuse it, and the same request again waits for the same upload. The"
        " time-outs of proxies and clients must be longer.",
        values.positive_duration,
    ),
    Option(
        "remember",
        "TIME",
        "7d",
        "how long a removed upload answers 410 Gone instead of 404",
        "Each removed upload needs a row in the catalog for this time.",
        values.duration,
    ),
    Option(
        "network-timeout",
        "TIME",
        "60",
        "silence after which a connection is closed, or time in which a client reads nothing; received bytes are kept",
        "If it is too short, clients on bad radio links are cut off and must resume; if it is too long, dead"
        " connections stay open.",
        values.positive_duration,
    ),
    Option(
        "min-rate",
        "SIZE",
        "100",
        "least bytes per second that a client must send or read; a slower one is cut off; 0 for off",
        "It is an average over `--network-timeout`. Received bytes are kept. Time in which the server itself paused the"
        " client does not count.",
        values.size,
    ),
    Option(
        "shutdown-timeout",
        "TIME",
        "10",
        "how long a stop waits until requests under way are committed and answered",
        "Give the service manager a longer time (`TimeoutStopSec`, `terminationGracePeriodSeconds`).",
        values.duration,
    ),
    Option(
        "reserve",
        "SIZE",
        "64M",
        "free disk space below which new bytes are refused with 507",
        "It leaves room for the catalog and for other programs on the disk. 0 fills the disk to the last block. It has"
        " no effect with `--spool`, where `--scratch-size` is the bound.",
        values.size,
    ),
    Option(
        "cors-origin",
        "ORIGIN",
        "*",
        "web origin that may upload from a browser, * for all, none for no CORS headers; repeatable",
        "Separate several by commas: `https://example.org,https://*.example.org`. In a pattern `*` matches one or more"
        " parts of a name, or any port: `http://localhost:*`. See [browsers.md](browsers.md).",
        cors.parse_origins,
        separator=",",
    ),
    Option(
        "writers",
        "NUMBER",
        "4",
        "threads that write long bodies to disk",
        "One is enough for a fast disk; more help if writes wait long. At most 64.",
        values.integer(1, 64, "a number of threads"),
    ),
    Option(
        "direct-from",
        "SIZE",
        "256K",
        "bytes in one read from which on the threads take a long body from its connection themselves; 0 for never",
        "Linux only, for HTTP/1.1 without TLS: such a body is moved to the disk within the kernel (splice), several at"
        " once on several cores. If it is too small, slow connections occupy threads; the largest read has 1M.",
        values.optional_size,
    ),
    Option(
        "digest",
        "sha256|sha512|none",
        "none",
        "digest that the server computes of each new upload: sha256, sha512 or none",
        "Events, the status and downloads (`Repr-Digest`) show it. An upload in one request is hashed while it is"
        " written; any other is read once more after it is finished. With `none` too, the server checks the digests"
        " that clients announce. See [digests.md](digests.md).",
        values.choice("sha256", "sha512", "none"),
    ),
    Option(
        "disable-download",
        "",
        "",
        "turn downloads off: GET of an upload answers 405",
        "Otherwise everybody who knows a finished upload's URL can read it, unless access rules say otherwise.",
        values.switch,
    ),
    Option(
        "download-from-remote",
        "proxy|redirect|off",
        "proxy",
        "how GET is answered when only a remote, or the `--spool`, has the file",
        "`proxy`: the server reads the file from the remote. `redirect`: 307 to a signed URL of the store; clients must"
        " reach the store, and everybody who sees the URL can read the file; if the remote can't sign, as `proxy`."
        " `off`: 404, but a `--spool` is read as with `proxy`. See [downloads.md](downloads.md).",
        values.choice("proxy", "redirect", "off"),
    ),
    Option(
        "download-url-expires",
        "TIME",
        "5m",
        "with `--download-from-remote redirect`: how long the store's URL is valid",
        "A download must begin within this time. If it is too short, slow clients and clients that resume later are"
        " refused; if it is too long, a leaked URL can be used by others. From 1s to 7d.",
        values.duration_between("1s", "7d"),
    ),
)


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
