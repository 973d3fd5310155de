"""Access: authorizers, the guard that http asks about each request, quotas and rates."""
