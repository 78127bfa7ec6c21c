"""What many callers meet at once is logged once: no client can fill the log."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from tests.server.authenticating import project

KEPT = """
method: GET
path: /kept
responseType: json
authentication: jwt
functionStack: [{return: 1}]
"""
TOKEN = "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.e30.AAAA"


async def test_keys_that_are_out_of_reach_are_told_once(tmp_path: Path) -> None:
    """However many are kept out: the line is that of the attempt, not of the request."""
    settings = "authentication: {jwt: {type: jwt, algorithms: [RS256], jwksUrl: 'http://127.0.0.1:9/keys'}}"
    with capture_logs() as logged:
        async with project(tmp_path, settings, KEPT) as server:
            for _ in range(20):
                assert (await server.get("/kept", Authorization=TOKEN)).status == 503
    assert [each["event"] for each in logged] == ["keys-not-fetched"]
