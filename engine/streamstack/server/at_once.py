"""Requests that are answered where they arrive: nothing in their run waits, so it needs no timer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from streamstack.errors import RunError
from streamstack.runtime.faults import located
from streamstack.runtime.run import Run
from streamstack.server.ending import fail
from streamstack.server.exchange import leave
from streamstack.server.replies import Sent, Whole
from streamstack.server.request import Request
from streamstack.server.request_log import outcome_of
from streamstack.server.served import AtOnce, Served
from streamstack.server.writers.answer import Answer

if TYPE_CHECKING:
    from streamstack.server.service import Service


def answer_at_once(
    service: Service,
    served: Served,
    stack: AtOnce,
    request: Request,
    parameters: Mapping[str, str],
    answer: Answer,
) -> Sent | None:
    """Run a stack in which nothing waits, and answer; None where the request is not wholly here."""
    answer.run = run = Run(
        answer, service.context, request=lambda: served.show(request, parameters)
    )
    outcome = ended = "completed"
    reason: RunError | None = None
    try:
        inputs = served.take(request, parameters)
        if inputs is None:
            return None
        if served.headers is not None:
            answer.headers += served.headers(run, inputs)
        sent = answer.finish(stack(run, inputs))
    except Exception as error:  # noqa: BLE001  (whatever it is, it is told)
        outcome, reason = "failed", located(error)
        ended = outcome_of(reason, answer, None)
        sent = fail(served, run, answer, reason)
    service.ended(served, answer, ended, reason)
    service.after(run, outcome, None)
    if isinstance(sent, Whole):
        sent.leave, sent.answer = partial(leave, service, served, answer), answer
    return sent
