"""What other tools call things: their words, each with what is written here.

The words are those of Xano, JavaScript, PHP, Python, Liquid, n8n, Make, Benthos and GitHub Actions. A word is found
whatever its case and separators. The three tables of a kind are:

- *same*: by the name in this language, the words that mean it and take the same arguments. `streamstack fix` puts the
  name in the place of the word.
- *alike*: by the name, the words that mean it and are written in another way. The value is read as that of the name.
- *advice*: by what to write, the words that no single name stands for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from streamstack.errors import fast_dataclass
from streamstack.language.names import nearest_and_sure

_SEPARATORS: Final = re.compile(r"[\s_.$()-]+")
_NOTHING: Final[Mapping[str, str]] = {}


@fast_dataclass()
class Advice:
    """What to write instead of a foreign word.

    Args:
        hint: What to write.
        name: What the word means in this language; "" where it has more than one counterpart.
        exact: Whether the name can be put in the place of the word.
    """

    hint: str
    name: str = ""
    exact: bool = False


def fold(word: str) -> str:
    """Return a word without case and separators: `http.get`, `httpGet` and `HTTP Get` are one word."""
    return _SEPARATORS.sub("", word).lower()


def _words(
    same: Mapping[str, str], alike: Mapping[str, str] = _NOTHING, advice: Mapping[str, str] = _NOTHING
) -> dict[str, Advice]:
    found: dict[str, Advice] = {}
    for hint, words in advice.items():
        found.update({fold(word): Advice(hint) for word in words.split(", ")})
    for table, exact in ((alike, False), (same, True)):
        for name, words in table.items():
            found.update({fold(word): Advice(f"did you mean `{name}`?", name, exact) for word in words.split(", ")})
    return found


def look_up(word: str, words: Mapping[str, Advice]) -> Advice | None:
    """Return the advice for a word; None where no other tool has it."""
    return words.get(fold(word)) if len(word) <= 100 else None


# ------------------------------------------------------------------------------------------- steps

FUNCTIONS: Final = _words(
    {
        "wait": "sleep, delay, pause, util.sleep",
        "log": "print, console.log, echo, debug.log, logger, puts",
        "stream": "emit, send, yield, write, chunk, res.write, sse.send, streaming.send, streaming.chunk, "
        "stream.chunk, stream.send, streaming.emit",
        "done": "end, stream.end, res.end, streaming.end, streaming.done, end_stream, finish",
        "http.request": "fetch, http.get, axios, axios.get, curl, requests.get",
        "http.stream": "http.sse, EventSource, fetch_stream",
        "websocket.stream": "websocket, ws, ws.connect",
        "db.query": "query, sql, Direct Database Query, direct_query, db.directQuery, sql_select, execute_query",
        "db.insert": "db.add, Add Record, add_record, db.create",
        "db.update": "db.edit, Edit Record, edit_record",
        "db.delete": "Delete Record, delete_record, db.remove",
        "db.transaction": "transaction, Database Transaction",
        "csv.read": "csv.parse, csv.stream, read_csv, csv_decode",
        "json.read": "json.parse, json.stream",
        "ndjson.read": "jsonl.read, ndjson.parse",
        "file.read": "read_file",
        "jwt.verify": "jwt.decode, JWS Decode, verify_token",
        "break": "break_loop, exit_loop",
        "continue": "next_iteration",
        "forEach": "foreach_loop",
        "while": "while_loop",
    },
    {
        "wait": "setTimeout, usleep",
        "set": "var, let, const, Create Variable, Update Variable, var.update, setVariable, assign, Edit Fields, "
        "mapping",
        "append": "push, array.push, Add to End of Array",
        "return": "result, exit, reply, api.response, Respond to Webhook, res.json, res.send",
        "throw": "raise, fail, abort, Stop and Error, Throw Error, error",
        "forEach": "for, each, loop, For Each Loop, Loop Over Items, iterate, Split In Batches, Iterator",
        "repeat": "times, For Loop",
        "if": "conditional, If Then, when_then",
        "switch": "case, match, Router, Switch Case",
        "try": "try_catch, catch_errors, Try Catch",
        "precondition": "assert, require, guard, ensure",
        "parallel": "all, Promise.all, gather, fork, async, Run in Parallel",
        "call": "function.run, Custom Function, run_function, invoke, Run Function, Execute Workflow, uses, include",
        "after": "defer, on_finish, Post Process",
        "http.request": "http, http.post, http.put, http.patch, http.delete, request, axios.post, HTTP Request, "
        "External API Request, api.request, rest, requests.post, http_client",
        "http.stream": "External API Request (Streaming), api.stream_request, streaming_request, sse",
        "llm.chat": "openai, openai.chat, chat, ai, llm, gpt, chat_completion, anthropic, claude, gemini, "
        "chat.completions.create, AI Agent, llm.stream, completion",
        "db.first": "db.get_record, Get Record, findOne, query_first",
        "db.get": "Query All Records, findMany, findAll, db.select, db.find",
        "db.patch": "Patch Record",
        "db.upsert": "Add or Edit Record, upsert",
        "db.execute": "exec_sql, db.run",
        "cache.get": "redis.get, Get Cache, Redis Get",
        "cache.set": "redis.set, Set Cache, Redis Set",
        "cache.delete": "redis.del, redis.delete, Delete Cache",
        "cache.use": "cache, cached, memoize, cache.remember",
        "counter.add": "redis.incr, increment, incr, Increment Cache, counter",
        "rateLimit": "throttle, redis.ratelimit",
        "jwt.sign": "jwt.encode, JWS Encode, create_token, Create Authentication Token",
        "password.hash": "bcrypt, bcrypt.hash, hash_password",
        "password.verify": "bcrypt.compare, check_password, Validate Password",
        "hmac.verify": "verify_signature, webhook.verify",
        "streams.interval": "interval, setInterval, ticker, generate",
        "streams.map": "map, stream.map",
        "streams.filter": "filter, stream.filter",
        "streams.batch": "batch, stream.batch",
        "streams.take": "take, limit, stream.take",
        "streams.split": "split, tokenize, stream.split",
        "streams.merge": "merge, stream.merge, broker",
        "streams.window": "window, sliding_window, tumbling_window",
        "streams.changes": "dedupe, distinct, changes",
        "respond": "Set Header, set_header, header, res.status, res.setHeader, set_status",
    },
    {
        "no code runs here: compute the value in an expression, as in `- set: {n: << input.prices | sum >>}`": "code,"
        " lambda, javascript, js, python, run, script, eval, Lambda Function, function, bloblang, expression",
        "remove it: the server sends heartbeats itself, every `streaming: {keepAlive: 15s}`": "streaming.heartbeat, "
        "heartbeat, keepalive, ping, stream.heartbeat",
        "write `else: [...]` beside `then:`, below the `if:`": "else, elseif, elif, else_if",
        "write `catch: [...]` beside `do:`, below the `try:`": "catch, except, on_error",
        "write the steps themselves, one below the other": "group, block, sequence, steps",
    },
)

# -------------------------------------------------------------------------------------------- keys

#: By key: the words for it, at a place that has the key. A word may stand for several keys of different places.
_KEYS: Final = {
    "inputParameters": "inputs, input, parameters, params, args, arguments, query, body, requestBody",
    "functionStack": "steps, stack, pipeline, do, actions, jobs, functions, handler, workflow, nodes, tasks, "
    "logic, run",
    "response": "responds, result, output, returns",
    "authentication": "auth, security, authorization, middleware",
    "rateLimit": "throttle, limits",
    "streaming": "sse, streamOptions",
    "cache": "caching, memoize, responseCache, cacheTtl",
    "before": "dependencies, preMiddleware, beforeRequest, hooks",
    "after": "postMiddleware, afterRequest, afterResponse",
    "method": "verb, httpMethod, methods",
    "path": "url, route, endpoint",
    "summary": "title, label",
    "description": "docs, comment, doc, note, help",
    "in": "list, items, array, over, of, from, collection, source, stream, loop_over, iterable",
    "as": "item, into, variable, alias, result, id, output, var, register, store_as",
    "do": "steps, then, body, run, stack, each, functionStack, actions, block, loop, try",
    "condition": "if, when, test, expression, that",
    "when": "condition, only_if, run_if",
    "then": "do, steps, body, true",
    "else": "otherwise, false",
    "elseIf": "elif, elsif",
    "times": "count, n, number, iterations",
    "content": "data, text, value, message, body, chunk, payload",
    "event": "type, eventType, event_name",
    "metadata": "meta, extra",
    "url": "uri, endpoint, href, address, host",
    "json": "data, payload, jsonBody",
    "query": "params, qs, queryParameters, searchParams",
    "timeout": "timeoutSeconds, deadline, timeout-minutes, max_time",
    "retry": "retries, attempts, retryOnFail, max_tries",
    "message": "msg, text, reason",
    "code": "errorCode, error_type, name",
    "status": "statusCode, http_status",
    "sql": "query, statement, text",
    "database": "db, connection, datasource",
    "table": "from, into, collection, tableName",
    "values": "data, row, record, fields, set, columns",
    "where": "filter, conditions, criteria",
    "key": "id, primaryKey",
    "to": "list, var, variable, into, array, target",
    "value": "item, data, element, content",
    "with": "args, arguments, params, input, inputs, data, parameters",
    "function": "name, fn, ref, workflow",
    "catch": "except, rescue, on_error, error, handler",
    "finally": "ensure, always",
    "cases": "case, branches, options",
    "default": "else, otherwise, fallback",
    "messages": "prompt, history, conversation, input",
    "system": "systemPrompt, instructions, system_message",
    "maxTokens": "maxOutputTokens, max_completion_tokens, num_predict",
    "model": "modelId, model_name, engine",
    "apiKey": "key, token, secret",
    "every": "interval, period, frequency, seconds",
    "required": "is_required, mandatory",
    "nullable": "nullish, allowNull",
    "separator": "delimiter, sep",
    "keepAlive": "heartbeat, ping, heartbeatInterval, pingInterval",
    "concurrency": "parallel, threads, workers, max_parallel, maxConcurrency",
    "limit": "max, take, first, perPage, pageSize",
    "pattern": "regex, regexp",
    "contentTypes": "mime, mimeTypes, accept",
}


def _by_word(words: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the keys that each word may mean."""
    found: dict[str, list[str]] = {}
    for key, names in words.items():
        for name in names.split(", "):
            found.setdefault(fold(name), []).append(key)
    return found


