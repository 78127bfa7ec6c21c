"""Endpoints that tests of whole servers serve, as YAML, and how many workers they are tested with."""

from __future__ import annotations

from typing import Final

import pytest

#: Tests of a server in one process, and in several.
both: Final = pytest.mark.parametrize("workers", ["1", "2"])

HELLO: Final = """
path: /hello
method: GET
functionStack:
  - stream: Hello
"""
#: Takes a second.
SLOW: Final = """
path: /slow
method: GET
functionStack:
  - repeat:
      times: 20
      do:
        - stream: {content: << loop.index >>, delay: 50ms}
"""
#: Made on the server's own secret.
GUARDED: Final = """
path: /mine
method: GET
authentication: jwt
functionStack: [{stream: << auth.sub >>}]
"""
#: Fifteen megabytes, which are kept.
KEPT: Final = """
path: /kept
method: GET
streaming: {resume: true}
functionStack:
  - repeat:
      times: 150
      do:
        - stream: << 'x' * 100000 >>
"""
