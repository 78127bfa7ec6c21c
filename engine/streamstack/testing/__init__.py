"""Tests of definitions: their upstreams, their clients, their clock, and what is expected of them."""