_KEYS_OF: Final = _by_word(_KEYS)
_ADVICE_FOR_KEYS: Final = _words(
    {},
    {},
    {
        "write `disabled: true`, or remove it": "enabled, active",
        "write `when: << not ... >>` with the opposite condition": "unless, skip_if",
        "put the step into `try: {do: [...], catch: []}`": "continue-on-error, continueOnFail, ignore_errors",
        "write the variable as `<< env.NAME >>` where it is used": "env, secrets, environment",
        "write `server: {cors: ...}` in streamstack.yaml": "cors",
    },
)


def meant_key(word: str, known: Collection[str]) -> tuple[str, bool]:
    """Return the key of a place that a misspelt or foreign word may mean ("" for none), and whether that is certain.

    ``known`` are the keys that the place can have, without those that are written there.
    """
    return _meant(word, known, _KEYS_OF)


def _meant(word: str, known: Collection[str], words: Mapping[str, list[str]]) -> tuple[str, bool]:
    if len(word) > 100:
        return "", False
    meant = [key for key in words.get(fold(word), ()) if key in known]
    if meant and fold(word) not in map(fold, known):
        return meant[0], len(meant) == 1
    return nearest_and_sure(word, known)


def advice_for_key(word: str) -> str:
    """Return what to write instead of a foreign key that no key here stands for, or ""."""
    advice = look_up(word, _ADVICE_FOR_KEYS)
    return advice.hint if advice else ""


