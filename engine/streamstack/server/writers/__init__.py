"""Writers: how the chunks of a run look on the wire, one format a file."""
