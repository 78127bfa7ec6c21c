"""The server: from a socket to a run, and from a run's chunks back to the socket."""
