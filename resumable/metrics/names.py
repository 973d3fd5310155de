"""The names of all metrics, their kinds, labels and help.

docs/operations.md, the dashboard and the alerts under examples/ go by these names, which follow
https://prometheus.io/docs/practices/naming/; times are seconds, sizes bytes. Invariant: the values of labels come from
the code and the configuration, never from a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen

PREFIX: Final = "resumable_"
KINDS: Final = ("counter", "gauge", "histogram")


@frozen
class Metric:
    """A metric; ``name`` is the one that Prometheus shows, which adds endings to that of a histogram."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


_ALL: Final = (
    # Requests
    (
        "requests_total",
        "counter",
        "Finished requests by method and status class; lost: the client left",
        "method status",
    ),
    ("request_duration_seconds", "histogram", "Time from a request's headers to the end of its answer", "method"),
    ("received_bytes_total", "counter", "Bytes that clients have sent, including headers"),
    (
        "protocol_requests_total",
        "counter",
        "Finished requests that spoke this protocol, tus or draft",
        "protocol",
    ),
    (
        "protocol_received_bytes_total",
        "counter",
        "Bytes of their content, as far as it came; added when a request ends",
        "protocol",
    ),
    ("connections", "gauge", "Open connections of clients"),
    ("cut_off_total", "counter", "Connections and HTTP/2 answers that the server has cut off", "reason"),
    # Uploads
    ("uploads_created_total", "counter", "Created uploads"),
    ("protocol_uploads_created_total", "counter", "Created uploads by the protocol that made them", "protocol"),
    ("uploads_finished_total", "counter", "Uploads that have received their last byte"),
    ("uploads_placed_total", "counter", "Finished uploads whose files are in their place (--place)"),
    ("placing_failures_total", "counter", "Failed attempts to place a finished file"),
    ("removal_failures_total", "counter", "Failed attempts to remove an upload's data"),
    ("uploads_stored_total", "counter", "Uploads that every required remote has"),
    ("uploads_gone_total", "counter", "Uploads that were terminated, have expired or are lost", "reason"),
    ("uploads", "gauge", "Uploads by state; gone: removed ones that still answer 410", "state"),
    ("appends", "gauge", "Requests that hold an upload now"),
    ("holds_taken_over_total", "counter", "Holds that new requests have taken over from silent ones"),
    # The local tier
    (
        "spool_free_bytes",
        "gauge",
        "Bytes that can still be written to the upload directory's disk, or with --spool to the scratch's",
    ),
    ("spool_used_bytes", "gauge", "Used bytes on that disk, including other files"),
    ("spool_reserve_bytes", "gauge", "Free bytes below which the server refuses uploads (--reserve); 0 with --spool"),
    ("spool_queued_bytes", "gauge", "Bytes in memory that wait to be written"),
    ("spool_up", "gauge", "1 while the store of --spool can be used, 0 while it counts as down; only with --spool"),
    ("spool_lost_total", "counter", "How often that store was found to lack bytes of a finished upload"),
    ("scratch_used_bytes", "gauge", "Bytes of uploads and finals in the scratch of --spool"),
    ("scratch_limit_bytes", "gauge", "Bytes that they may have there: three quarters of --scratch-size"),
    ("catalog_batch_seconds", "histogram", "Time to commit one batch of changes to the catalog"),
    ("catalog_batch_jobs", "histogram", "Jobs in one batch with changes, including reads"),
    # Remotes
    ("remote_up", "gauge", "1 while the remote works, 0 while it counts as down", "remote"),
    ("remote_lag_bytes", "gauge", "Committed bytes that the remote does not have yet", "remote"),
    ("remote_lag_seconds", "gauge", "Age of the oldest finished upload that the remote lacks; 0: none", "remote"),
    ("remote_queued", "gauge", "Uploads that wait in the remote's queue", "remote"),
    ("remote_active", "gauge", "Uploads that are being copied to the remote", "remote"),
    ("remote_replicas", "gauge", "Replicas by state, including parked ones", "remote state"),
    ("remote_parts_total", "counter", "Parts that were sent", "remote"),
    ("remote_bytes_total", "counter", "Bytes that were sent", "remote"),
    ("remote_stored_total", "counter", "Replicas that were stored", "remote"),
    ("remote_removed_total", "counter", "Replicas that were removed with their upload", "remote"),
    ("remote_retries_total", "counter", "Failed attempts that are repeated", "remote"),
    ("remote_failures_total", "counter", "Failures by kind of error", "remote kind"),
    ("remote_parked_total", "counter", "Replicas that were parked since the start", "remote"),
    ("remote_outages_total", "counter", "How often the remote went down", "remote"),
    # Events
    ("outbox_waiting", "gauge", "Events that wait for delivery", "hook"),
    ("outbox_dead", "gauge", "Events that were given up and not yet replayed", "hook"),
    ("outbox_age_seconds", "gauge", "Age of the oldest waiting event; 0: none", "hook"),
    ("hook_calls_total", "counter", "Events sent and questions asked, by outcome", "hook kind outcome"),
    ("hook_duration_seconds", "histogram", "Time until a hook answers or the attempt fails", "hook"),
    # The daemon
    ("tls_expires_seconds", "gauge", "Seconds until the certificate expires; negative after that", "endpoint"),
    ("reactor_delay_seconds", "histogram", "How late the event loop runs due calls"),
    ("log_events_total", "counter", "Warnings and errors in the log, by level and part of the program", "level part"),
    ("info", "gauge", "Always 1; the version is a label", "version"),
)

METRICS: Final[Mapping[str, Metric]] = {
    name: Metric(PREFIX + name, kind, f"{text}.", tuple("".join(labels).split())) for name, kind, text, *labels in _ALL
}
"""By name without `PREFIX`."""

COMMON: Final = frozenset(
    {
        "uploads",
        "spool_free_bytes",
        "spool_used_bytes",
        "spool_reserve_bytes",
        "remote_lag_bytes",
        "remote_lag_seconds",
        "remote_replicas",
        "outbox_waiting",
        "outbox_dead",
        "outbox_age_seconds",
    }
)
"""Names of metrics that are the same whichever worker of a machine is asked: of the catalog, and of the disk."""

WORKERS: Final = Metric(
    f"{PREFIX}workers", "gauge", "Workers of this machine, by whether their metrics are in this answer.", ("state",)
)
"""Only where a machine has several."""
