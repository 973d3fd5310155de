"""The description of the admin API that it serves itself.

Changes when a route comes or goes; the schemas are in schemas.py. Invariant: every route of admin.py is described, and
nothing else; a test compares. Spec: OpenAPI 3.1.0.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from resumable import __version__
from resumable.http.admin.schemas import PARAMETERS, SCHEMAS, ref, text, whole

_UPLOAD: Final = "/v1/uploads/{upload_id}"
_HOOK: Final = "/v1/hooks/{hook}"
_REASONS: Final = {
    400: "a parameter is unknown, repeated or malformed",
    401: "the token is missing or wrong",
    403: "not for whoever asks, or not for a page in a browser",
    404: "there is no such thing",
    409: "it is finished",
    410: "the upload is gone",
    429: "too many requests that weren't let in; see Retry-After",
    503: "not at the moment; see Retry-After",
    507: "the disk is full",
}
_ALWAYS: Final = (401, 403, 429, 503)


def _query(name: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "required": required}


_REMOTE: Final = text("the name of a remote")


@frozen
class _Route:
    """``answer``: the schema of what 200 carries; empty: it is 204."""

    path: str
    method: str
    name: str
    summary: str
    answer: str
    refusals: tuple[int, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()


ROUTES: Final = (
    _Route("/v1/status", "get", "status", "The daemon as a whole", "Status", (400,)),
    _Route("/v1/uploads", "get", "uploads", "Uploads that match, page by page", "Uploads", (400,), tuple(PARAMETERS)),
    _Route(_UPLOAD, "get", "upload", "One upload, in both tiers, even if it is gone", "Upload", (400, 404)),
    _Route(_UPLOAD, "delete", "remove", "End any upload, as its client could", "", (400, 404, 410, 507)),
    _Route(
        f"{_UPLOAD}/stop", "post", "stop", "End an upload that isn't finished, and its request", "",
        (400, 404, 409, 410, 507),
    ),
    _Route(
        f"{_UPLOAD}/retry", "post", "retry", "Try its parked replicas again", "Restarted", (400, 404, 410, 507),
        (_query("remote", _REMOTE),),
    ),
    _Route("/v1/remotes", "get", "remotes", "Each remote", "Remotes", (400,)),
    _Route(
        "/v1/retry", "post", "retry_all", "Try again all that was parked for a remote", "AllRestarted", (400, 507),
        (_query("remote", _REMOTE, required=True),),
    ),
    _Route("/v1/drain", "get", "drained", "What a drain still waits for", "Drain", (400,)),
    _Route("/v1/drain", "put", "drain", "Let no upload begin", "Drain", (400,)),
    _Route("/v1/drain", "delete", "fill", "Let uploads begin again", "Drain", (400,)),
    _Route("/v1/hooks", "get", "hooks", "Events on their way, by hook", "Hooks", (400,)),
    _Route(
        f"{_HOOK}/dead", "get", "dead", "Events that were given up", "DeadEvents", (400, 404),
        (_query("after", whole("`next` of the page before")),),
    ),
    _Route(f"{_HOOK}/replay", "post", "replay", "Send a hook's dead events again", "Replayed", (400, 404, 507)),
    _Route("/v1/openapi.json", "get", "description", "This document", "", (400,)),
    _Route("/metrics", "get", "metrics", "Figures for Prometheus", ""),
    _Route("/healthz", "get", "health", "200 while the event loop turns", ""),
    _Route("/readyz", "get", "ready", "Whether it should be sent requests", "Ready"),
)  # fmt: skip


def description() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operations = paths.setdefault(route.path, {"parameters": _in_path(route.path)})
        operations[route.method] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "resumable: admin API",
            "version": __version__,
            "description": "For operators, on a listener of its own. Within /v1 fields and parameters may be added.",
        },
        "servers": [{"url": "/", "description": "the operators' own listener"}, {"url": "/admin"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: _Route) -> dict[str, Any]:
    answers = _ANSWERS.get(route.path) or (_json(route.answer) if route.answer else {"204": {"description": "done"}})
    refusals = {} if route.path == "/healthz" else {str(each): _problem(each) for each in (*_ALWAYS, *route.refusals)}
    return {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": list(route.parameters),
        "responses": {**dict(sorted(refusals.items())), **answers},
    }


def _json(schema: str, about: str = "as described", status: int = 200) -> dict[str, Any]:
    return {str(status): {"description": about, "content": {"application/json": {"schema": ref(schema)}}}}


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": ref("Problem")}}
    return {"description": _REASONS[status], "content": content}


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "/healthz": {"200": {"description": "alive", "content": _TEXT}},
    "/metrics": {"200": {"description": "the text format of Prometheus", "content": _TEXT}},
    "/readyz": {**_json("Ready", "ready"), **_json("Ready", "not ready, and why", 503)},
    "/v1/openapi.json": {
        "200": {"description": "OpenAPI 3.1", "content": {"application/json": {"schema": {"type": "object"}}}}
    },
}
