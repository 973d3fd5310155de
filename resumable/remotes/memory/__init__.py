"""``memory://``: a store in this process, for tests."""
