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
from resumable.model.upload import GoneReason, ReplicaState

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
_FIGURES: Final = {
    "received": "bytes a second that came in on connections for uploads",
    "sent": "bytes a second that were sent to remotes",
    "requests": "requests a second for uploads that ended",
    "refused": "requests that were answered 4xx",
    "failed": "requests that were answered 5xx",
    "retries": "attempts at remotes that failed",
    "complaints": "errors in the log",
    "lag": "bytes that are durable here, and not in the remote that is farthest behind",
    "lag_seconds": "for how long the oldest finished upload has waited for it",
    "free": "bytes that are free on the upload directory's disk",
    "used": "bytes that are in use there",
    "appending": "requests that hold an upload",
    "queued": "uploads that wait in the queues of remotes",
}
_COUNTS: Final = record("uploads by state", **{state.value: whole("uploads") for state in UploadState})

SCHEMAS: Final[dict[str, Schema]] = {
    "Upload": record(
        "an upload, in both tiers; sizes are bytes",
        id=text("the upload's id"),
        state=words(*(state.value for state in UploadState)),
        length=nullable(whole("its length; null until the client declares it")),
        received=whole("bytes that have arrived, durable or not"),
        durable=whole("committed bytes"),
        offset=whole("the offset that the client gets"),
        created_at=time("when it was created"),
        touched_at=time("when it last received something"),
        finished_at=nullable(time("when it received its last byte")),
        stored_at=nullable(time("when the last required remote had it")),
        expires_at=nullable(time("when it will be removed unless it continues")),
        gone=nullable(words(*(gone.value for gone in GoneReason))),
        gone_at=nullable(time("since when it is gone")),
        owner=nullable(text("the identity that created it; null: none")),
        protocol=words("tus", "draft"),
        appending=flag("a request holds it now"),
        metadata=by_name({"anyOf": [text("UTF-8"), record("any other bytes", base64=text("RFC 4648"))]}),
        local=nullable(words("here", "placed", "dropped")),
        placed=nullable(text("path of its file below `--place-dir`; null if it has none")),
        object=nullable(text("its object in the store of `--spool`, there once it is finished; null without one")),
        announced=nullable(text("digests of the whole file that its client announced, as in Repr-Digest")),
        digest=nullable(text("digests of the whole file, as in Repr-Digest; null: not known (yet)")),
        replicas=many(ref("Replica")),
    ),
    "Replica": record(
        "an upload's copy in one remote; sizes are bytes",
        remote=text("the remote's name"),
        required=flag("it counts for `stored`"),
        state=words(*(state.value for state in ReplicaState)),
        key=nullable(text("its key in the remote; null before its start")),
        sent=whole("bytes that are under way or confirmed"),
        confirmed=whole("bytes that the store has confirmed"),
        lag=whole("bytes that are durable here and not confirmed there"),
        attempts=whole("failed attempts since the last success"),
        error=nullable(text("the error of the last failed attempt")),
        retry_at=nullable(time("the server tries again after this time")),
        location=nullable(text("the object's address in the store")),
        stored_at=nullable(time("when it was stored")),
    ),
    "Uploads": record(
        "a page of uploads, in the order of their creation; it may be short, or empty, and not be the last one",
        uploads=many(ref("Upload")),
        next=nullable(text("`after` of the next page; null: this is the last page")),
    ),
    "Remote": record(
        "a remote",
        name=text("the option `name`, else the URL without its options"),
        required=flag("an upload is stored only when this remote has it"),
        state=words("up", "down"),
        next_try=nullable({**_SPAN, "description": "seconds until a remote that is down is tried again"}),
        active=whole("uploads that are being copied"),
        queued=whole("uploads that wait in the queue"),
        lag=nullable(record("how far it is behind", bytes=whole("committed bytes that it lacks"), seconds=_SPAN)),
        replicas=nullable(record("replicas by state", **{state.value: whole("replicas") for state in ReplicaState})),
        since_start=record(
            "since the daemon's start",
            parts=whole("parts sent"),
            bytes=whole("bytes sent"),
            stored=whole("replicas stored"),
            parked=whole("replicas parked"),
            retries=whole("failed attempts that are repeated"),
            outages=whole("how often it went down"),
            failures=by_name(whole("by the kind of error")),
        ),
    ),
    "History": record(
        "the last hour of this process: a list for each figure, the oldest point first; null: not known",
        interval={**_SPAN, "description": "seconds between two points"},
        most=whole("points that are kept", 1),
        at=many(time("the end of the point's time")),
        **{name: many(nullable({**_SPAN, "description": about})) for name, about in _FIGURES.items()},
    ),
    "Remotes": record("all remotes", remotes=many(ref("Remote"))),
    "Status": record(
        "the daemon",
        version=text("the program's version"),
        started_at=time("when the daemon was started"),
        uptime={**_SPAN, "description": "seconds"},
        ready=flag("it is ready for requests"),
        wrong=by_name(text("why it isn't ready, by check")),
        draining=flag("new uploads are refused"),
        uploads=nullable(_COUNTS),
        counted_at=nullable(time("when uploads and replicas were counted")),
        since_start=record(
            "since the start", created=whole("uploads"), finished=whole("uploads"), gone=whole("uploads")
        ),
        appending=whole("requests that hold an upload"),
        spool=record(
            "the upload directory's disk, in bytes",
            free=nullable(whole("bytes that can still be written")),
            used=nullable(whole("bytes in use, including other files")),
            reserve=whole("free bytes below which uploads are refused"),
            queued=whole("bytes in memory that wait to be written"),
        ),
        remotes=many(ref("Remote")),
    ),
    "Drain": record(
        "whether new uploads are refused, and the work that is left",
        draining=flag("new uploads are refused"),
        since=nullable(time("when the drain started")),
        unfinished=whole("unfinished uploads, and partial uploads that a final upload may use"),
        appending=whole("requests that hold an upload"),
        replicas=by_name(whole("replicas to be stored or removed, by remote; without parked ones")),
    ),
    "Restarted": record("replicas that are retried", restarted=whole("how many")),
    "AllRestarted": record(
        "replicas that are retried", restarted=whole("how many"), more=flag("there are more: repeat the request")
    ),
    "Hooks": record(
        "waiting and dead events by hook",
        hooks=by_name(
            record(
                "the events of one hook",
                waiting=whole("events that wait for delivery"),
                dead=whole("dead events"),
                oldest=nullable(time("time of the oldest waiting event")),
            )
        ),
    ),
    "DeadEvents": record(
        "dead events, the oldest first",
        dead=many(
            record(
                "an event",
                seq=whole("its number", 1),
                upload=text("the upload's id"),
                event=text("the event's name"),
                time=time("when it happened"),
                attempts=whole("failed attempts"),
                error=nullable(text("the error of the last attempt")),
                dead_since=nullable(time("when it was given up")),
            )
        ),
        next=nullable(whole("`after` of the next page; null: this is the last page", 1)),
    ),
    "Replayed": record("events that are sent again", replayed=whole("how many")),
    "Ready": record(
        "whether the daemon is ready for requests",
        ready=flag("it is ready for requests"),
        wrong=by_name(text("why it isn't ready, by check")),
    ),
    "Problem": record(
        "an error (RFC 9457)",
        type=text("always `about:blank`"),
        title=text("the name of the status"),
        status=whole("the HTTP status", 400),
        detail=text("an explanation for people"),
    ),
}

