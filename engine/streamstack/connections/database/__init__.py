"""Databases: the interface that functions use, PostgreSQL behind it, and the embedded server."""
