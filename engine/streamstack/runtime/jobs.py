"""What steps need of the jobs of a process; the server runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from streamstack.errors import RunError

if TYPE_CHECKING:
    from streamstack.language.definition import Retry
    from streamstack.runtime.run import Context, Run


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A job that is to be started: a function of the project, and its inputs, which were checked.

    ``key`` is the author's, None without one. ``restarts``: it runs again when its process was lost.
    """

    function: str
    arguments: Mapping[str, Any]
    key: Any = None
    retry: Retry | None = None
    restarts: bool = True


class Jobs(Protocol):
    """The jobs of a process."""

    async def start(self, run: Run, order: JobOrder) -> str:
        """Start a job for a run; return its id, or that of the job that its key has started.

        Raises RunError ``unavailable``, ``template``, ``limit-reached`` and ``state-unreachable``.
        """

    async def status(self, name: str) -> dict[str, Any] | None:
        """Return the state of a job; None where there is none. Raises RunError ``state-unreachable``."""

    async def cancel(self, name: str) -> bool | None:
        """Stop a job; return whether it has ended, None where there is none that could be stopped.

        Raises RunError ``state-unreachable``.
        """

    async def aclose(self) -> None:
        """Do nothing: the server ends its jobs itself."""


def open_jobs(context: Context) -> Jobs:
    """Return the jobs of a process, which its server provides. Raises RunError ``template`` without a server."""
    raise RunError("template", "jobs run in a server, and this step does not", final=True)
