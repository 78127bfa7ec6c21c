"""The endpoint that takes ratings: a definition that no file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.definition import Endpoint, FunctionDefinition, Registry
from streamstack.language.loading.documents import load
from streamstack.language.nodes import Document, build
from streamstack.language.ratings import RATING_PATH, SCALES, Ratings
from streamstack.language.settings import Streaming

#: What the function of the settings is called with, as far as it declares these inputs.
_PASSED: Final = ("run", "endpoint", "rating", "comment", "experiment")
_LIMIT: Final = "60/minute"


def rating_endpoint(
    ratings: Ratings, functions: Mapping[str, FunctionDefinition], registry: Registry
) -> tuple[Endpoint | None, list[Diagnostic]]:
    """Return the endpoint that takes ratings. Its places are that of the section in the settings.

    The server looks the run up before the stack runs, and adds its `endpoint` and `experiment` to the inputs.
    """
    mark = ratings.mark or Mark("streamstack.yaml", 1, 1)
    known = {"that": "<< input.endpoint is defined >>", "code": "not-found", "status": 404}
    steps: list[Any] = [{"precondition": known}]
    if ratings.function is not None:
        function = functions.get(ratings.function)
        declared = {each.name for each in function.inputs} if function is not None else set()
        passed = {name: f"<< input.{name} >>" for name in _PASSED if name in declared}
        steps += [{"call": {"function": ratings.function, "with": passed}}]
    document = {
        "method": "POST",
        "path": "/rating/{run}",  # documents can't declare the paths of the server
        "summary": "Rate a run",
        "description": "The header `X-Run-Id` of a response has the id of its run. A later rating replaces the first.",
        "responseType": "json",
        "rateLimit": {"limit": _LIMIT, "by": "ip"},
        "inputParameters": {
            "run": {"type": "text", "description": "Id of the run"},
            "rating": {"required": True, **SCALES[ratings.scale]},
            "comment": {"type": "text", "default": "", "maxLength": 2000, "description": "Comment of the client"},
        },
        "functionStack": [*steps, {"return": {"run": "<< input.run >>", "rating": "<< input.rating >>"}}],
    }
    endpoint, found = load(Document(mark.file, build(document, mark), 0), registry, Streaming())
    return (replace(endpoint, path=RATING_PATH), found) if isinstance(endpoint, Endpoint) else (None, found)
