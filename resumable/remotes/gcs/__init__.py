"""Google Cloud Storage. Imports google-auth, so it is loaded only where the scheme is used."""

try:
    import google.auth
    import google.auth.transport.requests  # noqa: F401
except ImportError as missing:
    raise ImportError("google-auth is missing; run: pip install 'resumable-server[gcs]'") from missing

from resumable.remotes.gcs.remote import SCHEME

__all__ = ["SCHEME"]
