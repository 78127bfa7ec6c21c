"""The function that sends webhooks."""

from __future__ import annotations

import asyncio
import hmac
import random
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import structlog
from multidict import CIMultiDict

from streamstack import clock
from streamstack.connections.http import TRANSIENT_STATUSES, UpstreamRequest, loggable, parse_url
from streamstack.errors import RunError
from streamstack.functions.http_upstream import HEADERS_PARAMETER, is_allowed, make_headers, open_http, status_error
from streamstack.language.definition import Effects, Example, Parameter, function
from streamstack.language.kinds import Kind
from streamstack.language.values import to_json
from streamstack.runtime.run import Run
from streamstack.spec import Bound, Group

log = structlog.get_logger("streamstack.run")

#: Statuses that another attempt may change: the transient ones of HTTP, and any fault of the server.
_NEVER_MENDED: Final = frozenset({501, 505, 511})
_MENDABLE: Final = frozenset({"http-connection", "http-status", "timeout"})
_ID: Final = re.compile(r"[!-~]{1,256}")
#: Before a shared secret of https://www.standardwebhooks.com.
_PREFIX: Final = "whsec_"
_TIMEOUT: Final = 30.0
_TIMES, _DELAY, _MAX_DELAY = 3, 1.0, 30.0


def standard_key(secret: str) -> bytes:
    """Return the key of a secret of Standard Webhooks: Base64, with or without its prefix.

    Raises RunError ``template``.
    """
    text = secret.strip().removeprefix(_PREFIX)
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        message = "`secret` must be Base64, as in whsec_...: make one with `openssl rand -base64 32`"
        raise RunError("template", message, final=True)
    return key


def standard_signature(key: bytes, identifier: str, timestamp: str, content: bytes) -> str:
    """Return the signature of a message, as Standard Webhooks defines it."""
    signed = b"%b.%b.%b" % (identifier.encode(), timestamp.encode(), content)
    return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()


