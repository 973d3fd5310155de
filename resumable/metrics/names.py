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
    ("requests_total", "counter", "Requests that have ended, by method and class of status, or lost", "method status"),
    ("request_duration_seconds", "histogram", "From a request's head to the end of its answer", "method"),
    ("received_bytes_total", "counter", "Bytes that clients have sent, heads of requests included"),
    ("connections", "gauge", "Connections of clients that are open"),
    ("cut_off_total", "counter", "Connections, and answers of HTTP/2, that were ended early by the server", "reason"),
    # Uploads
    ("uploads_created_total", "counter", "Uploads that were made"),
    ("uploads_finished_total", "counter", "Uploads that have got their last byte"),
    ("uploads_placed_total", "counter", "Finished uploads whose files have got their places (--place)"),
    ("placing_failures_total", "counter", "Attempts to place a finished file that have failed"),
    ("uploads_stored_total", "counter", "Uploads that every required remote has got"),
    ("uploads_gone_total", "counter", "Uploads that were terminated, have expired or were lost", "reason"),
    ("uploads", "gauge", "Uploads by state; gone are those that are still remembered", "state"),
    ("appends", "gauge", "Requests that hold an upload at the moment"),
    ("holds_taken_over_total", "counter", "Holds that newer requests have taken from silent ones"),
    # The local tier
    ("spool_free_bytes", "gauge", "Bytes that may still be written to the upload directory's disk"),
    ("spool_used_bytes", "gauge", "Bytes of that disk that are in use, whoever uses them"),
    ("spool_reserve_bytes", "gauge", "Free bytes below which uploads are refused (--reserve)"),
    ("spool_queued_bytes", "gauge", "Bytes in memory that wait to be written"),
    ("catalog_batch_seconds", "histogram", "Time to make one batch of changes durable in the catalog"),
    ("catalog_batch_jobs", "histogram", "Jobs in one batch with changes, reads included"),
    # Remotes
    ("remote_up", "gauge", "1 while the remote works, 0 while it counts as down", "remote"),
    ("remote_lag_bytes", "gauge", "Committed bytes that the remote lacks", "remote"),
    ("remote_lag_seconds", "gauge", "Age of the oldest finished upload that the remote lacks; 0: none", "remote"),
    ("remote_queued", "gauge", "Uploads known to wait for their turn", "remote"),
    ("remote_active", "gauge", "Uploads that are being sent on", "remote"),
    ("remote_replicas", "gauge", "Replicas by state, parked ones included", "remote state"),
    ("remote_parts_total", "counter", "Parts that were sent", "remote"),
    ("remote_bytes_total", "counter", "Bytes that were sent", "remote"),
    ("remote_stored_total", "counter", "Replicas that were finalised", "remote"),
    ("remote_removed_total", "counter", "Replicas that were removed with their upload", "remote"),
    ("remote_retries_total", "counter", "Attempts that have failed and are made again", "remote"),
    ("remote_failures_total", "counter", "Failures by the kind of error", "remote kind"),
    ("remote_parked_total", "counter", "Replicas that were given up since the start", "remote"),
    ("remote_outages_total", "counter", "How often the remote has gone down", "remote"),
    # Events
    ("outbox_waiting", "gauge", "Events that wait to be delivered", "hook"),
    ("outbox_dead", "gauge", "Events that were given up, until they are replayed", "hook"),
    ("outbox_age_seconds", "gauge", "Age of the oldest event that waits; 0: none", "hook"),
    ("hook_calls_total", "counter", "Events told and questions asked, by what came of them", "hook kind outcome"),
    ("hook_duration_seconds", "histogram", "Time until a hook has answered, or was given up", "hook"),
    # The daemon
    ("tls_expires_seconds", "gauge", "Seconds until the certificate ends; below 0: since it has", "endpoint"),
    ("reactor_delay_seconds", "histogram", "How late the event loop comes to what is due"),
    ("log_events_total", "counter", "Warnings and worse in the log, by level and part of the program", "level part"),
    ("info", "gauge", "Always 1; the version is a label", "version"),
)

METRICS: Final[Mapping[str, Metric]] = {
    name: Metric(PREFIX + name, kind, f"{text}.", tuple("".join(labels).split())) for name, kind, text, *labels in _ALL
}
"""By name without `PREFIX`."""
