"""The providers of models: what is asked of each in its own words, and what its answer says in ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamstack.runtime.providers.anthropic import ANTHROPIC
from streamstack.runtime.providers.gemini import GEMINI
from streamstack.runtime.providers.openai import OPENAI
from streamstack.runtime.providers.openai_responses import OPENAI_RESPONSES
from streamstack.runtime.providers.provider import Provider

#: Every provider by its name in the language.
PROVIDERS: Final[Mapping[str, Provider]] = {
    each.name: each for each in (OPENAI, OPENAI_RESPONSES, ANTHROPIC, GEMINI)
}
