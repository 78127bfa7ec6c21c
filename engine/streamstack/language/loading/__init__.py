"""Documents to definitions: the shape of every key, and every fault with its place."""
