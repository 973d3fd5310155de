"""Where acknowledged bytes are in an object store, and a node has only scratch."""
