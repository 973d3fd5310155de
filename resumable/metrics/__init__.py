"""Metrics for Prometheus: their names, where each is read, and the meters of those that nothing else counts."""
