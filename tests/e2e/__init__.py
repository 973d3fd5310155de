"""End to end: a real twistd process, real sockets, real clients."""
