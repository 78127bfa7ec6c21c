"""Functions of background jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.functions.flow import allowed, find_function
from streamstack.language.definition import Effects, Parameter, Retry, function
from streamstack.language.keys import RETRY
from streamstack.language.kinds import Kind
from streamstack.runtime.jobs import JobOrder, open_jobs
from streamstack.runtime.run import Run
from streamstack.spec import Bound, Constant, Group, ListOf, Named, OneOf

_ID: Final = Parameter("id", Bound(Kind.TEXT), "Id of the job, as `job.start` gives it.", required=True, main=True)
_STATUS: Final = (
    "{id: text, state: text, function: text, attempt: integer, result: any, error: {code: text, message: text}?}?"
)


@function(
    "job.start",
    Parameter("function", Bound(Kind.TEXT), "Name of the function.", required=True, main=True),
    Parameter(
        "with",
        OneOf((Named(Bound()), Bound(Kind.OBJECT))),
        "Inputs by name, or a binding that yields them. They are stored: streams and files can't be passed.",
    ),
    Parameter(
        "oneOf", ListOf(Constant(Kind.TEXT)), "Functions that may be started. Required if `function` is a binding."
    ),
    Parameter(
        "key",
        Bound(),
        "Makes it idempotent: while a job of this function, caller and key waits, runs or is stored, its id is "
        "returned and no other job starts.",
    ),
    Parameter("retry", Group(RETRY), "Run the function again after an error, in the same stream."),
    Parameter(
        "onLost",
        Constant(choices=("restart", "fail")),
        "If the process of the job dies or is shut down: another one starts the function again, or the job fails with "
        "`producer-lost`. Jobs are stored in the Redis of `state.url`; without it they always end with their process.",
        default="restart",
    ),
    effects=Effects(gives="value", result="{id: text}", calls=("function", "oneOf")),
    sees_functions=True,
)
async def job_start(
    run: Run,
    function: str,
    with_: Mapping[str, Any] | None = None,
    one_of: list[str] | None = None,
    key: Any = None,
    retry: Mapping[str, Any] | None = None,
    on_lost: str = "restart",
    functions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Start a function of the project (`kind: function`) in the background, and return its id immediately.

    The job runs independently of the request. The chunks that its function emits are its progress:
    `GET /_streams/{id}` streams them as server-sent events, from any of the chunks on. The event `done` carries what
    the function returns, the event `error` what it failed with. `DELETE /_streams/{id}` cancels the job. If the
    endpoint has `authentication`, only the caller that started the job can read and cancel it.

    An attempt after an error or a lost process starts the function from its beginning, after the event `restarted`.
    """
    if one_of is not None:
        function = allowed(function, tuple(one_of), "job.start")
    policy = None if retry is None else Retry(**{**retry, "on": frozenset(retry.get("on", ()))})
    arguments = with_ or {}
    find_function(functions or {}, function).check(arguments)  # what does not fit fails here, and not in the job
    order = JobOrder(function, arguments, key, policy, on_lost == "restart")
    return {"id": await run.context.resource(open_jobs).start(run, order)}


@function("job.status", _ID, effects=Effects(gives="value", result=_STATUS))
async def job_status(run: Run, id: str) -> dict[str, Any] | None:  # noqa: A002  (what the language calls it)
    """Return the state of a job, null if there is none: its id is unknown, or it ended too long ago.

    `state` is `waiting`, `running`, `completed`, `failed` or `cancelled`; `attempt` counts from 1 and is 0 while the
    job waits. `result` is what the function returned, `error` has the code and the message of a failed or cancelled
    job. Any step can read any job: do not show the jobs of one caller to another.
    """
    return await run.context.resource(open_jobs).status(id)


@function("job.cancel", _ID, effects=Effects(gives="value", result="boolean"))
async def job_cancel(run: Run, id: str) -> bool:  # noqa: A002
    """Cancel a job. Its stream ends with the error `stopped`.

    Returns true if the job was waiting or running, false if it had ended or there is none. If it does not end within a
    few seconds, the step does not wait any longer.
    """
    return await run.context.resource(open_jobs).cancel(id) is not None


FUNCTIONS = (job_start, job_status, job_cancel)