# ------------------------------------------------------------------------------------ keys of tests

#: The words of Jest, Mocha, pytest, Cucumber, Postman, WireMock, MSW, Tavern and Pact, by key of a test file.
_TEST_KEYS_OF: Final = _by_word(
    {
        "tests": "test, cases, scenarios, specs, suite, describe, it, items",
        "name": "it, title, test, description, label, scenario, summary, testName, id",
        "request": "when, act, call, req, http, input, send",
        "requests": "steps, sequence, exchanges, stages",
        "upstreams": "given, mock, mocks, stub, stubs, mappings, interactions, intercept, nock, arrange, upstream, "
        "servers",
        "expect": "then, assert, asserts, assertions, expected, should, response, expectation, expectations, verify, "
        "want, check",
        "respond": "response, reply, replies, returns, return, thenReturn, willReturn, answer, responses, with",
        "match": "request, on, when, matcher, matches",
        "client": "reader, consumer, browser",
        "env": "environment, vars, variables, envs",
        "rows": "data, tables, seeds, database, db, records, fixtures",
        "sql": "setup, before, beforeEach, setUp, query, statement",
        "now": "clock, date, freeze, freezeTime, frozenTime, currentTime",
        "seed": "randomSeed, random",
        "time": "timers, fakeTimers, clock",
        "method": "verb, httpMethod",
        "path": "url, uri, route, endpoint, urlPath",
        "url": "uri, path, endpoint, route, href, host, urlPattern",
        "query": "params, qs, queryParameters, searchParams",
        "headers": "header",
        "body": "json, data, payload, content, bodyPatterns",
        "json": "jsonBody",
        "form": "urlencoded, formData, form_params",
        "multipart": "formdata, files, parts",
        "auth": "user, claims, authentication, jwt, token, authorization, as",
        "file": "bodyFile, bodyFileName, fixture, path",
        "chunks": "stream, pieces, parts",
        "events": "sse",
        "model": "llm, completion, chat, ai",
        "messages": "websocket, frames",
        "status": "statusCode, code, http_status",
        "delay": "fixedDelay, fixedDelayMilliseconds, delayDistribution, chunkedDribbleDelay, interval, every, pause",
        "firstAfter": "latency, initialDelay, ttfb, after",
        "cutAfter": "cut, truncateAfter, abortAfter, dropAfter, closeAfter",
        "stallAfter": "stall, hangAfter, freezeAfter",
        "reset": "connectionReset, rst",
        "refuse": "refused, connectionRefused",
        "text": "content, output, message, contains",
        "by": "split, unit",
        "every": "interval, delay, pace",
        "toolCalls": "tools, functionCalls",
        "usage": "tokens",
        "error": "exception, throws, raises",
        "done": "end, finish",
        "streamed": "streaming, isStreaming",
        "elapsed": "duration, took",
        "outcome": "result, state",
        "calls": "requests, upstreamCalls, upstreams, verify, called, interactions",
        "count": "times, calledTimes, number",
        "closedEarly": "closed, aborted, cancelled",
        "database": "db, tables",
        "log": "logs, logged, stdout",
        "leaveAfter": "disconnectAfter, abortAfter, closeAfter, leave",
        "stopAfter": "cancelAfter, stop",
        "resumeAfter": "reconnectAfter, resume",
        "readDelay": "delay, slow, throttle",
        "after": "delay, wait, at",
        "data": "text, content, body, value, message",
        "event": "type, name",
        "value": "data, text, content, body",
    }
)
_ADVICE_FOR_TEST_KEYS: Final = _words(
    {},
    {},
    {
        "write the value where it is expected, or a binding: `<< value | length > 3 >>`": "equals, toEqual, toBe, eq, "
        "contains, toContain, includes, match, matches, matchesJsonPath, jsonpath, regex, greaterThan, lessThan, "
        "assertThat, jsonSchema",
        "remove it: each test begins with an empty state": "teardown, tearDown, after, afterEach, afterAll, cleanup",
        "write what all tests share at the top of the file: `env`, `upstreams`, `rows`, `sql`": "beforeAll, "
        "background, defaults, common",
        "remove it: a test ends when its response has ended": "timeout, retries, retry",
        "write one test for each": "parametrize, examples, table, each, matrix, forEach",
        "write `faults: all`, or `cutAfter`, `stallAfter`, `reset`, `refuse` of a response": "fault, chaos",
    },
)


