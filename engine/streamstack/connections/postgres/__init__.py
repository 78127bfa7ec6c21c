"""PostgreSQL: the databases that a project names, and the one that is embedded where it names none."""
