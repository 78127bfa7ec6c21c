"""What a definition does on every path through it: names, streams and chunks, followed step by step."""