@function(
    "webhook.send",
    Parameter(
        "url",
        Bound(Kind.URL),
        "URL of the receiver: http:// or https://. A path alone is a path of this server.",
        required=True,
        main=True,
    ),
    Parameter("content", Bound(), "What is sent, as JSON; a text or bytes unchanged, if there is no `event`."),
    Parameter(
        "event", Bound(Kind.TEXT), "Name of the event. The body is then {type, timestamp, data}, with it as `type`."
    ),
    Parameter(
        "secret",
        Bound(Kind.TEXT),
        "Secret that the message is signed with: Base64, which may begin with `whsec_`. Without it, it is not signed.",
    ),
    Parameter("id", Bound(Kind.TEXT), "Id of the message, for receivers that skip duplicates. Default: a random one."),
    HEADERS_PARAMETER,
    Parameter("timeout", Bound(Kind.DURATION), "Time-out for each attempt.", default=_TIMEOUT),
    Parameter(
        "retry",
        Group(
            (
                Parameter(
                    "times", Bound(Kind.INTEGER, minimum=0, maximum=20), "Maximum number of retries.", default=_TIMES
                ),
                Parameter(
                    "delay",
                    Bound(Kind.DURATION, minimum=0),
                    "Delay before the first retry; it doubles.",
                    default=_DELAY,
                ),
                Parameter("maxDelay", Bound(Kind.DURATION, minimum=0), "Maximum delay.", default=_MAX_DELAY),
            )
        ),
        "How often, and after which delays, it is sent again.",
    ),
    effects=Effects(gives="value", result="{status: integer, attempts: integer, id: text}"),
    examples=[
        Example(
            "send a signed event",
            "- webhook.send:\n    url: https://api.example.org/people\n    event: person.created\n"
            "    content: {name: Grace}\n"
            '    secret: << env.WEBHOOK_SECRET | default("whsec_ZXhhbXBsZQ==") >>\n  as: webhook\n'
            "- return: << [webhook.status, webhook.attempts] >>",
            result=[201, 1],
        ),
        Example(
            "a receiver that is gone",
            "- webhook.send: {url: https://api.example.org/gone, content: {id: 7}, retry: {times: 0}}",
            fails="http-status",
        ),
    ],
)
async def webhook_send(  # noqa: PLR0913  (a webhook has that many parts)
    run: Run,
    *,
    url: str,
    content: Any = None,
    event: str | None = None,
    secret: str | None = None,
    id: str | None = None,  # noqa: A002
    headers: Mapping[str, Any] | None = None,
    timeout: float = _TIMEOUT,
    retry: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Send a webhook as Standard Webhooks defines it, and send it again while the receiver fails.

    It is a POST request with the headers `webhook-id`, `webhook-timestamp` and, with a `secret`, `webhook-signature`.
    Receivers verify it with a library of https://www.standardwebhooks.com, or in streamstack with
    `hmac.verify: {scheme: standardWebhooks}`.

    A failed connection, a time-out, and the statuses 408, 409, 425, 429 and 5xx (without 501, 505 and 511) are retried,
    no sooner than the response's `Retry-After`, and with the same `webhook-id`: a receiver that has processed the id
    before skips it. If `Retry-After` is longer than `maxDelay`, the step fails at once. Any other status from 300 up
    fails at once; redirects are not followed. The result is {status, attempts, id}.

    The step fails with the last error: `http-connection`, `timeout`, or `http-status` with {status, headers, body} in
    `error.details`. The network rules of the settings (`http.allowHosts`, `http.denyPrivateNetworks`) apply.
    """
    identifier = id or f"msg_{uuid4().hex}"
    if not _ID.fullmatch(identifier):
        raise RunError("template", "`id` must be a text of ASCII without spaces", final=True, parameter="id")
    body, media = _body(content, event)
    sent = make_headers(headers)
    sent.setdefault("Content-Type", media)
    sent.setdefault("Accept", "*/*")
    if secret == "":
        raise RunError("template", "`secret` is empty: anybody could sign", final=True)
    key = None if secret is None else standard_key(secret)
    target = parse_url(run.context.address.of(url))
    request = UpstreamRequest("POST", target, sent, body, redirects=0)
    rules = {"times": _TIMES, "delay": _DELAY, "max_delay": _MAX_DELAY} | dict(retry or {})
    attempt = 0
    while True:
        attempt += 1
        try:
            status = await _send(run, _signed(request, identifier, key, body), timeout)
        except RunError as error:
            error.about |= {"url": loggable(target), "attempts": attempt, "webhook": identifier}
            wait = _pause(error, attempt, rules)
            if wait is None:
                error.final = True  # a retry of the step would send it with another id
                raise
            log.info("retry", run=run.id, code=error.code, attempt=attempt, webhook=identifier)
            await asyncio.sleep(wait)
        else:
            return {"status": status, "attempts": attempt, "id": identifier}


def _body(content: Any, event: str | None) -> tuple[bytes, str]:
    if event is not None:
        now = clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return to_json({"type": event, "timestamp": now, "data": content}), "application/json"
    if isinstance(content, bytes):
        return content, "application/octet-stream"
    if isinstance(content, str):
        return content.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    return to_json(content), "application/json"


def _signed(request: UpstreamRequest, identifier: str, key: bytes | None, body: bytes) -> UpstreamRequest:
    """Return the request of one attempt, with its own time."""
    headers: CIMultiDict[str] = request.headers.copy()
    timestamp = str(int(clock.time()))
    headers["webhook-id"], headers["webhook-timestamp"] = identifier, timestamp
    if key is not None:
        headers["webhook-signature"] = standard_signature(key, identifier, timestamp, body)
    return UpstreamRequest("POST", request.url, headers, body, redirects=0)


async def _send(run: Run, request: UpstreamRequest, timeout: float) -> int:
    try:
        async with asyncio.timeout(timeout or None):
            answer = await run.context.resource(open_http).send(request)
            try:
                if not is_allowed(answer.status, None, 300):
                    raise await status_error(answer)
                return answer.status
            finally:
                answer.close()
    except TimeoutError:
        raise RunError("timeout", f"{request.url.host} took longer than {timeout:g} s to answer") from None


def _pause(error: RunError, attempt: int, rules: Mapping[str, Any]) -> float | None:
    """Return the seconds before the next attempt; None if there is none."""
    status = error.details.get("status") if isinstance(error.details, dict) else None
    transient = status in TRANSIENT_STATUSES or (status is not None and status >= 500 and status not in _NEVER_MENDED)
    mendable = transient if error.code == "http-status" else not error.final
    if error.code not in _MENDABLE or not mendable or attempt > rules["times"]:
        return None
    wait = float(min(rules["delay"] * 2 ** min(attempt - 1, 30), rules["max_delay"]))
    wait *= 1 if clock.exact else random.uniform(0.5, 1)  # noqa: S311  (no secret)
    if error.retry_after is None:
        return wait
    return None if error.retry_after > rules["max_delay"] else max(wait, error.retry_after)


FUNCTIONS = (webhook_send,)
