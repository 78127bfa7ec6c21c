"""The language: from YAML text to a definition and its findings. Knows nothing of how it runs."""
