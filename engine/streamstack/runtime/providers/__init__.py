"""The LLM providers: each translates requests into its API's protocol, and responses into our items.

A new provider is a module of this package with a `PROVIDER`, and its name in `PROVIDERS` of the settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Final

from streamstack.language.settings import PROVIDERS as NAMES
from streamstack.runtime.providers.provider import Provider


def _load(name: str) -> Provider:
    """Return the provider of a name: `openaiResponses` is declared in `openai_responses.py`."""
    module = re.sub("(?=[A-Z])", "_", name).lower()
    provider: Provider = import_module(f"{__name__}.{module}").PROVIDER
    return provider


#: Every provider by its name in the language.
PROVIDERS: Final[Mapping[str, Provider]] = {name: _load(name) for name in NAMES}
