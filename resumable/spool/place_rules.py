"""The operator's rules for the places of finished files, and the sidecars beside them. Pure.

Invariant: whatever a client sends, a path that is planned is relative, has no empty segment and none that begins with a
dot, no control or invisible character, and no name that exceeds `MAX_NAME` or is a sidecar's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import field, frozen

from resumable.model import keys
from resumable.model.hooks import view
from resumable.model.upload import Place, Upload
from resumable.model.values import json_text, json_time
from resumable.spool.placing import SIDECAR, Collision, Rules, fitted

#: The place directory, in the upload directory, where none is named; no upload's id is that short.
DIRECTORY = "finished"

_FLAGS = ("place", "place_dir", "place_collision", "place_file_mode", "place_dir_mode", "sidecar")


@frozen
class PlaceSettings:
    """``template`` None: files stay under their ids; files placed before are still found in ``directory``."""

    directory: Path
    template: keys.KeyTemplate | None = None
    rules: Rules = field(factory=Rules)
    sidecar: bool = False

    def planned(self, upload: Upload) -> Place | None:
        """Where an upload that is finished now is to go; None: nowhere else."""
        if self.template is None or upload.is_partial:
            return None
        shown = view(upload)
        path = self.template.render(upload.id, upload.finished_at or 0.0, shown.metadata, upload.owner or "")
        return _safe_place(path, upload.id)

    def chosen(self, upload: Upload, key: str) -> Place | None:
        """Where a new upload is to go for which a hook has chosen a key; None: nowhere else."""
        return None if self.template is None or upload.is_partial else _safe_place(key, upload.id)


def place_settings(found: dict[str, Any], upload_dir: Path) -> PlaceSettings:
    """Takes its options out of ``found``. Raises ValueError, in one line for the operator."""
    template, directory, collision, file_mode, directory_mode, sidecar = (found.pop(flag) for flag in _FLAGS)
    return PlaceSettings(
        directory or upload_dir / DIRECTORY,
        None if template is None else parse(template),
        Rules(Collision(collision), file_mode, directory_mode),
        sidecar,
    )


def parse(template: str) -> keys.KeyTemplate:
    """The template of a place. Raises BadTemplate, a ValueError."""
    parsed = keys.parse(template, what="--place", owner=True)
    if any(each.startswith(".") for each in template.split("/")):
        raise keys.BadTemplate("--place: no segment may begin with a dot")
    return parsed


def safe_name(name: str) -> str:
    """One segment of a rendered template as a file's name; empty when nothing is left."""
    name = fitted(name.lstrip(". "))
    if name.lower().endswith(SIDECAR):  # a sidecar's name is never a client's
        name = f"{name[: -len(SIDECAR)]}_{name[1 - len(SIDECAR) :]}"
    return name


def sidecar(upload: Upload, path: str) -> bytes:
    """An upload's record as JSON; ``path``: of its file, below the place directory."""
    said: dict[str, object] = {
        "id": upload.id,
        "path": path,
        "size": upload.offset,
        "metadata": {name: json_text(value) for name, value in view(upload).metadata.items()},
        "created_at": json_time(upload.created_at),
        "finished_at": json_time(upload.finished_at or upload.created_at),
    }
    if upload.owner is not None:
        said["owner"] = upload.owner
    if upload.partials:
        said["partials"] = list(upload.partials)
    return json.dumps(said, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n"


def _safe_place(path: str, upload_id: str) -> Place:
    return Place("/".join(safe_name(each) or upload_id for each in path.split("/")))
