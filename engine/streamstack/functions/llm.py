"""The Models family: streaming responses of large language models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from yarl import URL

from streamstack import clock
from streamstack.connections.http import TRANSIENT_STATUSES, UpstreamRequest, describe_status, parse_url
from streamstack.errors import RunError
from streamstack.formats.items import FIGURES, ITEMS
from streamstack.functions.content import COUNTS, MAX_EVENT_SIZE
from streamstack.functions.http_upstream import (
    StreamTimeouts,
    Upstream,
    content_error,
    headers_of,
    make_headers,
    open_http,
    read_retry_after,
    status_error,
)
from streamstack.language.definition import Configured, Effects, Example, Parameter, Property, function
from streamstack.language.kinds import Kind
from streamstack.language.names import did_you_mean
from streamstack.language.schema import Definitions, Schema, inputs_schema
from streamstack.language.settings import PROVIDERS as NAMES
from streamstack.language.settings import SIMULATOR, Simulation
from streamstack.language.values import to_json
from streamstack.runtime.decoders import read_content_type
from streamstack.runtime.decoders.decoder import OnInvalid
from streamstack.runtime.providers import PROVIDERS
from streamstack.runtime.providers.conversation import load_attachments, read_messages, read_system
from streamstack.runtime.providers.provider import (
    AnswerDecoder,
    AnswerReader,
    Chat,
    Provider,
    Reply,
    Tool,
    merge,
    reported_error,
)
from streamstack.runtime.providers.simulator import answer, read_options
from streamstack.runtime.run import Run
from streamstack.runtime.values import Stream
from streamstack.spec import Bound, Constant, ListOf, OneOf

if TYPE_CHECKING:
    from streamstack.connections.http_client import HttpClient, UpstreamResponse

#: Media types that can't be a stream of events, and so are an error in disguise.
_CONTRADICTIONS: Final = frozenset({"text/html", "application/json", "application/problem+json"})
#: Seconds that the end of the body has after the end marker, so that the connection can be used again.
_LAST_BYTES: Final = 0.005
#: Seconds that details of an answer have after its finish reason. Gemini gives one midway, where it runs a tool itself.
_GRACE: Final = 30.0


class SimulatedStream(Upstream):
    """One answer of the simulator."""

    function = "llm.chat"

    def __init__(
        self, run: Run, chat: Chat, options: Simulation, times: StreamTimeouts, *, largest: int, only: str | None
    ) -> None:
        super().__init__(run, URL.build(host=SIMULATOR), times, None, model=chat.model)
        self.status: int | None = None
        self.headers: dict[str, Any] | None = None
        self.skipped: int | None = None
        self._options = options
        self._only = only
        self._reply = Reply(SIMULATOR, largest)
        self._answer = answer(chat, options, self._reply)

    @property
    def message(self) -> dict[str, Any] | None:
        """What has come so far; None before the stream opens."""
        return self._reply.view if self.status is not None else None

    async def open(self) -> None:
        self.status, self.headers, self.skipped = self._options.status or 200, {}, 0
        if self._options.status is not None:
            await asyncio.sleep(self._options.first_after)
            raise RunError(
                "http-status",
                f"{SIMULATOR} answered {describe_status(self.status)}",
                details={"status": self.status, "headers": {}, "body": None},
                final=self.status not in TRANSIENT_STATUSES,
            )

    async def items(self) -> list[Any] | None:
        items = await anext(self._answer, None)
        self.run.begin_slice()
        if items is None or self._only is None:
            return items
        return [item for item in items if item["type"] == self._only]

    def goes_on(self) -> bool:
        return False

    async def close(self) -> None:
        await self._answer.aclose()


class ModelStream(Upstream):
    """One answer of a model."""

    function = "llm.chat"

    def __init__(  # noqa: PLR0913  (an answer has that many sides)
        self,
        run: Run,
        client: HttpClient,
        provider: Provider,
        chat: Chat,
        request: UpstreamRequest,
        options: tuple[Mapping[str, Any], ...],
        times: StreamTimeouts,
        *,
        on_invalid: OnInvalid,
        largest: int,
        only: str | None,
    ) -> None:
        super().__init__(run, request.url, times, None, model=chat.model)
        self.status: int | None = None
        self.headers: dict[str, Any] | None = None
        self._client = client
        self._provider = provider
        self._chat = chat
        self._request = request
        self._options = options
        self._only = only
        self._on_invalid = on_invalid
        self._largest = largest
        self._answer: UpstreamResponse | None = None
        self._decoder: AnswerDecoder | None = None
        self._reader: AnswerReader | None = None

    @property
    def message(self) -> dict[str, Any] | None:
        """What has come so far; None before the stream opens."""
        return self._reader.reply.view if self._reader is not None else None

    @property
    def skipped(self) -> int | None:
        """How many events were skipped; None before the stream opens."""
        return self._decoder.skipped if self._decoder is not None else None

    async def open(self) -> None:
        self._reader = self._provider.reader(self.host, self._client.settings.max_body_size)
        self._decoder = AnswerDecoder(self._reader, self._on_invalid, self._largest)
        body = await self._make_body()
        self._reader.begin(body)
        answer = self._answer = await self._client.send(replace(self._request, body=to_json(body)))
        self.status, self.headers = answer.status, headers_of(answer)
        if not 200 <= answer.status < 300:
            error = await status_error(answer)
            if answer.status > 500:  # 529 is Anthropic's, 52x are those of the proxies before it
                error.final, error.retry_after = False, read_retry_after(answer)
            raise error
        media, _ = read_content_type(answer.headers.get("Content-Type"))
        if media in _CONTRADICTIONS:
            error = await content_error(answer, media, "a stream of events")
            raise self._refined(error) or error

    async def _make_body(self) -> Mapping[str, Any]:
        turns = await load_attachments(self._chat.turns, self._client.settings.max_body_size)
        return reduce(merge, self._options, self._provider.body(replace(self._chat, turns=turns)))

    def _refined(self, error: RunError) -> RunError | None:
        """Return the provider's error that came as JSON where a stream was asked for, None where it is none."""
        body = error.details.get("body")
        about = body[0] if isinstance(body, list) and body else body
        if not isinstance(about, Mapping) or not about.get("error"):
            return None
        return self._detailed(reported_error(self.host, about, about["error"]))

    def _detailed(self, error: RunError) -> RunError:
        if error.code == "http-status":
            error.details = {"status": self.status, "headers": self.headers, **error.details}
        return error

    async def items(self) -> list[Any] | None:
        assert self._answer is not None
        assert self._decoder is not None
        assert self._reader is not None
        decoder, reader = self._decoder, self._reader
        while True:
            if decoder.failure is not None:
                raise self._detailed(decoder.failure)
            if reader.ended:
                await self._read_end(self._answer)
                return None
            decoder.alive = False
            data = await _read(self._answer, reader)
            if self._answer.waited:
                self.run.begin_slice()
            items = _decode(data, decoder, reader)
            if self._only is not None:
                items = [item for item in items if item["type"] == self._only]
            if items or decoder.alive:  # the model is at work, though it says nothing
                return items

    async def _read_end(self, answer: UpstreamResponse) -> None:
        """Read what is left where it is there already: a connection read to its end can be used again."""
        due = clock.perf_counter() + _LAST_BYTES
        with suppress(TimeoutError, RunError):
            async with asyncio.timeout(_LAST_BYTES):
                while clock.perf_counter() < due and await answer.read():
                    pass

    def goes_on(self) -> bool:
        return False

    async def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()


