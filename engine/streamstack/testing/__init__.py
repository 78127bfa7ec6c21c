"""Runs the tests of definitions: upstreams, clients, expectations and faults."""
