"""A systemd unit for a server with given options. examples/resumable.service is the same for a usual installation.

Invariants: all that the server writes to is writable, and the rest of the file system isn't; no secret is in the unit.
Spec: systemd.exec(5), systemd.service(5), systemd.unit(5).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from resumable.cli.service_plan import ServicePlan, below, owner_of_directory, paths

STATE: Final = "/var/lib"
ENVIRONMENT_FILE: Final = "/etc/default/resumable"
_HOMES: Final = ("/home", "/root", "/run/user")
_TEMPORARY: Final = ("/tmp", "/var/tmp")
_RUNTIME: Final = "/run"
_HARDENING: Final = """\
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
ProtectSystem=strict
ProtectHome={homes}
PrivateTmp={temporary}
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM"""


@frozen
class UnitPlaces:
    """Directories by how systemd is told of them: below /var/lib, below /run, and elsewhere."""

    state: tuple[str, ...]
    runtime: tuple[str, ...]
    elsewhere: tuple[Path, ...]


def unit_file(plan: ServicePlan, user: str | None) -> str:
    """The text of the unit. ``user``: whom it runs as; None: the directory's owner, or one that systemd makes up."""
    directory = None if plan.settings.spool is not None else plan.upload_dir or Path(STATE) / "resumable"
    places = _places(plan, directory)
    name = user or _user(plan, directory, places)
    sections = [
        "\n".join(_head(plan, name, places)),
        "\n".join(_unit(plan, directory)),
        "\n".join(_service(plan, directory)),
        "\n".join(_limits(plan)),
        "\n".join(_identity(plan, name, places)),
        _hardening(plan, places),
        "[Install]\nWantedBy=multi-user.target",
    ]
    return "\n\n".join(sections) + "\n"


def twistd() -> Path:
    """The twistd of this installation."""
    found = Path(sys.executable).parent / "twistd"
    return found if found.exists() else Path("/opt/resumable/bin/twistd")


def _places(plan: ServicePlan, directory: Path | None) -> UnitPlaces:
    run = plan.settings.run_dir
    if run is None and plan.is_shared:
        run = Path(_RUNTIME) / "resumable"
    sockets = plan.socket_directories
    written = dict.fromkeys(filter(None, (directory, plan.place_dir, run, *sockets, *plan.file_remotes)))
    state, runtime, elsewhere = [], [], []
    for each in written:
        if below(each, STATE) and str(each) != STATE:
            state.append(str(each.relative_to(STATE)))
        elif below(each, _RUNTIME) and not below(each, *_HOMES) and str(each) != _RUNTIME:
            runtime.append(str(each.relative_to(_RUNTIME)))
        else:
            elsewhere.append(each)
    return UnitPlaces(tuple(state), tuple(runtime), tuple(elsewhere))


def _user(plan: ServicePlan, directory: Path | None, places: UnitPlaces) -> str | None:
    """None for a user that systemd makes up: nobody else's files are to be read or written."""
    if not places.elsewhere and not any(paths(plan)):
        return None
    owner = None if directory is None else owner_of_directory(directory)
    return "resumable" if owner is None else owner[2]


def _head(plan: ServicePlan, user: str | None, places: UnitPlaces) -> Iterator[str]:
    yield "# systemd unit, written by `resumable doctor --write unit`; for /etc/systemd/system/resumable.service."
    if user == "resumable":
        yield "#   sudo useradd --system --home-dir / --shell /usr/sbin/nologin resumable"
    for each in places.elsewhere:
        mode = f"{plan.settings.modes.directory:o}"
        yield f"#   sudo install -d -o {user} -g $(id -gn {user}) -m {mode} {each}      # its user must own it"
    if user is not None and any(paths(plan)):
        yield f"# The user {user} must be able to read: {', '.join(map(str, paths(plan)))}."
    if plan.secrets:
        yield f"# Write these into {ENVIRONMENT_FILE} (root's, mode 600), as NAME=value: {', '.join(plan.secrets)}."
    if plan.uses_s3:
        yield f"# Credentials of S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in {ENVIRONMENT_FILE} (mode 600)."
    yield f"#   sudo {twistd()} --help > /dev/null     # lets Twisted write its list of plugins once, as root"
    yield "#   sudo systemctl daemon-reload && sudo systemctl enable --now resumable"


