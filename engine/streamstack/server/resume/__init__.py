"""Resumable streams: logs, readers, the store that processes share, and the requests to them."""
