"""HTTP as a client: what stores that are spoken to over it share, and hooks with them.

One reason to change: what is imported from here. Knows nothing of any store.
"""
