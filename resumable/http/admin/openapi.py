"""The description of the admin API that the API serves itself: schemas of its answers, and its routes.

Invariants: every route of api.py is described, and nothing else; each schema says all fields of its answer. Tests
compare. Spec: OpenAPI 3.1.0 with its dialect of JSON Schema 2020-12.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from resumable import __version__
from resumable.http.admin.query import FILTERS
from resumable.model.listing import UploadState
from resumable.model.upload import Gone, ReplicaState

Schema = dict[str, Any]


def whole(description: str, least: int = 0) -> Schema:
    """A whole number, at least ``least``."""
    return {"type": "integer", "minimum": least, "description": description}


def text(description: str) -> Schema:
    """A string."""
    return {"type": "string", "description": description}


def time(description: str) -> Schema:
    """A time of RFC 3339."""
    return {"type": "string", "format": "date-time", "description": description}


def flag(description: str) -> Schema:
    """A boolean."""
    return {"type": "boolean", "description": description}


def words(*values: str) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": list(values)}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"], **_with_null(schema)}
    return {"anyOf": [schema, {"type": "null"}]}


def _with_null(schema: Schema) -> Schema:
    return {"enum": [*schema["enum"], None]} if "enum" in schema else {}


def record(description: str, **fields: Schema) -> Schema:
    """An object with all of these fields, and no other."""
    return {
        "type": "object",
        "description": description,
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def many(schema: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """An object with values of one kind, by names."""
    return {"type": "object", "additionalProperties": schema}


def ref(name: str) -> Schema:
    """A reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_SPAN: Final = {"type": "number", "minimum": 0}
_COUNTS: Final = record("by state", **{state.value: whole("uploads") for state in UploadState})

SCHEMAS: Final[dict[str, Schema]] = {
    "Upload": record(
        "an upload, in both tiers; sizes are bytes",
        id=text("names it"),
        state=words(*(state.value for state in UploadState)),
        length=nullable(whole("how large it will be; null while its client hasn't said")),
        received=whole("bytes that have come, durable or not"),
        durable=whole("bytes that are committed"),
        offset=whole("what its client is told"),
        created_at=time("when it was made"),
        touched_at=time("when a request last moved it"),
        finished_at=nullable(time("when it got its last byte")),
        stored_at=nullable(time("when the last required remote had it")),
        expires_at=nullable(time("when it will be removed unless it moves on")),
        gone=nullable(words(*(gone.value for gone in Gone))),
        gone_at=nullable(time("since when")),
        owner=nullable(text("the identity that created it; null: nobody's")),
        appending=flag("a request holds it at the moment"),
        metadata=by_name({"anyOf": [text("UTF-8"), record("any other bytes", base64=text("RFC 4648"))]}),
        local=nullable(words("here", "placed", "dropped")),
        placed=nullable(text("its file's path below `--place-dir`; null while it isn't there")),
        replicas=many(ref("Replica")),
    ),
    "Replica": record(
        "an upload's copy in one remote; sizes are bytes",
        remote=text("the remote's name"),
        required=flag("it counts for `stored`"),
        state=words(*(state.value for state in ReplicaState)),
        key=nullable(text("what it is called there; null before it was begun")),
        sent=whole("on their way or there"),
        confirmed=whole("there"),
        lag=whole("durable here, and not there"),
        attempts=whole("that failed since something last worked"),
        error=nullable(text("of the last one that failed")),
        retry_at=nullable(time("not tried before that")),
        location=nullable(text("what the store calls it")),
        stored_at=nullable(time("when it was finalised")),
    ),
    "Uploads": record(
        "a page of uploads, in the order of their creation; it may be short, or empty, and not be the last one",
        uploads=many(ref("Upload")),
        next=nullable(text("goes into `after` for the next page; null: this is the last one")),
    ),
    "Remote": record(
        "a remote",
        name=text("of its option, or made of its URL"),
        required=flag("uploads are stored only with it"),
        state=words("up", "down"),
        next_try=nullable({**_SPAN, "description": "seconds until one that is down is tried again"}),
        active=whole("uploads that are being sent on"),
        queued=whole("uploads known to wait for their turn"),
        lag=nullable(record("what it lacks", bytes=whole("committed here"), seconds=_SPAN)),
        replicas=nullable(record("by state", **{state.value: whole("replicas") for state in ReplicaState})),
        since_start=record(
            "since the daemon's start",
            parts=whole("sent"),
            bytes=whole("sent"),
            stored=whole("finalised"),
            parked=whole("given up"),
            retries=whole("failed, and made again"),
            outages=whole("how often it went down"),
            failures=by_name(whole("by the kind of error")),
        ),
    ),
    "Remotes": record("all remotes", remotes=many(ref("Remote"))),
    "Status": record(
        "the daemon",
        version=text("of the program"),
        started_at=time("when it was started"),
        uptime={**_SPAN, "description": "seconds"},
        ready=flag("it should be sent requests"),
        wrong=by_name(text("why it shouldn't, by what was checked")),
        draining=flag("no upload begins"),
        uploads=nullable(_COUNTS),
        counted_at=nullable(time("when these, and replicas, were counted")),
        since_start=record(
            "since the start", created=whole("uploads"), finished=whole("uploads"), gone=whole("uploads")
        ),
        appending=whole("requests that hold an upload"),
        spool=record(
            "the upload directory's disk, in bytes",
            free=nullable(whole("may still be written")),
            used=nullable(whole("by anybody")),
            reserve=whole("below that, uploads are refused"),
            queued=whole("in memory, waiting to be written"),
        ),
        remotes=many(ref("Remote")),
    ),
    "Drain": record(
        "whether no upload may begin, and what is left of those that have",
        draining=flag("no upload begins"),
        since=nullable(time("since when")),
        unfinished=whole("uploads that lack bytes, and partial uploads that a final may be made of"),
        appending=whole("requests that hold an upload"),
        replicas=by_name(whole("not stored yet, or still to be removed, by remote; parked ones don't count")),
    ),
    "Restarted": record("replicas that are tried again", restarted=whole("how many")),
    "AllRestarted": record(
        "replicas that are tried again", restarted=whole("how many"), more=flag("ask again for those that are left")
    ),
    "Hooks": record(
        "events on their way, by hook",
        hooks=by_name(
            record(
                "one hook's",
                waiting=whole("events to be delivered"),
                dead=whole("events that were given up"),
                oldest=nullable(time("of those that wait")),
            )
        ),
    ),
    "DeadEvents": record(
        "events that were given up, oldest first",
        dead=many(
            record(
                "an event",
                seq=whole("its number", 1),
                upload=text("an upload's id"),
                event=text("what has happened"),
                time=time("when it has"),
                attempts=whole("that failed"),
                error=nullable(text("of the last attempt")),
                dead_since=nullable(time("when it was given up")),
            )
        ),
        next=nullable(whole("goes into `after` for the next page; null: this is the last one", 1)),
    ),
    "Replayed": record("events that wait again", replayed=whole("how many")),
    "Ready": record(
        "whether it should be sent requests",
        ready=flag("it should"),
        wrong=by_name(text("why it shouldn't, by what was checked")),
    ),
    "Problem": record(
        "what was wrong (RFC 9457)",
        type=text("always `about:blank`"),
        title=text("of the status"),
        status=whole("the status", 400),
        detail=text("for people"),
    ),
}