def meant_test_key(word: str, known: Collection[str]) -> tuple[str, bool]:
    """Return the key of a test file that a misspelt or foreign word may mean, as `meant_key` does."""
    if advice_for_test_key(word) and not any(key in known for key in _TEST_KEYS_OF.get(fold(word), ())):
        return "", False
    return _meant(word, known, _TEST_KEYS_OF)


def advice_for_test_key(word: str) -> str:
    """Return what to write instead of a foreign key that no key of a test file stands for, or ""."""
    advice = look_up(word, _ADVICE_FOR_TEST_KEYS)
    return advice.hint if advice else ""


# ----------------------------------------------------------------------------------------- filters

_CONDITION: Final = "write a condition: "
FILTERS: Final = _words(
    {
        "length": "len, size, strlen, sizeof, count_items, array_length, mb_strlen, cardinality",
        "upper": "upcase, uppercase, to_upper, toUpperCase, strtoupper, mb_strtoupper",
        "lower": "downcase, lowercase, to_lower, toLowerCase, strtolower, mb_strtolower",
        "capitalize": "ucfirst, upper_first, capitalise",
        "title": "ucwords, title_case, titleize, startcase",
        "trim": "strip_whitespace, trim_space, btrim",
        "replace": "replaceAll, replace_all, str_replace, gsub",
        "split": "explode, str_split",
        "lines": "splitlines, split_lines",
        "join": "implode, concat_list, join_array",
        "toInteger": "to_int, parseInt, intval, integer, number.parse, toInt, to_integer, asInt",
        "toDecimal": "to_decimal, parseFloat, floatval, number, toNumber, to_number, Number, decimal, asFloat",
        "toText": "to_text, to_string, toString, str, strval, text, String, asText",
        "toJson": "json_encode, to_json, JSON.stringify, stringify, json, format_json, dump, jsonify",
        "fromJson": "json_decode, from_json, JSON.parse, parse_json, json_parse, parseJson",
        "base64": "base64_encode, btoa, b64enc, encode_base64, b64encode",
        "unbase64": "base64_decode, atob, b64dec, decode_base64, b64decode",
        "urlEncode": "url_encode, encodeURIComponent, rawurlencode, encodeURI, escape_url_query, uri_encode",
        "urlDecode": "url_decode, decodeURIComponent, rawurldecode, decodeURI, uri_decode",
        "escape": "html_escape, htmlspecialchars, escape_html, htmlentities, escapeHtml",
        "striptags": "strip_tags, strip_html, stripHtml, removeTags",
        "slug": "slugify, parameterize, to_slug",
        "reverse": "array_reverse, strrev, reversed",
        "sort": "sorted, array_sort, sort_array",
        "unique": "uniq, array_unique, distinct, dedup, removeDuplicates, deduplicate",
        "flatten": "flat, array_flatten, flattenDeep",
        "merge": "array_merge, Object.assign",
        "keys": "array_keys, Object.keys, get_keys, object_keys",
        "values": "array_values, Object.values, get_values, object_values",
        "entries": "Object.entries, get_entries, to_entries, object_entries",
        "fromEntries": "Object.fromEntries, from_entries",
        "pick": "only, select_keys",
        "omit": "unpick, except, without, unset, del",
        "groupBy": "group_by, array_group_by",
        "indexBy": "index_by, keyBy, key_by",
        "sortBy": "sort_by, orderBy, order_by",
        "sum": "array_sum, total",
        "mean": "avg, average, array_avg",
        "min": "array_min, minimum, least",
        "max": "array_max, maximum, greatest",
        "abs": "absolute, Math.abs, number_abs",
        "ceil": "ceiling, Math.ceil",
        "floor": "Math.floor",
        "round": "Math.round, toFixed, roundTo",
        "padStart": "lpad, rjust, pad_left",
        "padEnd": "rpad, ljust, pad_right",
        "indexOf": "strpos, array_search, index_of",
        "batch": "chunk, array_chunk, chunked, chunk_array, in_batches",
        "truncateWords": "truncate_words, words_limit",
        "wordCount": "str_word_count, count_words, number_of_words",
        "first": "head, array_first, first_item",
        "last": "array_last, last_item",
        "random": "sample, array_rand, randomItem",
        "date": "strftime, format_date, formatDate, format_timestamp, dateFormat, toDateString, date_format, ts_format",
        "toTimestamp": "to_timestamp, strtotime, parseDate, Date.parse, toDateTime",
        "addTime": "date_add, dateAdd, transform_timestamp, addDuration",
        "regexMatch": "regex_match, preg_match, match, re_match, matches, test_regex, regex_test",
        "regexFind": "regex_match_first, regex_find, re_find, regex_search",
        "regexReplace": "regex_replace, preg_replace, re_replace, re_replace_all, sub",
        "hash": "sha256, sha_256, digest, sha2",
        'hash("md5")': "md5, md5sum",
        'hash("sha1")': "sha1, sha_1",
        'hash("sha512")': "sha512, sha_512",
        "default": "first_notnull, ifNull, coalesce, nvl, or_else, catch, default_if_none, fallback",
        "dictsort": "ksort, sort_keys",
    },
    {},
    {
        "write `x[0:5]` for a part of a text or list": "substr, substring, mb_substr, take, skip, drop, array_slice, "
        "limit, offset, left, right, sublist, trunc",
        "write `a ~ b` to join texts, `a + b` to join lists": "concat, concatenate, append, push, prepend, unshift, "
        "array_push, strcat",
        "write `a + b`, `a - b`, `a * b`, `a / b`, `a % b` or `a ** b`": "plus, minus, times, divided_by, modulo, add, "
        "subtract, multiply, divide, mod, modulus, pow, power",
        _CONDITION + '`"part" in text`': "contains, includes, str_contains, icontains, has, in_array, contains_text, "
        "has_key, hasOwnProperty",
        _CONDITION
        + '`text | regexMatch("^start")`, or `text[0:5] == "start"`': "starts_with, startsWith, istarts_with, "
        "has_prefix, str_starts_with",
        _CONDITION + '`text | regexMatch("end$")`': "ends_with, endsWith, iends_with, has_suffix, str_ends_with",
        _CONDITION + "`a == b`, `a != b`, `a < b`, `a > b`": "equals, not_equals, eq, ne, gt, lt, gte, lte, less_than, "
        "greater_than, equal, isEqual",
        _CONDITION
        + "`x is empty`, `x is none`, `x is string`, `x is list`": "is_null, is_empty, isEmpty, isset, empty, "
        "is_text, is_array, is_object, is_int, is_string, is_number, isArray, isNaN, nonempty",
        "write `not x`": "not, negate, is_false",
        "write `x is true`, or a comparison": "to_bool, toBoolean, bool, boolean, boolval, asBool",
        'write `list | selectattr("field", "gt", 1)`, or `list | select("number")`': "filter, where, find, "
        "array_filter, "
        "findAll, grep, filter_by, some, every, any, all, find_first, array_find",
        'write `list | map(attribute="field")`, or `list | map("upper")`': "pluck, array_map, map_each, array_column, "
        "transform, collect, column",
        "write `list | sum`, or a `forEach` step with `set`": "reduce, fold, accumulate, array_reduce, inject",
        'write `"text <<x>> text"`, or `a ~ b`': "sprintf, format, printf, interpolate, template, "
        "number_format, vsprintf",
        'write `list | reject("none")`, or `list | reject("empty")`': "filter_null, filter_empty, compact, "
        "filter_empty_text",
        'write `list | rejectattr("field")`, or `x not in list`': "diff, array_diff, difference, intersect, "
        "array_intersect, remove, intersection",
        "write `now()`": "current_timestamp, timestamp_now, epoch, unix_timestamp",
        'write `x | hmac("sha256", key)`': "hmac_sha256, hmac_sha1, hmac_md5, hash_hmac, create_hmac, hmac_sha512",
        "write `x | random`, or sort by a random field": "shuffle, array_shuffle",
        "write `x.a.b`, or `x | default(...)` where it may be missing": "get, dig, path, lookup, jmespath, lodash_get, "
        "array_get, data_get, json_path, jq",
        'write `[a, {"b": 1}] | merge`, or `{...}` with all keys': "set, put, assign, set_key, with_key, update",
        "write `x | trim`, or `x | regexReplace`": "ltrim, rtrim, lstrip, rstrip, trimStart, trimEnd, chomp",
        'write `x | map("toText") | join(",")`': "csv_encode, to_csv, format_csv, toCsv",
        "write a `csv.read` step": "csv_decode, parse_csv, csv_parse",
        "write a `jwt.sign` or `jwt.verify` step": "jws_encode, jws_decode, jwt_encode, jwt_decode, encrypt, decrypt",
        "write the steps of a `lambda` as filters, or a `forEach` step": "lambda, apply, pipe, tap, use",
        "write the text as it is: strings are UTF-8": "utf8_encode, utf8_decode, encode, decode, "
        "convert_encoding, iconv",
        "write `uuid()`": "create_uid, uniqid, guid, newGuid",
    },
)

