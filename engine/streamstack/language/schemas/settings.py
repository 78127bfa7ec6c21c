"""The schemas of streamstack.yaml and of `streaming:`."""

from __future__ import annotations

from typing import Any, Final

from streamstack.language.authentication_settings import (
    API_KEY_KEYS,
    CLOCK_SKEW,
    EXPIRY,
    JWT_KEYS,
    TYPES,
)
from streamstack.language.database_settings import LARGEST_POOL, SCHEMES, Database
from streamstack.language.http_settings import HttpSettings
from streamstack.language.model_settings import PROVIDERS
from streamstack.language.proxies import FORWARDED
from streamstack.language.public_keys import PUBLIC_ALGORITHMS, SECRET_ALGORITHMS
from streamstack.language.schemas.types import (
    BINDING,
    DURATION,
    SIZE,
    SOUND_KEYS,
    Schema,
    documented,
)
from streamstack.language.settings import Server
from streamstack.language.state_settings import MEMORY, StateSettings
from streamstack.language.streaming_settings import FORMATS, SLOW_CLIENTS, Resume, Streaming
from streamstack.language.units import show_duration, show_size

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_ANY: Final[Schema] = {}


def duration(default: float | None = None) -> Schema:
    """Return the schema of a duration; ``default`` is seconds."""
    schema: Schema = {"type": ["number", "string", "null"], "minimum": 0, "pattern": DURATION}
    return schema if default is None else schema | {"default": show_duration(default)}


def size(default: int | None = None) -> Schema:
    """Return the schema of a size; ``default`` is bytes."""
    schema: Schema = {"type": ["integer", "string", "null"], "minimum": 0, "pattern": SIZE}
    return schema if default is None else schema | {"default": show_size(default)}


def _flag(default: bool) -> Schema:  # noqa: FBT001 (the value itself)
    return {"type": ["boolean", "null"], "default": default}


def _choice(*words: str) -> Schema:
    return {"enum": [*words, None], "default": words[0]}


def _or_parts(schema: Schema, **parts: tuple[Schema, str]) -> Schema:
    """Return the schema of a value that may be a mapping of parts instead."""
    keys = {name: documented(rule, about) for name, (rule, about) in parts.items()}
    return {
        **schema,
        "type": [*schema["type"], "object"],
        "properties": keys,
        "additionalProperties": False,
    }


def _slow_client(usual: Streaming) -> Schema:
    modes = "|".join(SLOW_CLIENTS)
    words: Schema = {
        "type": ["string", "null"],
        "pattern": f"^({modes})$",
        "examples": list(SLOW_CLIENTS),
        "default": usual.slow_client,
    }
    return _or_parts(
        words,
        mode=(_choice(*SLOW_CLIENTS), "block, disconnect or dropOldest."),
        grace=(duration(usual.grace), "How long its buffer may be full before it is cut off."),
    )


def _mapping(keys: Schema, **more: Any) -> Schema:
    return {
        "type": ["object", "null"],
        "propertyNames": SOUND_KEYS,
        "properties": keys,
        "additionalProperties": False,
        **more,
    }


def _named(each: Schema) -> Schema:
    """Return the schema of a mapping from the author's names."""
    return {"type": ["object", "null"], "propertyNames": SOUND_KEYS, "additionalProperties": each}