_MEANINGS: Final[dict[str, Schema]] = {
    "state": words(*(state.value for state in UploadState), "unfinished", "any"),
    "owner": text("the identity that created it; empty: none"),
    "remote": text("with a replica in this remote"),
    "replica": words(*(state.value for state in ReplicaState)),
    "created_after": time("created at this time or later"),
    "created_before": time("created before this time"),
    "finished_after": time("finished at this time or later"),
    "finished_before": time("finished before this time"),
    "idle_since": time("received nothing since this time"),
    "min_size": whole("bytes: the length, or the offset while the length is unknown"),
    "limit": {**whole("uploads of one page", 1), "maximum": 1000, "default": 100},
    "order": {**words("oldest", "newest"), "default": "oldest"},
    "after": text("`next` of the previous page"),
}
PARAMETERS: Final = tuple({"name": name, "in": "query", "schema": _MEANINGS[name]} for name in FILTERS)


_UPLOAD: Final = "/v1/uploads/{upload_id}"
_HOOK: Final = "/v1/hooks/{hook}"
_REASONS: Final = {
    400: "a parameter is unknown, repeated or malformed",
    401: "the token is missing or wrong",
    403: "not allowed for this caller, or for a page in a browser",
    404: "it doesn't exist",
    409: "the upload is finished",
    410: "the upload is gone",
    429: "too many refused requests; see Retry-After",
    503: "not possible now; see Retry-After",
    507: "the disk is full",
}
_ALWAYS: Final = (401, 403, 429, 503)