# ------------------------------------------------------------------------ functions of expressions

#: Functions by their dotted names; those that are filters here, too.
CALLS: Final = _words(
    {
        "now": "Date.now, time, current_time, getdate, datetime.now, DateTime.now, timestamp_unix, moment, utcnow, "
        "datetime.utcnow, microtime, getCurrentDate",
        "today": "date.today, curdate, current_date",
        "uuid": "uuid4, uuid_v4, crypto.randomUUID, randomUUID, guid, uuidv4, uuid.uuid4, gen_random_uuid, $uuid",
        "random": "rand, Math.random, random.random",
        "randomInteger": "randint, random_int, mt_rand, random.randint",
        "range": "seq, xrange, generate_series, numbers",
    },
    {},
    {
        "write a step of its own: `- log: ...`": "console.log, console.error, print, echo, var_dump, "
        "print_r, dd, printf",
        "write `null` for a missing value": "None, nil",
        'write `"text <<x>> text"`, or `a ~ b`': "sprintf, format, f, String.format, concat",
        "write `a if condition else b`": "if, iif, IIF, ifelse, ternary, cond, when, switch",
        "write `x | default(...)`": "coalesce, ifNull, isset, IFNULL, nvl, ifempty, or_else, get",
        "write `env.NAME`": "getenv, os.getenv, os.environ.get, process.env, env_var, config",
        "write `input.name`, or `request.body` for all of it": "json, content, meta, request, req.body, get_input, "
        "$input.first, $input.all, $input.item, input_get, getBody, $json",
        "write `[a, b] | max` or `| min`": "Math.max, Math.min, max, min, greatest, least",
        "write `list | map(...)`, `| selectattr(...)` or a `forEach` step": "lambda, function, map, filter, reduce",
        "write `x is list`, `x is mapping` or `x is string`": "Array.isArray, isinstance, typeof, "
        "type, is_array, gettype",
        "write `x | regexMatch(...)`": "RegExp, re.match, re.search, preg_match, new RegExp",
        "write `[...]` for a list, `{...}` for an object": "Array, Object, dict, list, array, tuple, set",
        "write `x is defined`": "defined, exists, has, empty, is_null, hasattr",
    },
)

