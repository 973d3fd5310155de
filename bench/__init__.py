"""The benchmark: resumable beside other tus servers, in one run on one machine. ``python -m bench --help``."""