def streaming_schema() -> Schema:
    """Return the schema of `streaming:`, on an endpoint or as defaults of the project."""
    usual = Streaming()
    keys = {
        "format": (_choice(*FORMATS), "What chunks are written as; auto follows the request."),
        "keepAlive": (duration(usual.keep_alive), "The longest silence before a heartbeat."),
        "firstChunkTimeout": (
            duration(usual.first_chunk_timeout),
            "How long the first chunk may take.",
        ),
        "idleTimeout": (duration(usual.idle_timeout), "The longest time between two chunks."),
        "maxDuration": (
            _or_parts(
                duration(usual.max_duration),
                limit=(duration(usual.max_duration), "How long the stream may last."),
                jitter=(
                    {
                        "type": ["number", "string", "null"],
                        "minimum": 0,
                        "maximum": 1,
                        "default": "10%",
                    },
                    "By what part it may be shorter, at random: readers don't all come back at once.",
                ),
            ),
            "How long the stream may last.",
        ),
        "maxBytes": (size(), "How much may be sent in all."),
        "onDisconnect": (
            _choice("cancel", "finish"),
            "What becomes of a run whose reader left.",
        ),
        "resume": (_resume(), "Whether a reader can come back, and how much is kept for it."),
        "slowClient": (
            _slow_client(usual),
            "What becomes of a slow reader: it holds its run back, is cut off, or misses the oldest chunks.",
        ),
        "buffer": (size(usual.buffer), "How much is kept for a slow reader."),
        "compress": (
            _flag(usual.compress),
            "Whether it is compressed (gzip) for readers who take that.",
        ),
        "done": (_flag(usual.done), "Whether SSE ends with an event of its own."),
        "ids": (_flag(usual.ids), "Whether SSE's chunks have ids."),
    }
    return _mapping({key: documented(rule, about) for key, (rule, about) in keys.items()})


def _resume() -> Schema:
    usual = Resume()
    chunks: Schema = {"type": ["integer", "string", "null"], "pattern": "^[0-9]+$"}
    keys = {
        "keep": (
            duration(usual.keep),
            "How long a run waits for its reader, and its end is kept.",
        ),
        "maxChunks": (
            chunks | {"default": usual.max_chunks, "minimum": 1},
            "How many chunks are kept; the oldest go.",
        ),
        "maxSize": (size(usual.max_size), "How much is kept; the oldest go."),
    }
    mapping = _mapping({key: documented(rule, about) for key, (rule, about) in keys.items()})
    return mapping | {"type": ["object", "boolean", "null"]}


def settings_schema() -> Schema:
    """Return the schema of streamstack.yaml."""
    keys = {
        "server": (_server(), "Where and how to serve."),
        "streaming": (streaming_schema(), "How streams live where endpoints don't say."),
        "settings": (_named(_ANY), "Values of your own, bound as `settings`."),
        "databases": (
            _named(_database()),
            "Databases, by name; without any, `main` is an embedded PostgreSQL.",
        ),
        "authentication": (_named(_authentication()), "Ways to tell callers, by name."),
        "models": (_named(_model()), "Models, by name: `llm.chat: {model: name}`."),
        "state": (_state(), "Where what runs share is kept: cached values, counters, limits."),
        "http": (_http(), "Where calls may go, and how long they may take."),
        "email": (_ANY, "How mail is sent."),
        "alerts": (_ANY, "What is told when a metric passes a threshold."),
        "experiments": (_named(_ANY), "What is compared on live traffic, by name."),
        "plugins": (_ANY, "Files with functions of your own."),
    }
    return {
        "$schema": _DRAFT,
        "title": "streamstack.yaml",
        "description": "The settings of a project.",
        **_mapping({key: documented(rule, about) for key, (rule, about) in keys.items()}),
    }


def _server() -> Schema:
    usual = Server()
    whole: Schema = {"type": ["integer", "string", "null"], "pattern": f"^[0-9]+$|{BINDING}"}
    keys = {
        "host": ({"type": ["string", "null"], "default": usual.host}, "The address."),
        "port": (whole | {"default": usual.port, "maximum": 65535}, "The port."),
        "workers": (
            whole | {"default": usual.workers, "minimum": 1, "maximum": 1024},
            "How many processes.",
        ),
        "maxBodySize": (_or_bound(size(usual.max_body_size)), "The largest body of a request."),
        "maxConnections": (
            whole | {"default": usual.max_connections, "minimum": 1},
            "How many connections a process takes at once; more get 503.",
        ),
        "headTimeout": (
            _or_bound(duration(usual.head_timeout)),
            "How long the head of a request may take; 0 is for ever.",
        ),
        "shutdownTimeout": (
            _or_bound(duration(usual.shutdown_timeout)),
            "How long runs may finish.",
        ),
        "trustedProxies": (
            {"type": ["array", "string", "null"], "items": {"type": "string"}},
            "Proxies that are believed when they say who called: addresses, networks.",
        ),
        "forwardedHeader": (_choice(*FORWARDED), "The header in which they say so."),
        "shutdownDelay": (
            _or_bound(duration(usual.shutdown_delay)),
            "How long requests are still taken while balancers are told that it stops.",
        ),
        "metrics": (_metrics(), "Who may see /_metrics: who has the token, or everybody."),
        "cors": (_cors(), "Which pages of other origins may call: their origins, or a mapping."),
    }
    return _mapping({key: documented(rule, about) for key, (rule, about) in keys.items()})


