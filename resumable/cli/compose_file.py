"""A Docker composition for a server with given options, after deploy/compose and examples/docker-compose.yml.

Invariant: no secret is in it: these are in a file beside it, `resumable.env`.
Spec: https://github.com/compose-spec/compose-spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from resumable.cli.container_plan import (
    IMAGE,
    RUN,
    UID,
    UPLOADS,
    health_command,
    ports_of,
    read_files,
    variables_of,
)
from resumable.cli.service_plan import ServicePlan, below, owner_of_directory
from resumable.cli.yaml_text import yaml_text

SECRETS: Final = "resumable.env"


def compose_file(plan: ServicePlan, user: str | None) -> str:
    """The text of the file. ``user``: as in ``user:``; None: the directory's owner, or the image's user."""
    volumes = _volumes(plan)
    document: dict[str, Any] = {"#": _head(plan, user), "name": "resumable"}
    document["services"] = {"resumable": _server(plan, user, volumes)}
    if f"uploads:{UPLOADS}" in volumes:
        document["volumes"] = {"uploads": None}
    return yaml_text(document)


def _user(plan: ServicePlan, user: str | None) -> str:
    owner = None if plan.upload_dir is None else owner_of_directory(plan.upload_dir)
    return user or (f"{UID}:{UID}" if owner is None else f"{owner[0]}:{owner[1]}")


def _head(plan: ServicePlan, user: str | None) -> str:
    lines = ["Written by `resumable doctor --write compose`. docker compose -f FILE up -d", ""]
    lines.append(f"The image: docker build -t {IMAGE} . in the source.")
    uid, _, gid = _user(plan, user).partition(":")
    for each in filter(None, (plan.upload_dir, *plan.file_remotes)):
        lines.append(f"The server's user owns its directory: sudo install -d -o {uid} -g {gid or uid} -m 700 {each}")
    if plan.secrets or plan.uses_s3:
        names = [*plan.secrets, *(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] if plan.uses_s3 else [])]
        lines.append(f"Write these into {SECRETS} beside this file (mode 600), as NAME=value: {', '.join(names)}.")
    if any(read_files(plan)):
        lines.append(
            f"The user {uid} must be able to read: {', '.join(str(each.source) for each in read_files(plan))}."
        )
    return "\n".join(lines)


def _volumes(plan: ServicePlan) -> list[str]:
    found = []
    if plan.settings.spool is None:
        found.append(f"{plan.upload_dir or 'uploads'}:{UPLOADS}")
    found += [f"{each}:{each}" for each in plan.file_remotes]
    found += [f"{each.source}:{each.target}:ro" for each in read_files(plan)]
    return found


def _scratch(plan: ServicePlan) -> Iterator[str]:
    """Directories in memory: all else is read-only, so sockets are bound there."""
    yield from ("/tmp", RUN)
    for each in dict.fromkeys(map(str, plan.socket_directories)):
        if not below(Path(each), "/tmp", RUN, str(UPLOADS)):
            yield each


def _server(plan: ServicePlan, user: str | None, volumes: list[str]) -> dict[str, Any]:
    server: dict[str, Any] = {"image": IMAGE, "user": _user(plan, user)}
    server["environment"] = {name: value.replace("$", "$$") for name, value in variables_of(plan).items()}
    if plan.secrets or plan.uses_s3:
        server["env_file"] = [SECRETS]
    local = all(each.is_local for each in plan.ports)
    server["ports"] = [f"{'127.0.0.1:' if local else ''}{each}:{each}" for each in ports_of(plan)]
    if volumes:
        server["volumes"] = volumes
    test = health_command(plan, ports_of(plan)[0])
    if test is None:
        server["healthcheck"] = {"#": "Only clients with a certificate get in.", "disable": True}
    else:
        server["healthcheck"] = {
            "test": test,
            "interval": "10s",
            "timeout": "5s",
            "retries": 6,
            "start_period": "30s",
        }
    return {
        **server,
        "read_only": True,
        "tmpfs": list(_scratch(plan)),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "#stop": "Longer than twice --shutdown-timeout and 15 s.",
        "stop_grace_period": f"{plan.stop_seconds}s",
        "ulimits": {"nofile": 65536},
        "restart": "unless-stopped",
    }
