"""An upload server that never makes a person start over: tus 1.0 on Twisted."""

__version__ = "0.1.0"
