"""The remote tier: one module for each kind of store. Knows stores and parts, neither tus nor the catalog."""
