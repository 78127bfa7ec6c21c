"""Signed tokens (JWT, RFC 7519): the keys, what is checked of a token, how one is made."""
