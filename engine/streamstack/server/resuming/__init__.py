"""Streams that outlive a connection: kept while they run and for a while after, for readers who come back."""