async def _read(answer: UpstreamResponse, reader: AnswerReader) -> bytes:
    """Return what comes next, nothing at the end.

    Once the model has said why it ended, the answer is complete: a server that sends no end marker and leaves the
    connection open has ended it too.
    """
    if reader.said is None:
        return await answer.read()
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            return await answer.read()
    return b""


def _decode(data: bytes, decoder: AnswerDecoder, reader: AnswerReader) -> list[Any]:
    """Return the items of what came; of nothing, those of the end."""
    items = decoder.feed(data) if data else decoder.finish()
    if decoder.failure is None and not reader.ended and (decoder.ended or not data):
        try:
            reader.close(items, marked=decoder.ended)
        except RunError as error:
            decoder.failure = error
    return items


#: How many redirects are followed. The key never goes to another host.
_REDIRECTS: Final = 3


#: The shapes of an item and of `message`. Which fields an item has depends on its type.
_COUNTS: Final = ", ".join(f"{name}: integer~" for name in FIGURES)
_ITEM: Final = (
    "{type: text, text: text, id: text~, name: text~, arguments: any~, index: integer~, signature: text~, "
    f"redacted: text~, {_COUNTS}, reason: text~, providerReason: text~}}"
)
_MESSAGE: Final = (
    "{role: text, content: text, reasoning: text~, finishReason: text~, providerState: object~, "
    f"toolCalls: [{{id: text, name: text, arguments: any, signature: text~}}], usage: {{{_COUNTS}}}~}}"
)