def _metrics() -> Schema:
    keys = {
        "token": ({"type": ["string", "null"]}, "What `Authorization: Bearer` must bring."),
        "open": (_flag(default=False), "Whether everybody may."),
    }
    return _mapping({key: documented(rule, about) for key, (rule, about) in keys.items()})


def _http() -> Schema:
    usual = HttpSettings()
    times = {
        "connect": (_or_bound(duration(usual.connect)), "For name, connection and TLS."),
        "total": (_or_bound(duration(usual.total)), "For a whole http.request."),
        "firstChunk": (_or_bound(duration(usual.first_chunk)), "For the first item of a stream."),
        "idle": (_or_bound(duration(usual.idle)), "For each next item of a stream."),
    }
    hosts: Schema = {"type": ["array", "string", "null"], "items": {"type": "string"}}
    keys = {
        "allowHosts": (hosts, "Hosts that may be called, such as *.example.org; else any."),
        "denyPrivateNetworks": (_flag(default=False), "Whether only the public network may."),
        "timeouts": (
            _mapping({key: documented(rule, about) for key, (rule, about) in times.items()}),
            "How long others may take; 0 is for ever.",
        ),
        "maxBodySize": (
            _or_bound(size(usual.max_body_size)),
            "The largest body that http.request reads.",
        ),
        "maxEventSize": (
            _or_bound(size(usual.max_event_size)),
            "The largest event, line or record.",
        ),
    }
    return _mapping({key: documented(rule, about) for key, (rule, about) in keys.items()})


def _state() -> Schema:
    usual = StateSettings()
    entries: Schema = {"type": ["integer", "string", "null"], "pattern": f"^[0-9]+$|{BINDING}"}
    keys = {
        "url": (
            {"type": ["string", "null"], "default": MEMORY},
            "Where: memory:// is each process; redis://host:6379 is shared by all.",
        ),
        "prefix": (
            {"type": ["string", "integer", "null"], "default": usual.prefix},
            "What the project's keys in Redis begin with, where several share it.",
        ),
        "maxEntries": (
            entries | {"default": usual.max_entries, "minimum": 1},
            "The most cached values, and the most counters.",
        ),
        "maxSize": (_or_bound(size(usual.max_size)), "How large all cached values may be."),
    }
    return _mapping({key: documented(rule, about) for key, (rule, about) in keys.items()})


def _authentication() -> Schema:
    """Return the schema of a way to tell callers, whatever its type: which keys go with which is `validate`'s."""
    text: Schema = {"type": ["string", "null"]}
    texts: Schema = {"type": ["array", "string", "null"], "items": {"type": "string"}}
    place: Schema = {"type": ["string", "object"], "additionalProperties": {"type": "string"}}
    key: Schema = {
        "type": ["string", "object", "null"],
        "properties": {
            "key": documented(text, "The key: << env.NAME >>, or sha256:... of it."),
            "scopes": documented(texts, "What its owner may."),
        },
        "additionalProperties": False,
    }
    algorithms = [*SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS]
    one: Schema = {"anyOf": [{"enum": algorithms}, {"type": "string", "pattern": BINDING}]}
    rules: Schema = {
        "type": {"enum": list(TYPES)},
        "algorithms": {"type": ["array", "string", "null"], "items": one},
        "secret": text,
        "publicKey": text,
        "jwksUrl": text,
        "issuer": texts,
        "audience": texts,
        "from": {**place, "type": ["array", "string", "object", "null"], "items": place},
        "clockSkew": duration(CLOCK_SKEW),
        "expiry": _choice(*EXPIRY),
        "header": text,
        "query": text,
        "keys": {
            "type": ["array", "object", "string", "null"],
            "items": {"type": ["string", "null"]},
            "additionalProperties": key,
        },
    }
    about = (
        JWT_KEYS | API_KEY_KEYS | {"type": "jwt: signed tokens. apiKey: keys that you hand out."}
    )
    return _mapping({key: documented(rule, about[key]) for key, rule in rules.items()})