def _query(name: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "required": required}


_REMOTE: Final = text("the name of a remote")


@frozen
class _Operation:
    """One route; ``answer`` is the schema of a 200, or empty for a 204. ``events``: those that are sent to clients that
    ask for them; empty: none."""

    path: str
    method: str
    name: str
    summary: str
    answer: str
    refusals: tuple[int, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()
    events: str = ""


_DAEMON_EVENTS: Final = "`status`, with the document: at once, and whenever something but `uptime` has changed"
_LIST_EVENTS: Final = (
    "`uploads`, with the page, at once; then `upload`, with a row that is new or has changed, and `gone`, with the "
    "`id` of one that no longer belongs to the page"
)
_UPLOAD_EVENTS: Final = (
    "`upload`, with the document, at once and whenever it has changed; `end`, with `state`, once it is gone"
)
ROUTES: Final = (
    _Operation("/v1/status", "get", "status", "Status of the daemon", "Status", (400,), (), _DAEMON_EVENTS),
    _Operation(
        "/v1/uploads", "get", "uploads", "List uploads, page by page", "Uploads", (400,), PARAMETERS, _LIST_EVENTS
    ),
    _Operation(
        _UPLOAD, "get", "upload", "Show one upload in both tiers, even if it is gone", "Upload", (400, 404), (),
        _UPLOAD_EVENTS,
    ),
    _Operation(_UPLOAD, "delete", "remove", "Delete any upload, as its client could", "", (400, 404, 410, 507)),
    _Operation(
        f"{_UPLOAD}/stop", "post", "stop", "Stop an unfinished upload and its request", "",
        (400, 404, 409, 410, 507),
    ),
    _Operation(
        f"{_UPLOAD}/retry", "post", "retry", "Retry an upload's parked replicas", "Restarted", (400, 404, 410, 507),
        (_query("remote", _REMOTE),),
    ),
    _Operation("/v1/remotes", "get", "remotes", "List the remotes", "Remotes", (400,)),
    _Operation(
        "/v1/retry", "post", "retry_all", "Retry all parked replicas of a remote", "AllRestarted", (400, 507),
        (_query("remote", _REMOTE, required=True),),
    ),
    _Operation("/v1/drain", "get", "drained", "Show what a drain still waits for", "Drain", (400,)),
    _Operation("/v1/drain", "put", "drain", "Accept no new uploads", "Drain", (400,)),
    _Operation("/v1/drain", "delete", "fill", "Accept new uploads again", "Drain", (400,)),
    _Operation("/v1/hooks", "get", "hooks", "Count the waiting and dead events of each hook", "Hooks", (400,)),
    _Operation(
        f"{_HOOK}/dead", "get", "dead", "List the dead events of a hook", "DeadEvents", (400, 404),
        (_query("after", whole("`next` of the previous page")),),
    ),
    _Operation(f"{_HOOK}/replay", "post", "replay", "Send a hook's dead events again", "Replayed", (400, 404, 507)),
    _Operation("/v1/history", "get", "history", "Figures of the last hour", "History", (400, 404)),
    _Operation("/v1/openapi.json", "get", "description", "This document", "", (400,)),
    _Operation("/metrics", "get", "metrics", "Metrics for Prometheus", ""),
    _Operation("/healthz", "get", "health", "200 while the event loop runs", ""),
    _Operation("/readyz", "get", "ready", "Whether the daemon is ready for requests", "Ready"),
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
            "description": "For operators, on their own listener. Later versions may add fields and parameters to /v1.",
        },
        "servers": [{"url": "/", "description": "the operators' own listener"}, {"url": "/admin"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: _Operation) -> dict[str, Any]:
    answers = _ANSWERS.get(route.path) or (_json(route.answer) if route.answer else {"204": {"description": "done"}})
    if route.events:
        answers["200"]["content"]["text/event-stream"] = {"schema": text(f"server-sent events: {route.events}")}
        answers = {**answers, "204": {"description": "to a client whose Last-Event-ID is `end`: nothing more comes"}}
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