def _no_messages(messages: Any) -> tuple[str, str] | None:
    """Return why constant messages are not a conversation; None if they are one."""
    try:
        read_messages(messages)
    except RunError as error:
        return "a valid conversation", error.message
    return None


def _no_system(system: Any) -> tuple[str, str] | None:
    """Return why a constant is not a system prompt; None if it is one."""
    try:
        read_system(system)
    except RunError as error:
        return "a text", error.message
    return None


def _no_options(options: Any) -> tuple[str, str] | None:
    """Return why options can't be sent; None if they can: a stream is one answer."""
    settings = options.get("generationConfig")
    several = [options.get("n"), settings.get("candidateCount") if isinstance(settings, Mapping) else None]
    if any(isinstance(count, (int, float)) and count > 1 for count in several):
        return "options for one response", "call `llm.chat` once for each answer, in branches of `parallel`"
    if options.get("stream") is False:
        return ("options for a stream", "remove `stream`; `collect: {in: << reply >>, into: text}` waits for all of it")
    return None


@function(
    "llm.chat",
    Parameter(
        "provider",
        Bound(Kind.TEXT, choices=(*NAMES, SIMULATOR)),
        "The provider's API protocol: `openai` for OpenAI and compatible servers, `openaiResponses`, "
        "`anthropic`, `gemini`; `simulator` answers without a key and without a network. Without it, `model` is a "
        "name under `models:` of the settings.",
    ),
    Parameter(
        "model",
        Bound(Kind.TEXT),
        "The provider's name of the model; without `provider`, a name under `models:`.",
        required=True,
    ),
    Parameter(
        "messages",
        Bound(refuses=_no_messages),
        "Conversation: a list of {role: user | assistant | tool | system, content}, or a single user message as "
        "text. The `message` of an earlier response can be used unchanged, and {role: tool, toolCallId, content} "
        "for the result of a tool. Content is a text, or a list of {type: text, text} and {type: image | document, "
        "url | from | data, contentType}; `from` is an uploaded file; a document is a PDF or a text. Messages in the "
        "form of OpenAI, Anthropic and the AI SDK (`parts`) are accepted for every provider.",
        required=True,
    ),
    Parameter(
        "system",
        Bound(refuses=_no_system),
        "System prompt: a text, or the list of text blocks that a client of Anthropic's API sends.",
    ),
    Parameter(
        "tools",
        OneOf((ListOf(Bound()), Bound(Kind.LIST))),
        "Tools that the model may call: names of the project's functions, whose inputs are sent as the schema, "
        "or {name, description, parameters} with a JSON Schema. The forms of OpenAI and Anthropic are accepted.",
    ),
    Parameter("maxTokens", Bound(Kind.INTEGER, minimum=1), "Maximum number of tokens in the response."),
    Parameter("temperature", Bound(Kind.NUMBER, minimum=0, maximum=2), "Sampling temperature."),
    Parameter(
        "baseUrl",
        Bound(Kind.URL),
        "Base URL, the part before `/chat/completions`, `/responses`, `/v1/messages` or `/v1beta/models`. A path "
        "alone is a path of this server. Default: OPENAI_BASE_URL, ANTHROPIC_BASE_URL or GEMINI_BASE_URL, or the "
        "provider's URL. The API key is sent to this URL: never use a URL from a client.",
    ),
    Parameter(
        "apiKey",
        Bound(Kind.TEXT),
        "API key. Default: the key under `models:`, or OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY.",
    ),
    Parameter(
        "only",
        Constant(choices=ITEMS),
        "Type of the items to return, such as `text`; the others are omitted. `message` is complete nevertheless.",
    ),
    Parameter(
        "options",
        Bound(Kind.OBJECT, refuses=_no_options),
        "Additional fields of the request body, by the provider's names. Null removes a field. For `simulator`: how "
        "it answers (`text`, `every`, `failAfter` ...).",
    ),
    Parameter(
        "onInvalid",
        Constant(choices=("skip", "fail")),
        "What to do with an event that is not JSON. `skip`: skip it and count it in `skipped`. `fail`: fail with "
        "`invalid-chunk`.",
        default="fail",
    ),
    MAX_EVENT_SIZE,
    Parameter(
        "firstChunkTimeout",
        Bound(Kind.DURATION),
        "Time-out for the first event. Default: `http.timeouts.firstChunk` of the settings, 60s.",
    ),
    Parameter(
        "idleTimeout",
        Bound(Kind.DURATION),
        "Time-out between events. Reasoning events reset it, heartbeats do not. Default: `http.timeouts.idle` of "
        "the settings, 5m.",
    ),
    Parameter("timeout", Bound(Kind.DURATION), "Time limit for the whole response. Default: none."),
    effects=Effects(
        gives="stream",
        result=f"stream of {_ITEM}",
        calls=("tools",),
        configured=(Configured("model", "models", unless="provider"),),
        properties=(
            Property(
                "message",
                "Response so far: {role, content, reasoning, toolCalls, finishReason, usage}; null before the stream "
                "opens. What the provider needs back is in it too.",
                _MESSAGE,
            ),
            Property("status", "Status of the provider's response; null before it has arrived.", "integer~"),
            Property("headers", "Response headers, by lower-case name."),
            *COUNTS,
        ),
    ),
    sees_functions=True,
    examples=[
        Example(
            "stream a response to the client",
            "- llm.chat:\n    provider: openai\n    model: small\n    baseUrl: https://api.example.org/v1\n"
            "    messages: [{role: user, content: Say hello}]\n    only: text\n  as: reply\n"
            "- forEach:\n    in: << reply >>\n    do:\n      - stream: << item.text >>\n"
            "- return: << reply.message.usage.outputTokens >>",
            chunks=("Hel", "lo"),
            result=2,
        ),
        Example(
            "split a response into words",
            "- llm.chat: {provider: openai, model: small, baseUrl: https://api.example.org/v1, messages: Hi}\n"
            "  as: reply\n  retry: {times: 2}\n"
            "- streams.split: {in: << reply >>, by: words}\n  as: words\n"
            "- forEach: {in: << words >>, do: [{stream: << item >>}]}\n"
            "- return: << reply.message.finishReason >>",
            chunks=("Hello",),
            result="stop",
        ),
    ],
)
def llm_chat(  # noqa: PLR0913  (a request has that many parts)
    run: Run,
    *,
    functions: Mapping[str, Any],
    model: str,
    messages: Any,
    provider: str | None = None,
    system: Any = None,
    tools: list[Any] | None = None,
    max_tokens: int | None = None,
    temperature: Any = None,
    base_url: str | None = None,
    api_key: str | None = None,
    only: str | None = None,
    options: Mapping[str, Any] | None = None,
    on_invalid: OnInvalid = "fail",
    max_event_size: int | None = None,
    first_chunk_timeout: float | None = None,
    idle_timeout: float | None = None,
    timeout: float | None = None,
) -> Stream:
    """Call an LLM and stream its response.

    Items: {type: text, text}, the next piece of text; {type: reasoning, text}, the next piece of the model's
    reasoning, if the provider sends it; {type: toolCall, id, name, arguments, index}, a complete tool call, with its
    arguments as an object (or as a text, if the model produced invalid JSON); {type: usage, inputTokens,
    outputTokens, totalTokens, cachedTokens, reasoningTokens}; and finally {type: finish, reason, providerReason}.
    Every item has `text`, which is empty if there is none. The reason is `stop`, `length`, `toolCalls`,
    `contentFilter`, `refusal` or `other`. The text of a refusal is sent as text items.

    The request is sent when the stream is first read. The connection is closed as soon as reading ends. Tools
    are not called automatically: use `call` with `oneOf`, then call the model again with `reply.message` and
    the tool's result.

    Errors: `http-connection`, `http-status` (also an error that the provider reports within a stream; its
    message is in `error.details`), `timeout`, `invalid-chunk` (the response is not an event stream),
    `stream-lost` (the response ended before the provider's end marker or finish reason), `invalid-input` (400: the
    client sent messages that are not a conversation, or a file that is neither an image nor a document). `retry`
    applies up to the first item.
    """
    call = _resolve(run, provider, model, base_url, api_key)
    layers = (call.options, options or {})
    if unfit := next(filter(None, map(_no_options, layers)), None):
        message = f"`options` must be {unfit[0]}: {unfit[1]}"
        raise RunError("template", message, final=True, parameter="options")
    chat = Chat(
        call.model,
        read_messages(messages),
        read_system(system),
        tuple(_read_tools(tools or [], functions)),
        max_tokens,
        temperature,
        own=call.own,
    )
    times = StreamTimeouts.of(run.context.http, first_chunk_timeout, idle_timeout, timeout)
    reading: ModelStream | SimulatedStream
    if call.provider is None:
        # An option of the real provider is none of the stand-in's.
        simulation = read_options({} if call.stands_in else merge(dict(call.options), options or {}))
        reading = SimulatedStream(run, chat, simulation, times, largest=run.context.http.max_body_size, only=only)
    else:
        client = run.context.resource(open_http)
        reading = ModelStream(
            run,
            client,
            call.provider,
            chat,
            _request(call, call.provider),
            layers,
            times,
            on_invalid=on_invalid,
            largest=max_event_size or client.settings.max_event_size,
            only=only,
        )
    return Stream(
        reading.batches,
        {
            "message": lambda: reading.message,
            "status": lambda: reading.status,
            "headers": lambda: reading.headers,
            "skipped": lambda: reading.skipped,
        },
    )


