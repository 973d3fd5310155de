"""What the outside is told of, and asked before something is done."""
