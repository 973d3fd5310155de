"""Where the daemon listens: endpoints and the ports bound to them."""
