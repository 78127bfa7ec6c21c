"""Whether the authentications that endpoints name are in the settings, and whether `auth` can be anything but null."""

from __future__ import annotations

from collections.abc import Collection

from streamstack.errors import Diagnostic
from streamstack.language.definition import Endpoint
from streamstack.language.findings import find
from streamstack.language.suggest import nearest
from streamstack.language.walk import all_values


def check_authentication(endpoint: Endpoint, known: Collection[str] | None) -> list[Diagnostic]:
    """Report names that the settings lack, and `auth` where nobody has to say who he is.

    ``known`` are the names that the settings have; None where that is not known.
    """
    if endpoint.authentication is None:
        return [
            find(
                "auth-without-authentication",
                read.mark,
                f"`auth` is always null in {endpoint.title}, which takes every caller",
            )
            for value in all_values(endpoint)
            for read in value.reads
            if read.name == "auth"
        ]
    found = []
    for way in endpoint.authentication.ways:
        if known is None or way.name in known:
            continue
        near = nearest(way.name, known)
        found.append(
            find(
                "unknown-authentication",
                way.mark,
                f"the settings have no authentication `{way.name}`",
                f"did you mean `{near}`?" if near else None,
            )
        )
    return found