@dataclass(frozen=True, slots=True)
class _ModelCall:
    """Which model is asked where. ``own`` tells that the address is the provider's.

    Without a provider it is the simulator, which ``stands_in`` while a key is missing, or was chosen.
    """

    provider: Provider | None
    model: str
    options: Mapping[str, Any]
    url: str = ""
    key: str | None = None
    own: bool = False
    stands_in: bool = False


def _resolve(run: Run, provider: str | None, model: str, base_url: str | None, api_key: str | None) -> _ModelCall:
    """Return what a step, the settings and the environment say of a model together.

    Raises RunError ``template`` for a model that is not configured, or has no key.
    """
    context = run.context
    without_key = None
    options: Mapping[str, Any] = {}
    if provider is None:
        known = context.models.get(model)
        if known is None:
            raise _refuse(
                f"the model `{model}` is not declared under `models:`{did_you_mean(model, context.models)}; "
                "with `provider` it is the provider's own name"
            )
        provider, model, options = known.provider, known.model, known.options
        base_url = base_url or known.base_url
        api_key = api_key or known.api_key
        without_key = known.without_key
    if provider == SIMULATOR:
        return _ModelCall(None, model, options)
    speaks = PROVIDERS[provider]
    key = api_key or _first(context.env, speaks.keys)
    url = base_url or _first(context.env, speaks.addresses)
    if url is None and key is None:
        if without_key is None:
            raise _refuse(
                f"`{provider}` has no key: set {speaks.keys[0]}, or give `apiKey`; a server of your own needs a "
                f"`baseUrl`. `withoutKey: {SIMULATOR}` under `models:` answers without one"
            )
        if without_key == SIMULATOR:
            return _ModelCall(None, model, options, stands_in=True)
        url = without_key
    url = context.address.of(url or speaks.url).rstrip("/")
    return _ModelCall(speaks, model, options, url, key, own=url == speaks.url)


