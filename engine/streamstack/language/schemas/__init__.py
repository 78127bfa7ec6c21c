"""The JSON Schemas that editors read, made from the declarations."""
