"""The PostgreSQL that a project has without naming one: made, started, watched and stopped."""
