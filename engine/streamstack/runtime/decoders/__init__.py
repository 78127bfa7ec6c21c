"""Bytes as they arrive -> items: one decoder a format, each the same however its input is cut."""
