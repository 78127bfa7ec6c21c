"""Figures of the server: what all its processes count, and how they are told."""
