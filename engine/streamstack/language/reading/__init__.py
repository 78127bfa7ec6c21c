"""YAML text to documents of marked nodes, and the traps of YAML as findings."""