#: Properties of values that are filters here.
PROPERTIES: Final = _words(
    {
        "length": "length, size, count, len, Count, Length",
        "first": "first",
        "last": "last",
        "keys": "keys",
        "values": "values",
    }
)

# ------------------------------------------------------------------------------------------- names

#: Names of values, with what is read here. Names of the author's own come first.
NAMES: Final = _words(
    {
        "loop.index": "loop_index, forloop.index, loopIndex, iteration",
        "loop.index0": "forloop.index0, $index, loop_index0, $itemIndex, $runIndex",
        "null": "undefined, nil, None, nothing, NaN, NULL, void",
        "true": "yes, TRUE",
        "false": "no, FALSE",
        "input": "inputs, params, args, $input, arguments, payload, $json, vars, json",
        "env": "process.env, environ, secrets, $env, $vars, environment, ENV",
        "request": "req, $request, http_request, $http",
        "request.query": "query, querystring, query_params, $_GET, qs",
        "request.headers": "headers, $http_headers, http_headers, $headers",
        "request.cookies": "cookies, $_COOKIE",
        "request.body": "body, $body, raw_body, request_body, $_POST, $request_body, requestBody",
        "request.ip": "ip, remote_addr, $remote_ip, client_ip, remote_ip",
        "request.method": "$request_method, http_method, $request_verb",
        "request.path": "$request_uri, url_path, pathname",
        "auth": "user, current_user, $auth, currentUser, auth_user, principal, session, claims",
        "auth.sub": "user_id, userId, $auth_id",
        "run.id": "$execution.id, run_id, execution_id, request_id, runId, correlation_id, trace_id",
        "stream.count": "chunk_index, chunk_count, chunkIndex",
        "error.message": "error_message, $error_message, err_msg",
        "error": "err, e, exception, $error, exc",
        "now()": "$now, current_timestamp, timestamp, NOW, now_utc",
        "today()": "$today, current_date, TODAY",
        "uuid()": "$uuid, guid",
        "item": "$item, $this, element, each, it",
    },
    {},
    {
        "a step's result is read by the name in its `as`": "steps, $node, $var, $steps, needs, $prevNode, "
        "outputs, jobs",
        "a name in a list expression: write `list | map(...)` or a `forEach` step": "lambda, function, fn",
        "values have no code: write filters, as in `x | upper`": "Math, JSON, Object, Array, String, Number, Date, "
        "console, window, process, os, sys, datetime, lodash, moment, crypto",
        "write the name of the loop's item, which `as` declares (`item` without it)": "this, self, root",
        "write `env.NAME` for a variable of the environment": "github, runner, context, ctx, matrix",
    },
)

