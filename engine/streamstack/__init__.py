"""streamstack: HTTP endpoints that stream, declared in YAML."""

__version__ = "0.1.0"