_MEANINGS: Final[dict[str, Schema]] = {
    "state": words(*(state.value for state in UploadState), "unfinished", "any"),
    "owner": text("the identity that created it; empty: nobody's"),
    "remote": text("there is a replica in this remote"),
    "replica": words(*(state.value for state in ReplicaState)),
    "created_after": time("made then or later"),
    "created_before": time("made before"),
    "finished_after": time("finished then or later"),
    "finished_before": time("finished before"),
    "idle_since": time("no request has moved it since"),
    "min_size": whole("bytes, of the length or of what is there"),
    "limit": {**whole("uploads of one page", 1), "maximum": 1000, "default": 100},
    "order": {**words("oldest", "newest"), "default": "oldest"},
    "after": text("`next` of the page before"),
}
PARAMETERS: Final = tuple({"name": name, "in": "query", "schema": _MEANINGS[name]} for name in FILTERS)


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
class _Operation:
    """``answer``: the schema of what 200 carries; empty: it is 204."""

    path: str
    method: str
    name: str
    summary: str
    answer: str
    refusals: tuple[int, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()


ROUTES: Final = (
    _Operation("/v1/status", "get", "status", "The daemon as a whole", "Status", (400,)),
    _Operation("/v1/uploads", "get", "uploads", "Uploads that match, page by page", "Uploads", (400,), PARAMETERS),
    _Operation(_UPLOAD, "get", "upload", "One upload, in both tiers, even if it is gone", "Upload", (400, 404)),
    _Operation(_UPLOAD, "delete", "remove", "End any upload, as its client could", "", (400, 404, 410, 507)),
    _Operation(
        f"{_UPLOAD}/stop", "post", "stop", "End an upload that isn't finished, and its request", "",
        (400, 404, 409, 410, 507),
    ),
    _Operation(
        f"{_UPLOAD}/retry", "post", "retry", "Try its parked replicas again", "Restarted", (400, 404, 410, 507),
        (_query("remote", _REMOTE),),
    ),
    _Operation("/v1/remotes", "get", "remotes", "Each remote", "Remotes", (400,)),
    _Operation(
        "/v1/retry", "post", "retry_all", "Try again all that was parked for a remote", "AllRestarted", (400, 507),
        (_query("remote", _REMOTE, required=True),),
    ),
    _Operation("/v1/drain", "get", "drained", "What a drain still waits for", "Drain", (400,)),
    _Operation("/v1/drain", "put", "drain", "Let no upload begin", "Drain", (400,)),
    _Operation("/v1/drain", "delete", "fill", "Let uploads begin again", "Drain", (400,)),
    _Operation("/v1/hooks", "get", "hooks", "Events on their way, by hook", "Hooks", (400,)),
    _Operation(
        f"{_HOOK}/dead", "get", "dead", "Events that were given up", "DeadEvents", (400, 404),
        (_query("after", whole("`next` of the page before")),),
    ),
    _Operation(f"{_HOOK}/replay", "post", "replay", "Send a hook's dead events again", "Replayed", (400, 404, 507)),
    _Operation("/v1/openapi.json", "get", "description", "This document", "", (400,)),
    _Operation("/metrics", "get", "metrics", "Metrics for Prometheus", ""),
    _Operation("/healthz", "get", "health", "200 while the event loop turns", ""),
    _Operation("/readyz", "get", "ready", "Whether it should be sent requests", "Ready"),
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


def _operation(route: _Operation) -> dict[str, Any]:
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
