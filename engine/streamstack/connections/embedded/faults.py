"""What goes wrong with the embedded PostgreSQL."""

from __future__ import annotations


class EmbeddedError(Exception):
    """The embedded PostgreSQL can't run. The message tells the author what to do."""
