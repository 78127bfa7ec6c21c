"""The commands of `streamstack`, one a file."""
