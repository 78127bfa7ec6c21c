"""The formats of responses: a spec and an encoder each, one format a file. A new one is a line in FORMATS."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from streamstack.formats.ai_sdk import AI_SDK
from streamstack.formats.anthropic import ANTHROPIC
from streamstack.formats.openai import OPENAI
from streamstack.formats.plain import BYTES, CSV, JSON, JSONL, NDJSON, TEXT
from streamstack.formats.spec import Format
from streamstack.formats.sse import SSE
from streamstack.formats.websocket import WEBSOCKET

#: The formats there are, in the order in which they are listed.
FORMATS: Final[tuple[Format, ...]] = (SSE, TEXT, NDJSON, JSONL, CSV, JSON, BYTES, WEBSOCKET, OPENAI, ANTHROPIC, AI_SDK)

BY_NAME: Final = MappingProxyType({each.name: each for each in FORMATS})

#: What `streaming.format` takes.
NAMES: Final = ("auto", *(each.name for each in FORMATS if not each.alias_of))
#: The dialects of model providers.
DIALECTS: Final = tuple(each.name for each in FORMATS if each.dialect)

#: What an Accept header can name, and the format that answers it. A wildcard takes the first that fits: those that
#: can be resumed come first.
BY_MEDIA_TYPE: Final = MappingProxyType(
    {
        media_type: each
        for each in sorted(FORMATS, key=lambda each: not each.resumable)
        for media_type in each.media_types
    }
)