#: Statements and operators of other languages, by their first word or sign; what is written here.
SYNTAX: Final = {
    "lambda": 'write filters, as in `list | map(attribute="id")`, or a `forEach` step: expressions have no functions',
    "function": 'write filters, as in `list | map(attribute="id")`, or a `forEach` step: expressions have no functions',
    "new": "write the value itself: `now()`, `[...]`, `{...}`",
    "typeof": "write `x is string`, `x is number`, `x is list` or `x is mapping`",
    "instanceof": "write `x is string`, `x is number`, `x is list` or `x is mapping`",
    "await": "remove it: each step waits for its result",
    "let": "write a step of its own: `- set: {name: << value >>}`",
    "const": "write a step of its own: `- set: {name: << value >>}`",
    "var": "write a step of its own: `- set: {name: << value >>}`",
    "return": "write a step of its own: `- return: << value >>`",
    "for": 'write filters, as in `list | map(attribute="id")`, or a `forEach` step',
    "then": "write `a if condition else b`",
    "like": 'write `"part" in text`, or `text | regexMatch("...")`',
    "between": "write `low <= x <= high`",
    "isnot": "write `x is not none`",
    "AND": "write `and`",
    "OR": "write `or`",
    "NOT": "write `not x`",
}
#: Signs, with what is written here and what can be put in their place ("" for nothing).
SIGNS: Final = {
    "||": ("write `or`", "or"),
    "&&": ("write `and`", "and"),
    "&": ("write `and`, or `~` to join texts", ""),
    "===": ("write `==`", "=="),
    "!==": ("write `!=`", "!="),
    "<>": ("write `!=`", "!="),
    "?": ("write `a if condition else b`, or `x | default(...)`", ""),
    "??": ("write `x | default(...)`", ""),
    "?.": ("write `.`, and `| default(...)` behind the whole path", "."),
    "?:": ("write `x | default(...)`", ""),
    "!": ("write `not x`", "not"),
    "=>": ('write filters, as in `list | map(attribute="id")`, or a `forEach` step', ""),
    "->": ("write `.`", "."),
    "++": ("write `x + 1` in a step of its own: `- set: {x: << x + 1 >>}`", ""),
    "--": ("write `x - 1` in a step of its own: `- set: {x: << x - 1 >>}`", ""),
    "+=": ("write a step of its own: `- set: {x: << x + 1 >>}`", ""),
    "-=": ("write a step of its own: `- set: {x: << x - 1 >>}`", ""),
    "`": ('write the text in quotes, and join values with `~`: `"Hello " ~ name`', ""),
    "$": ("a name has no `$`: write `name`, `input.name` or `env.NAME`", ""),
    "@": ("a name has no `@`: write the name alone", ""),
    "\u201c": ("write straight quotes", '"'),
    "\u201d": ("write straight quotes", '"'),
    "\u201e": ("write straight quotes", '"'),
    "\u2018": ("write straight quotes", "'"),
    "\u2019": ("write straight quotes", "'"),
    "\u2013": ("write `-`", "-"),
    "\u2212": ("write `-`", "-"),
    "\u00d7": ("write `*`", "*"),
    "\u2260": ("write `!=`", "!="),
    "\u2264": ("write `<=`", "<="),
    "\u2265": ("write `>=`", ">="),
}

