"""How the image of the Dockerfile is given what a server needs: the same for compositions and for Kubernetes.

Invariant: every path of the server's own is in the container where its variables say. Spec: the Dockerfile.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from attrs import frozen

from resumable import __version__
from resumable.cli.service_plan import ServicePlan

IMAGE: Final = f"resumable:{__version__}"
UID: Final = 10001
UPLOADS: Final = PurePosixPath("/app/uploads")
RUN: Final = "/run/resumable"
FILES: Final = PurePosixPath("/etc/resumable")
CONFIG: Final = "resumable.toml"
DEFAULT_PORT: Final = 8080
_OF_PORTS: Final = ("RESUMABLE_PORT", "RESUMABLE_LISTEN", "RESUMABLE_HOST")


class NotForContainers(Exception):
    """An option makes no sense in a container; the text is one line."""


@frozen
class ReadFile:
    """A file of this machine, its place in the container, and its key in a Secret."""

    source: Path
    target: PurePosixPath
    key: str


def ports_of(plan: ServicePlan) -> tuple[int, ...]:
    """Ports in the container. Raises NotForContainers."""
    if plan.others:
        kind = plan.others[0].partition(":")[0]
        raise NotForContainers(f"--listen {kind}:... is for a server beside its proxy: give --port for a container")
    if any(each.tls for each in plan.ports) and "tls-cert" not in plan.files:
        raise NotForContainers("--listen ssl:... names files of this machine: give --port and --tls-cert instead")
    if any(each.interface for each in plan.ports) and not set(_OF_PORTS) & set(plan.values):
        raise NotForContainers(
            "the configuration file binds one address, a container has its own: give --listen tcp:PORT"
        )
    numbers = tuple(dict.fromkeys(each.number for each in plan.ports))
    if 0 in numbers:
        raise NotForContainers("--port 0 chooses a port that nobody knows outside of a container: give a number")
    return numbers


def variables_of(plan: ServicePlan) -> dict[str, str]:
    """What the container's environment has, without secrets. Raises NotForContainers."""
    ports = ports_of(plan)
    found = {} if plan.settings.spool is not None else {"RESUMABLE_UPLOAD_DIR": str(UPLOADS)}
    if plan.config is not None:
        found["RESUMABLE_CONFIG"] = str(FILES / CONFIG)
    if len(ports) > 1:
        found["RESUMABLE_LISTEN"] = " ".join(f"tcp:{each}" for each in ports)
    elif ports != (DEFAULT_PORT,) or (plan.config is not None and "RESUMABLE_PORT" in plan.values):
        found["RESUMABLE_PORT"] = str(ports[0])
    if plan.place_dir is not None:
        found["RESUMABLE_PLACE_DIR"] = str(_placed(plan))
    found |= {name: value for name, value in plan.values.items() if name not in _OF_PORTS}
    if plan.is_shared:
        found["RESUMABLE_RUN_DIR"] = RUN
    for each in read_files(plan):
        found |= {_variable(flag): str(each.target) for flag in plan.files if each.key == flag}
    return found


def _variable(flag: str) -> str:
    return f"RESUMABLE_{flag.upper().replace('-', '_')}"


def _placed(plan: ServicePlan) -> PurePosixPath:
    directory, place_dir = plan.settings.upload_dir, plan.place_dir
    assert place_dir is not None
    if not place_dir.is_relative_to(directory):
        raise NotForContainers(
            f"--place-dir {place_dir} is not below --upload-dir: a container has one volume for both"
        )
    return UPLOADS / place_dir.relative_to(directory)


def read_files(plan: ServicePlan) -> Iterator[ReadFile]:
    """The files that its options name."""
    for flag, path in plan.files.items():
        yield ReadFile(path, FILES / flag, flag)
    if plan.config is not None:
        yield ReadFile(plan.config, FILES / CONFIG, CONFIG)
    for number, each in enumerate(plan.config_files, 1):
        yield ReadFile(Path(each), PurePosixPath(each), f"file-{number}")


def health_command(plan: ServicePlan, port: int) -> list[str] | None:
    """What looks whether it lives; None where only clients with certificates get in."""
    settings = plan.settings
    if settings.tls_client_ca is not None and not settings.tls_client_optional:
        return None
    if "tls-cert" not in plan.files:
        asked = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/healthz', timeout=4)"
    else:
        asked = (
            "import ssl, urllib.request as r; c = ssl.create_default_context(); c.check_hostname = False;"
            " c.verify_mode = ssl.CERT_NONE;"
            f" r.urlopen('https://127.0.0.1:{port}/healthz', timeout=4, context=c)"
        )
    return ["CMD", "python", "-c", asked]
