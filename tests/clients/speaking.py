"""The definitions beside this file, or others, served as `serve` does it, for the SDKs to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from streamstack.server.app import serving_locally

CLIENTS = Path(__file__).parent


@contextmanager
def speaking(
    definitions: Path = CLIENTS / "definitions", environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Serve definitions and give the address, without a slash at its end."""
    known = environment or {}
    checked = read_project(definitions, REGISTRY, known, check_environment=True)
    assert checked.findings == []
    with serving_locally(checked, known, dev=False) as address:
        yield address