def _model() -> Schema:
    text: Schema = {"type": ["string", "null"]}
    providers = [*PROVIDERS, None]
    keys = {
        "provider": (
            {"anyOf": [{"enum": providers}, {"type": "string", "pattern": BINDING}]},
            "Whose wire it speaks.",
        ),
        "model": (text, "What the provider calls it."),
        "baseUrl": (text, "Where it is asked, if not at its provider."),
        "apiKey": (text, "Its key; else that of the provider's own variable."),
        "withoutKey": (
            text,
            "Where it is asked while there is no key; a path is this server's own.",
        ),
    }
    return _mapping({key: documented(rule, about) for key, (rule, about) in keys.items()})


def _database() -> Schema:
    usual = Database()
    text: Schema = {"type": ["string", "null"]}
    files: Schema = {"type": ["string", "array", "null"], "items": {"type": "string"}}
    url = f"^\\s*$|^\\s*({'|'.join(SCHEMES)})://|{BINDING}"
    pool = {
        "type": ["integer", "string", "null"],
        "pattern": f"^[0-9]+$|{BINDING}",
        "default": usual.pool_size,
        "minimum": 1,
        "maximum": LARGEST_POOL,
    }
    keys = {
        "url": (
            text | {"pattern": url},
            "Like postgresql://user:password@host:5432/name; without it, the embedded PostgreSQL.",
        ),
        "poolSize": (pool, "The most connections of this server, but for the one that listens."),
        "poolMode": (
            {
                "type": ["string", "null"],
                "pattern": f"^(session|transaction)$|{BINDING}",
                "default": usual.pool_mode,
            },
            "transaction behind a pooler that shares connections between transactions (PgBouncer, Supabase, Neon).",
        ),
        "setup": (files, "Files of SQL, beside this one, run once for each change of them."),
        "bin": (text, "A folder with PostgreSQL's programs, for the embedded one."),
        "hold": (
            _or_bound(duration(usual.hold)),
            "How long a cursor keeps its connection for a slow loop.",
        ),
        "spool": (
            _or_bound(size(usual.spool)),
            "How large the file may be to which the rest of its rows then goes.",
        ),
    }
    return _mapping({key: documented(rule, about) for key, (rule, about) in keys.items()})


def _or_bound(schema: Schema) -> Schema:
    """Let a binding stand for what has a pattern: `<< env.NAME >>`."""
    return schema | {"pattern": f"{schema['pattern']}|{BINDING}"}


def _cors() -> Schema:
    texts: Schema = {"type": ["array", "string"], "items": {"type": "string"}}
    keys = {
        "origins": (texts, "The origins, such as https://example.org; * is any."),
        "headers": (texts, "The headers a page may send; * is any."),
        "exposeHeaders": (texts, "The headers of the answer that a page may read."),
        "credentials": (_flag(default=False), "Whether a page may send cookies."),
        "maxAge": (duration(600), "How long a browser may remember it."),
    }
    return {
        "type": ["object", "array", "string", "boolean", "null"],
        "properties": {key: documented(rule, about) for key, (rule, about) in keys.items()},
        "additionalProperties": False,
        "items": {"type": "string"},
    }
