"""The runtime: from a definition to a plan, from a plan and its inputs to chunks."""
