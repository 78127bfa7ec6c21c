"""Endpoints that relay a request, written as YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from mimetypes import guess_type
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from streamstack.cli.chats import Chat, find_message, read_chat
from streamstack.cli.curl import VARIABLE, CurlRequest, variable, written_name
from streamstack.language.masking import masked
from streamstack.language.names import is_framing
from streamstack.language.source import write
from streamstack.runtime.providers import PROVIDERS

#: Names of headers, parameters and fields whose values are secrets.
_SECRETS: Final = re.compile(
    r"authorization|cookie|(?:.*[-_])?(?:key|api-?key|token|secret|password|passwd|auth|credential)s?|"
    r"(?:.*[-_])?(?:signature|sig)(?:[-_].*)?|x-amz-(?!target|meta-|algorithm|expires|version|acl).*",
    re.IGNORECASE,
)
_NO_SECRETS: Final = re.compile(r".*(?:idempotency|public|max|page|next|sort).*|key", re.IGNORECASE)
#: Fields that an author sets, and a client does not.
_FIXED: Final = re.compile(
    r"(?:.*[-_])?(?:model|model_?id|type|format|version|mode)|stream.*|temperature|top_?[pk]|max_?.*|n|seed|voice.*|"
    r"encoding.*|alt|store|user|.*_penalty|reasoning.*|keep_alive|raw|service_tier|granularit.*|dimensions",
    re.IGNORECASE,
)
#: What documentations write in the place of a value.
_PLACEHOLDER: Final = re.compile(r"\{{1,2}(\w+)\}{1,2}|<([\w -]+)>|(?<![^/]):([A-Za-z]\w*)|((?:YOUR|MY)_\w+)", re.ASCII)
_SCHEME: Final = re.compile(r"(Bearer|Basic|Token|Bot|Key|ApiKey|Api-Key|token|bearer)\s+(.+)")
#: A part of a path that is a secret of its own, as those of webhooks are; an id has fewer characters, or is a UUID.
_TOKEN: Final = re.compile(r"(?![0-9a-f]{8}-)(?=[^a-z]*[A-Z]|.*\d)[A-Za-z0-9_:-]{24,}")
#: A member of an object with a text, in JSON that is not valid as a whole.
_QUOTED: Final = re.compile(r'"([\w-]+)"(\s*:\s*)"([^"\\]*)"')
#: Paths whose responses are sound, paths whose responses are streams, and media types by the format asked for.
_SOUND: Final = re.compile(
    r".*(?:text-to-speech(?!.*with-timestamps)|/audio/speech$|/(?:tts|speak)(?:/|$)).*", re.DOTALL
)
_STREAM: Final = re.compile(r".*/stream(?:/.*)?")
_SOUNDS: Final = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "opus": "audio/ogg",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "pcm": "audio/pcm",
    "ulaw": "audio/basic",
}
_FOREIGN: Final = re.compile(r"\{\{|\$\{|\{%")
#: Headers that the server makes itself.
_OWN_HEADERS: Final = frozenset({"content-length", "host", "accept-encoding", "expect"})
#: Hosts whose second level does not name the provider.
_LABELS: Final = {"generativelanguage.googleapis.com": "gemini"}
_OLLAMA: Final = re.compile(r"/api/(?:generate|chat|pull|create)")
_ANY_BYTES: Final = "application/octet-stream"
_ENDPOINT_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")
_TYPES: Final = {str: "text", bool: "boolean", int: "integer", float: "decimal"}


@dataclass(frozen=True, slots=True)
class Relay:
    """An endpoint as YAML, and notes for its author."""

    text: str
    notes: list[str]


def make_relay(request: CurlRequest, path: str | None = None) -> Relay:
    """Return an endpoint that relays a request; ``path`` is its own path."""
    return _Writer(request, path).write()


@dataclass(slots=True)
class _Values:
    """Makes the values of the endpoint: its inputs, and bindings to environment variables."""

    label: str
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # with what each holds

    def text(self, text: str) -> str:
        """Return a text with its variables as bindings."""
        for name in VARIABLE.findall(text):
            self.variables.setdefault(name, "")
        escaped = text.replace("<<", r"\<<").replace("<%", r"\<%")
        return VARIABLE.sub(r"<< env.\1 >>", escaped)

    def constant(self, value: Any, name: str = "value") -> Any:
        """Return a value whose texts may hold variables, and secrets, which become variables."""
        if isinstance(value, dict):
            return {written_name(key): self.constant(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [self.constant(each, name) for each in value]
        if not isinstance(value, str):
            return value
        return self.secret(value, name) if _is_secret(name, value) else self.text(value)

    def secret(self, value: str, name: str) -> str:
        """Return a binding for a secret; ``name`` is the field that holds it."""
        if VARIABLE.search(value) and not _is_secret("", VARIABLE.sub("", value)):
            return self.text(value)
        return f"<< env.{self.secret_name(value, name)} >>"

    def secret_name(self, value: str, name: str) -> str:
        """Return the environment variable of a secret that the command shows."""
        placeholder = value.strip("<>{}$ ")
        if re.fullmatch(r"[A-Z][A-Z0-9_]{3,}", placeholder) and "_" in placeholder:
            found = re.sub("^(?:YOUR|MY)_", "", placeholder)
        else:
            found = ""
        if found in ("", "API_KEY", "KEY", "TOKEN", "ACCESS_TOKEN", "API_TOKEN", "SECRET_KEY"):
            words = _constant_name(name).removeprefix("X_").strip("_") or "SECRET"
            what = "API_KEY" if words in ("AUTHORIZATION", "KEY", "USER") or words.endswith("API_KEY") else words
            found = f"{_constant_name(self.label)}_{found or what}"
        self.variables[found] = "the secret of the command, which was not written"
        return found

    def input(self, name: str, value: Any, **declared: Any) -> str:
        """Return a binding to a new input; its default is the value of the command, unless that is None."""
        words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word] or ["value"]
        first = words[0] if words[0].isupper() else words[0][0].lower() + words[0][1:]
        made = first + "".join(word[0].upper() + word[1:] for word in words[1:])
        made = f"_{made}" if made[0].isdigit() else made
        unique, number = made, 2
        while unique in self.inputs:
            unique, number = f"{made}{number}", number + 1
        default = {"required": True} if value is None else {"default": value}
        self.inputs[unique] = {"type": _TYPES.get(type(value), "text"), **default, **declared}
        return f"<< input.{unique} >>"

    def field(self, name: str, value: Any) -> Any:
        """Return the value of a field: a secret, an input, or what the command says."""
        if isinstance(value, str) and _is_secret(name, value):
            return self.secret(value, name)
        if type(value) in _TYPES and not _FIXED.fullmatch(name) and _fits_input(value):
            return self.input(name, value)
        return self.constant(value, name)


def _fits_input(value: Any) -> bool:
    """Tell whether a value can be the default of an input: no variable, binding, secret or integer beyond 64 bits."""
    if isinstance(value, str):
        return not (VARIABLE.search(value) or "<<" in value or "<%" in value or _is_secret("", value))
    return not isinstance(value, int) or abs(value) < 1 << 63


def _is_secret(name: str, value: str = "") -> bool:
    """Tell a secret by its name, or by the form of a word in it."""
    named = _SECRETS.fullmatch(name) is not None and (name == "key" or not _NO_SECRETS.fullmatch(name))
    return named or any(masked(word) != word for word in value.split())


def _constant_name(text: str) -> str:
    name = re.sub("[^A-Za-z0-9]+", "_", text).upper().strip("_")
    return f"_{name}" if name[:1].isdigit() else name


class _Writer:
    """Writes the endpoint of a request."""

    def __init__(self, request: CurlRequest, path: str | None) -> None:
        self._request = request
        url = urlsplit(request.url)
        host = _PLACEHOLDER.sub(lambda found: variable(_constant_name(next(filter(None, found.groups())))), url.netloc)
        self._url = url._replace(netloc=host)
        self._host = None if VARIABLE.search(host) else url.hostname
        self._label = _label_of(self._host or request.url, url.port if self._host else None)
        self._path = path
        self._values = _Values(self._label)
        self._notes = list(request.notes)
        self._body = self._read_body()

    def _read_body(self) -> Any:
        """Return the JSON of the body; None where it is none."""
        media = self._request.media_type
        text = self._request.data
        if text is not None and media.endswith("json"):
            return self._read_json(text)
        if text is None or not (media in ("", "application/x-www-form-urlencoded") or media.endswith("json")):
            return None
        return self._read_json(text) if text.lstrip().startswith(("{", "[")) else None

    def _read_json(self, text: str) -> Any:
        """Return the value of a body that claims to be JSON; None, with a note, where it is not valid."""
        try:
            return json.loads(text, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError):
            self._notes.append("the body is not valid JSON")
            return None

    def write(self) -> Relay:
        chat = None
        if isinstance(self._body, dict):
            chat = read_chat(self._url, self._request, self._body)
        endpoint = self._write_chat(chat) if chat is not None else self._write_request()
        for name, why in self._values.variables.items():
            self._notes.append(f"set {name} in the environment, or in .env{f': it is {why}' if why else ''}")
        head = f"# Relays {self._host or self._label} (made by `streamstack import curl`).\n"
        return Relay(head + write(endpoint), self._notes)

    def _endpoint(self, what: str, stack: list[Any], *, streams: bool, **more: Any) -> dict[str, Any]:
        """Return an endpoint with a path of ``what`` it does."""
        method = self._request.method or "GET"
        if method not in _ENDPOINT_METHODS:
            method = "POST" if self._request.data or self._request.parts or self._request.file else "GET"
        inputs = {"inputParameters": self._values.inputs} if self._values.inputs else {}
        # Texts of the command may look like bindings of other tools, and are meant to be sent as they are.
        if _FOREIGN.search(json.dumps([stack, inputs])):
            more["allow"] = ["foreign-binding"]
        return {
            "method": method,
            "path": self._path or f"/api/{self._label}/{what}",
            "summary": f"Relay {what} of {self._label}",
            "responseType": "streaming" if streams else "json",
            **more,
            **inputs,
            "functionStack": stack,
        }

    # ------------------------------------------------------------------------------- models

    def _write_chat(self, chat: Chat) -> dict[str, Any]:
        speaks = PROVIDERS[chat.provider]
        values = self._values
        step: dict[str, Any] = {"provider": chat.provider, "model": values.text(chat.model)}
        if chat.base_url != speaks.url:
            step["baseUrl"] = values.text(chat.base_url)
        if chat.key is None:
            if chat.base_url == speaks.url:
                values.variables[speaks.keys[0]] = "the key of the provider"
        elif (key := values.secret(chat.key, "Authorization")) != f"<< env.{speaks.keys[0]} >>":
            step["apiKey"] = key
        if chat.system is not None:
            step["system"] = values.constant(chat.system)
        text, place = find_message(chat.messages)
        if text is None or not _fits_input(text):
            step["messages"] = values.constant(chat.messages)
        else:
            step["messages"] = self._bind_message(chat.messages, text, place)
        step |= values.constant(chat.parameters)
        if self._request.seconds:
            step["timeout"] = f"{self._request.seconds}s"
        tools = "tools" in step
        if not tools:
            step["only"] = "text"
        if chat.options:
            step["options"] = values.constant(chat.options)
        self._notes += chat.notes
        content = "<< item >>" if tools else "<< item.text >>"
        stack = [{"llm.chat": step, "as": "reply"}, {"forEach": {"in": "<< reply >>", "do": [{"stream": content}]}}]
        return self._endpoint("chat", stack, streams=True)

    # ------------------------------------------------------------------------------ requests

    def _write_request(self) -> dict[str, Any]:
        decode, media = self._decode()
        step: dict[str, Any] = {"url": self._make_url()}
        if self._request.method != "GET":
            step["method"] = self._request.method
        step |= {"headers": headers} if (headers := self._make_headers(decode)) else {}
        step |= {"query": query} if (query := self._make_query()) else {}
        step |= self._make_body()
        if self._request.seconds:
            step["timeout"] = f"{self._request.seconds}s"
        retry = {"retry": {"times": self._request.retries}} if self._request.retries else {}
        what = _what(self._url.path)
        if decode is None:
            request = step if len(step) > 1 else step["url"]
            result = "<< answer.headers >>" if self._request.method == "HEAD" else "<< answer.body >>"
            stack: list[Any] = [{"http.request": request, "as": "answer", **retry}]
            return self._endpoint(what, [*stack, {"return": result}], streams=False)
        step["decode"] = decode
        chunk: Any = {"event": "<< item.event >>", "content": "<< item.data >>"} if decode == "sse" else "<< item >>"
        stack = [
            {"http.stream": step, "as": "answer", **retry},
            {"forEach": {"in": "<< answer >>", "do": [{"stream": chunk}]}},
        ]
        more: dict[str, Any] = {}
        if decode == "bytes":
            more = {"streaming": {"format": "bytes"}, "headers": {"Content-Type": media}}
        return self._endpoint(what, stack, streams=True, **more)

    def _decode(self) -> tuple[str | None, str]:
        """Return how the response is decoded while it arrives, with the media type of bytes; None to wait for it."""
        accept = (self._request.header("Accept") or "").partition(",")[0].partition(";")[0].strip().lower()
        output = guess_type(self._request.output or "")[0] or ""
        body: Mapping[str, Any] = self._body if isinstance(self._body, dict) else {}
        for media in (output, accept):
            if media.startswith(("audio/", "video/", "image/")) or media in ("application/pdf", "application/zip"):
                return "bytes", self._sound() or _ANY_BYTES if "*" in media else media
        if accept == "application/octet-stream":
            return "bytes", accept
        if accept == "text/event-stream" or body.get("stream") is True or ("alt", "sse") in self._request.query:
            return "sse", ""
        local = _OLLAMA.fullmatch(self._url.path) and body.get("stream") is not False
        if accept in ("application/x-ndjson", "application/jsonl", "application/ndjson") or local:
            return "ndjson", ""
        sound = self._sound()
        if sound is not None or _SOUND.fullmatch(self._url.path):
            return "bytes", sound or "audio/mpeg"
        if self._request.unbuffered:
            self._notes.append("the response is read as server-sent events: `decode` has ndjson, lines, csv, bytes too")
            return "sse", ""
        if _STREAM.fullmatch(self._url.path) and "json" not in accept and body.get("stream") is not False:
            self._notes.append("the response is relayed as bytes: `decode` has sse, ndjson, lines, csv too")
            return "bytes", _ANY_BYTES
        return None, ""

    def _sound(self) -> str | None:
        """Return the media type of the sound that the request asks for, None where it does not."""
        fields = dict(self._request.query) | (self._body if isinstance(self._body, dict) else {})
        for name in ("output_format", "response_format", "audio_format", "outputFormat"):
            if isinstance(format_ := fields.get(name), str):
                return _SOUNDS.get(re.split(r"[_\W]", format_.lower())[0])
        return None

    def _make_url(self) -> str:
        def bind(found: re.Match[str]) -> str:
            name = next(filter(None, found.groups()))
            named = re.sub("^(?:YOUR|MY)_", "", name)
            return f"\ue002{self._values.input(named.lower() if named.isupper() else named, None)}\ue002"

        # In texts of the command `<<` is escaped; the bindings that are made here are kept apart from them.
        path = "/".join(self._hide(segment) for segment in self._url.path.split("/"))
        pieces = _PLACEHOLDER.sub(bind, path).split("\ue002")
        bound = [piece if number % 2 else self._values.text(piece) for number, piece in enumerate(pieces)]
        head = self._values.text(self._url._replace(path="").geturl())
        tail = "<< input.file.name >>" if self._request.file and self._url.path.endswith("/") else ""
        return head + "".join(bound) + tail

    def _hide(self, segment: str) -> str:
        """Return a segment of the path, or a variable if it is a secret."""
        if _TOKEN.fullmatch(segment) is None and not _is_secret("", segment):
            return segment
        return variable(self._values.secret_name(segment, "token"))

    def _make_query(self) -> dict[str, Any]:
        query: dict[str, Any] = {}
        for written, value in self._request.query:
            name = written_name(written)
            made = self._values.field(written, _parameter(written, value))
            if name in query:
                before = query[name]
                query[name] = [*before, made] if isinstance(before, list) else [before, made]
            else:
                query[name] = made
        return query

    def _make_headers(self, decode: str | None) -> dict[str, str]:
        headers: dict[str, str] = {}
        sent = self._body is not None or self._request.parts
        for name, value in self._request.headers:
            lower = name.lower()
            if lower in _OWN_HEADERS or is_framing(name) or (lower == "content-type" and sent):
                continue
            if lower == "accept" and (value == "*/*" or decode is not None or "json" in value):
                continue
            scheme = _SCHEME.fullmatch(value)
            if not _is_secret(name, value):
                headers[name] = self._values.text(value)
            elif scheme is not None and lower in ("authorization", "proxy-authorization"):
                headers[name] = f"{scheme[1]} {self._values.secret(scheme[2], name)}"
            else:
                headers[name] = self._values.secret(value, name)
        if self._request.user is not None:
            headers["Authorization"] = self._make_basic(self._request.user)
        return headers

    def _make_basic(self, user: str) -> str:
        """Return the header of Basic authentication (RFC 7617). A user without a password is a key."""
        name, _, password = user.partition(":")

        def term(text: str, field_name: str, *, secret: bool) -> str:
            found = VARIABLE.fullmatch(text)
            if found is not None:
                self._values.variables.setdefault(found[1], "")
                return f"env.{found[1]}"
            return f"env.{self._values.secret_name(text, field_name)}" if secret and text else json.dumps(text)

        terms = term(name, "user", secret=not password), term(password, "password", secret=True)
        return f"Basic << [{', '.join(terms)}] | join(':') | base64 >>"

    def _make_body(self) -> dict[str, Any]:
        request, values = self._request, self._values
        if request.parts:
            return {"multipart": {written_name(part.name): self._make_part(part.name, part) for part in request.parts}}
        if request.file is not None:
            if request.media_type.endswith("json"):
                return {"json": values.input("body", None, type="json")}
            return {"body": values.input("file", None, type="file")}
        if isinstance(self._body, dict):
            body = self._body | self._make_messages()
            return {
                "json": {
                    written_name(key): body[key] if key == "messages" else values.field(key, body[key]) for key in body
                }
            }
        if self._body is not None:
            return {"json": values.constant(self._body)}
        if request.data is None:
            return {}
        fields = parse_qsl(request.data, keep_blank_values=True)
        if request.media_type in ("", "application/x-www-form-urlencoded") and "=" in request.data:
            return {"form": {written_name(name): values.field(name, _parameter(name, value)) for name, value in fields}}
        return {"body": values.constant(_QUOTED.sub(self._hide_member, request.data))}

    def _hide_member(self, found: re.Match[str]) -> str:
        """Return a member of what is nearly JSON, with a variable where it holds a secret."""
        name, between, value = found.groups()
        if VARIABLE.search(value) or not _is_secret(name, value):
            return found[0]
        return f'"{name}"{between}"{variable(self._values.secret_name(value, name))}"'

    def _make_messages(self) -> dict[str, Any]:
        """Return the conversation of the body with the user's last message as an input; nothing where it has none."""
        messages = self._body.get("messages")
        text, place = find_message(messages)
        if text is None or not _fits_input(text):
            return {"messages": self._values.constant(messages)} if messages is not None else {}
        return {"messages": self._bind_message(messages, text, place)}

    def _bind_message(self, messages: Any, text: str, place: tuple[str | int, ...]) -> Any:
        """Return a conversation in which the text at a place is the input `message`."""
        values = self._values
        *before, last = place
        root: dict[str, Any] = {"messages": values.constant(messages)}
        inner: Any = root
        for each in before:
            inner = inner[each]
        inner[last] = values.input("message", text, minLength=1, maxLength=100_000)
        return root["messages"]

    def _make_part(self, name: str, part: Any) -> Any:
        if part.file:
            return self._values.input(name, None, type="file")
        return self._values.field(name, _parameter(name, part.value))


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _refuse(text)