def _request(call: _ModelCall, provider: Provider) -> UpstreamRequest:
    """Return the request to a model, without its body."""
    headers = make_headers({**provider.headers(call.key), "Content-Type": "application/json"})
    headers["Accept"] = "text/event-stream"
    # Servers that compress tend to hold events back until there is enough to compress.
    headers["Accept-Encoding"] = "identity"
    url = parse_url(call.url + provider.path(call.url, call.model))
    return UpstreamRequest("POST", url, headers, redirects=_REDIRECTS)


def _refuse(message: str) -> RunError:
    return RunError("template", message, final=True)


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the first variable that is set to something."""
    return next((value for name in names if (value := env.get(name, "").strip())), None)


def _read_tools(tools: list[Any], functions: Mapping[str, Any]) -> Iterator[Tool]:
    """Yield the tools that names and objects describe, the objects also in the forms of OpenAI and Anthropic.

    Raises RunError ``template`` for a function that does not exist, and for an invalid tool.
    """
    for number, tool in enumerate(tools):
        if isinstance(tool, str):
            yield _tool_of(tool, functions)
            continue
        inner = tool.get("function") if isinstance(tool, Mapping) else None
        about = inner if isinstance(inner, Mapping) else tool
        if not isinstance(about, Mapping) or not isinstance(about.get("name"), str):
            message = f"`tools[{number}]` is not a tool: write {{name, description, parameters}}, or a function's name"
            raise RunError("template", message, final=True, parameter="tools")
        schema = about.get("parameters", about.get("input_schema"))
        plain = {"type": "object", "properties": {}}
        text = str(about.get("description") or "")
        yield Tool(about["name"], text, schema if isinstance(schema, Mapping) else plain)


def _tool_of(name: str, functions: Mapping[str, Any]) -> Tool:
    called = functions.get(name)
    if called is None:
        raise _refuse(f"unknown function `{name}`{did_you_mean(name, functions)}")
    definition = called.definition
    try:
        found: dict[str, Schema] = {}
        schema = inputs_schema(definition.inputs, Definitions("#/$defs/", found))
    except ValueError as error:
        raise _refuse(f"`{name}` can't be a tool: {error}, which no model can give") from None
    return Tool(name, definition.description or definition.summary, schema | ({"$defs": found} if found else {}))


FUNCTIONS = (llm_chat,)
