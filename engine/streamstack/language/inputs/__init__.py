"""What a declared input can be: its types, formats and patterns."""
