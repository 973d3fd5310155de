"""The operators' side of HTTP: API, overview, readiness."""
