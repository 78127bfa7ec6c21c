"""The keys of each kind of document, with what the reference and the editor say of them."""

from __future__ import annotations

from typing import Final

KEYS: Final = {
    "endpoint": {
        "kind": "What the document declares; `endpoint` where it is left out.",
        "method": "The HTTP method it answers.",
        "path": "The path it answers, with parameters as {name}: /api/orders/{id}.",
        "summary": "What it does, in a line.",
        "description": "What it does, at length.",
        "tags": "Words it is found by.",
        "responseType": "`streaming` sends chunks as they are made; `json` answers with one value.",
        "streaming": "How the stream lives: format, heartbeat, limits; see the settings.",
        "authentication": "Who may call it: names under `authentication` in the settings, any of them; else everybody.",
        "rateLimit": "How often a caller may call it (60/minute), how many runs may be under way; or a list of such.",
        "headers": "Headers of the response, beside the writer's own.",
        "cache": "How long an answer is kept.",
        "inputParameters": "What a caller sends, by name.",
        "unknownInputs": "Whether undeclared body properties are refused or ignored.",
        "functionStack": "The steps that run for each request.",
        "response": "What a json endpoint answers; without it, the value of `return`.",
        "disabled": "true: it is not served, and still validated.",
        "allow": "Codes of findings that are silenced in this document.",
    },
    "function": {
        "kind": "What the document declares.",
        "name": "What `call` calls it.",
        "summary": "What it does, in a line.",
        "description": "What it does, at length.",
        "inputParameters": "What `with` hands over, by name.",
        "functionStack": "The steps that run for each call.",
        "disabled": "true: it can't be called, and is still validated.",
        "allow": "Codes of findings that are silenced in this document.",
    },
    "task": {
        "kind": "What the document declares.",
        "name": "What the log and the metrics call it.",
        "summary": "What it does, in a line.",
        "description": "What it does, at length.",
        "schedule": 'When it runs: `every: 5s`, or `cron: "0 * * * *"` with `timezone`.',
        "functionStack": "The steps of each run.",
        "disabled": "true: it does not run, and is still validated.",
        "allow": "Codes of findings that are silenced in this document.",
    },
}

RESPONSE_TYPES: Final = ("streaming", "json")
UNKNOWN_INPUTS: Final = ("refuse", "ignore")
