"""OpenAPI documents of a project: made of its definitions, and compared with earlier ones."""
