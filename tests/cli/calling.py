"""`streamstack call`, as tests run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from streamstack.cli import main

ENGINE = Path(__file__).parent.parent.parent / "engine"


def call(*arguments: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["call", *map(str, arguments)])


def chunks_of(result: Result) -> list[str]:
    """Return what was shown of each chunk, without its time."""
    return re.findall(r"^ *[\d.]+ ms  (.*)$", result.stdout, re.MULTILINE)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Run the command in a process of its own, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", "from streamstack.cli import main; main()", "call", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ENGINE)},
        text=True,
        bufsize=1,
    )