def _unit(plan: ServicePlan, directory: Path | None) -> Iterator[str]:
    yield from ("[Unit]", "Description=Resumable upload server")
    yield "Documentation=https://tus.io/protocols/resumable-upload"
    yield from ("Wants=network-online.target", "After=network-online.target")
    mounts = dict.fromkeys(map(str, filter(None, (directory, plan.place_dir, *plan.file_remotes))))
    if mounts:
        yield f"RequiresMountsFor={' '.join(map(_word, mounts))}"
    if any(each.startswith("systemd:") for each in plan.others):
        yield "# The sockets: see examples/resumable.socket."
        yield from ("Requires=resumable.socket", "After=resumable.socket")


def _service(plan: ServicePlan, directory: Path | None) -> Iterator[str]:
    yield "[Service]"
    yield "# It counts as started when the daemon accepts uploads. systemd restarts a daemon whose event loop hangs."
    yield from ("Type=notify", "NotifyAccess=main", "WatchdogSec=60")
    yield "# -n: systemd supervises the process itself. --pidfile=: a file left over could prevent the next start."
    yield f"ExecStart={_word(str(twistd()))} -n --pidfile= resumable"
    yield "# The daemon notices renewed certificates within a minute; a reload uses them at once."
    yield "ExecReload=/bin/kill -HUP $MAINPID"
    found = {} if directory is None else {"RESUMABLE_UPLOAD_DIR": str(directory)}
    found |= plan.values
    if plan.config is not None:
        found["RESUMABLE_CONFIG"] = str(plan.config)
    if plan.place_dir is not None:
        found["RESUMABLE_PLACE_DIR"] = str(plan.place_dir)
    if plan.settings.run_dir is not None:
        found["RESUMABLE_RUN_DIR"] = str(plan.settings.run_dir)
    found |= {f"RESUMABLE_{flag.upper().replace('-', '_')}": str(path) for flag, path in plan.files.items()}
    for name, value in found.items():
        yield f"Environment={_word(f'{name}={value}')}"
    yield f"EnvironmentFile={'' if plan.secrets else '-'}{ENVIRONMENT_FILE}"


def _limits(plan: ServicePlan) -> Iterator[str]:
    yield from ("Restart=on-failure", "RestartSec=2")
    yield "# After SIGTERM the daemon commits the requests under way. This time is longer than it may take for that."
    yield from ("KillMode=mixed", f"TimeoutStopSec={plan.stop_seconds}")
    yield "# Each connection needs one file descriptor, each open upload another."
    yield "LimitNOFILE=65536"


def _identity(plan: ServicePlan, user: str | None, places: UnitPlaces) -> Iterator[str]:
    yield "DynamicUser=yes" if user is None else f"User={user}"
    mode = f"{plan.settings.modes.directory:04o}"
    if places.state:
        yield f"StateDirectory={' '.join(map(_word, places.state))}"
        yield f"StateDirectoryMode={mode}"
    if places.runtime:
        yield f"RuntimeDirectory={' '.join(map(_word, places.runtime))}"
        yield f"RuntimeDirectoryMode={'0755' if plan.socket_directories else '0700'}"
        yield "RuntimeDirectoryPreserve=restart"
    if places.elsewhere:
        yield f"ReadWritePaths={' '.join(_word(str(each)) for each in places.elsewhere)}"
    yield "UMask=0077"


def _hardening(plan: ServicePlan, places: UnitPlaces) -> str:
    read = (*paths(plan), twistd(), Path(sys.prefix), Path(os.path.realpath(sys.executable)), *places.elsewhere)
    low = any(0 < each.number < 1024 for each in plan.ports)
    text = _HARDENING.format(
        capabilities="CAP_NET_BIND_SERVICE" if low else "",
        homes="read-only" if any(below(each, *_HOMES) for each in read) else "yes",
        temporary="no" if any(below(each, *_TEMPORARY) for each in read) else "yes",
    )
    return f"AmbientCapabilities=CAP_NET_BIND_SERVICE\n{text}" if low else text


def _word(text: str) -> str:
    """As it stands in a line of a unit: systemd expands % and reads escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{escaped}"' if any(char in escaped for char in " \\\"';#") else escaped