# ------------------------------------------------------------------------------------------- dates

_MOMENT: Final = {
    "YYYY": "%Y", "YY": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "DDDD": "%j", "DD": "%d", "dddd": "%A",
    "ddd": "%a", "HH": "%H", "hh": "%I", "mm": "%M", "ss": "%S", "yyyy": "%Y", "yy": "%y", "dd": "%d",
    "A": "%p", "a": "%p", "EEEE": "%A", "X": "%s",
}  # fmt: skip
_PHP: Final = {
    "Y": "%Y", "y": "%y", "m": "%m", "d": "%d", "H": "%H", "h": "%I", "i": "%M", "s": "%S", "D": "%a", "l": "%A",
    "F": "%B", "M": "%b", "A": "%p", "U": "%s",
}  # fmt: skip
_MOMENT_PARTS: Final = re.compile("|".join(sorted(_MOMENT, key=len, reverse=True)))


def date_format(text: str) -> str:
    """Return the format that a date format of JavaScript, Java, Luxon or PHP means, or "" where it is none of them."""
    letters = re.sub(r"[^A-Za-z]|[TZ]", "", text)
    if not letters or "%" in text:
        return ""
    if not _MOMENT_PARTS.sub("", letters):
        return _MOMENT_PARTS.sub(lambda found: _MOMENT[found[0]], text)
    if all(letter in _PHP for letter in letters):
        return "".join(_PHP.get(letter, letter) for letter in text)
    return ""