def _parameter(name: str, text: str) -> Any:
    """Return a parameter as what it is written like; one that is a secret stays a text."""
    return text if _is_secret(name, text) else _typed(text)


def _typed(text: str) -> Any:
    """Return a parameter of a form or query as what it is written like."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?(?:0|[1-9]\d{0,14})", text):
        return int(text)
    number = float(text) if re.fullmatch(r"-?\d{1,9}\.\d{1,6}", text) else None
    return text if number is None or str(number) != text else number


def _label_of(host: str, port: int | None) -> str:
    """Return what a host is called in paths and names of variables: api.mistral.ai is mistral."""
    if found := _LABELS.get(host):
        return found
    if re.fullmatch(r"localhost|[\d.]+|\[?[0-9a-f:]+\]?", host) or not host:
        return "ollama" if port == 11434 else "upstream"
    if (named := VARIABLE.search(host)) is not None:
        return named[1].partition("_")[0].lower()
    words = [word for word in host.split(".") if re.fullmatch(r"[a-z0-9-]+", word)]
    # Suffixes such as co.uk and com.au do not name a provider.
    while len(words) > 1 and (len(words[-1]) <= 3 or words[-1] in ("com", "info", "cloud", "online", "tech")):
        words.pop()
    return words[-1] if words else "upstream"


def _what(path: str) -> str:
    """Return a name of what is at a path, of its last segment that is a word."""
    words = [
        segment
        for segment in path.split("/")
        if re.fullmatch(r"[A-Za-z][A-Za-z_.:-]{1,40}", segment)
        and not (re.fullmatch(r"v\d\w*|api", segment) or segment.isupper() or _TOKEN.fullmatch(segment))
    ]
    return re.sub(r"[^A-Za-z]+", "-", words[-1].removesuffix(".json")).strip("-").lower() if words else "request"
