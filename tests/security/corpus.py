"""Malicious and broken requests, with the statuses that are right for them; 0 is a closed connection.

Smuggling after RFC 9112, section 11.2, and https://portswigger.net/web-security/request-smuggling; the rest after what
was found in servers before.
"""

from __future__ import annotations

import gzip
import zlib

import brotli  # type: ignore[import-untyped]

from tests.security.attacked import chunked, form, json, part, post, request

Case = tuple[str, bytes, tuple[int, ...]]

REFUSED = (400,)
SERVED = (200,)
#: Fits nothing: it may be refused in any way that blames the client.
CLIENTS = (0, 400, 404, 405, 406, 408, 413, 414, 415, 417, 422, 431)

_SECOND = b"GET /hello/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
_TE = b"Transfer-Encoding: "
_CL = b"Content-Length: "
_END = b"0\r\n\r\n"


def _post(*headers: bytes, body: bytes = b"") -> bytes:
    return request(b"POST /json", b"Content-Type: application/json", *headers, body=body)


SMUGGLED: list[Case] = [
    ("length and chunks", _post(_CL + b"5", _TE + b"chunked", body=_END + _SECOND), REFUSED),
    ("chunks and length", _post(_TE + b"chunked", _CL + b"5", body=_END + _SECOND), REFUSED),
    ("two lengths", _post(_CL + b"2", _CL + b"45", body=b"{}" + _SECOND), REFUSED),
    ("two lengths, the same", _post(_CL + b"2", _CL + b"2", body=b"{}"), REFUSED),
    ("chunks twice", _post(_TE + b"chunked", _TE + b"chunked", body=_END), REFUSED),
    ("chunks, then identity", _post(_TE + b"chunked", _TE + b"identity", body=_END), REFUSED),
    ("chunks in HTTP/1.0", b"POST /json HTTP/1.0\r\n" + _TE + b"chunked\r\n\r\n" + _END, REFUSED),
    ("space before the colon", _post(b"Transfer-Encoding : chunked", body=_END), REFUSED),
    ("tab before the colon", _post(b"Content-Length\t: 2", body=b"{}"), REFUSED),
    ("folded coding", _post(b"Transfer-Encoding:\r\n chunked", body=_END), REFUSED),
    ("folded length", _post(b"Content-Length:\r\n 2", body=b"{}"), REFUSED),
    ("folded header", request(b"GET /hello/x", b"A: b\r\n c"), REFUSED),
    ("folded first header", b"GET /hello/x HTTP/1.1\r\n Host: x\r\n\r\n", REFUSED),
    ("line feeds alone", b"GET /hello/x HTTP/1.1\nHost: x\n\n", REFUSED),
    ("line feed after a header", b"GET /hello/x HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", REFUSED),
    ("line feed at the end", b"GET /hello/x HTTP/1.1\r\nHost: x\r\n\n", REFUSED),
    ("carriage return alone", b"GET /hello/x HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", REFUSED),
    ("absolute form of another host", request(b"GET http://evil.example/hello/x"), SERVED),
    ("fragment", request(b"GET /hello/x#/kept"), REFUSED),
    ("two hosts", request(b"GET /hello/x", b"Host: evil.example"), REFUSED),
    ("no host", b"GET /hello/x HTTP/1.1\r\n\r\n", REFUSED),
    *(
        (f"host {host!r}", request(host=host), REFUSED)
        for host in (b"a b", b"a/b", b"a@b", b"a:b", b"[::1", b"a\\b", b"\xff", b'"a"', b"a?b", b"a#b")
    ),
    *(
        (f"coding {coding!r}", _post(_TE + coding, body=_END), REFUSED)
        for coding in (
            b"chunked, identity",
            b"identity",
            b"identity, chunked",
            b"gzip, chunked",
            b"xchunked",
            b"chunked\x0b",
            b"\x0bchunked",
            b"chunked\x00",
            b'"chunked"',
            b"chunked;q=1",
            b"chunked,",
            b"chunked,chunked",
            b"",
            b"chunked\xa0",
            b"chun\xc4\xb7ed",
        )
    ),
    *(
        (f"length {length!r}", _post(_CL + length, body=b"{}   "), REFUSED)
        for length in (
            b"+5",
            b"-5",
            b"5, 5",
            b"5,5",
            b"0x5",
            b"5 5",
            b"",
            b"5e0",
            b"5.0",
            b"5_0",
            b"5\x00",
            b"\xb2",
            b"\xd9\xa5",
            b"9" * 30,
            b"18446744073709551621",
        )
    ),
]

CHUNKS: list[Case] = [
    ("extension", chunked(b"2;a=b\r\n{}\r\n" + _END), SERVED),
    ("long extension", chunked(b"2;a=" + b"b" * 100_000 + b"\r\n{}\r\n" + _END), (200, 400)),
    ("line feed in an extension", chunked(b"2;a=\nb\r\n{}\r\n" + _END), REFUSED),
    ("negative size", chunked(b"-2\r\n{}\r\n" + _END), REFUSED),
    ("0x before the size", chunked(b"0x2\r\n{}\r\n" + _END), REFUSED),
    ("size of 17 digits", chunked(b"f" * 17 + b"\r\n{}"), REFUSED),
    ("space after the size", chunked(b"2 \r\n{}\r\n" + _END), REFUSED),
    ("space before the size", chunked(b" 2\r\n{}\r\n" + _END), REFUSED),
    ("line feeds alone", chunked(b"2\n{}\n0\n\n"), REFUSED),
    ("no line end", chunked(b"2\r\n{}0\r\n\r\n"), REFUSED),
    ("longer than it says", chunked(b"1\r\n{}\r\n" + _END), REFUSED),
    ("no size", chunked(b"\r\n{}\r\n" + _END), REFUSED),
    ("words", chunked(b"two\r\n{}\r\n" + _END), REFUSED),
    ("trailer", chunked(b"2\r\n{}\r\n0\r\nA: b\r\n\r\n"), SERVED),
    ("length in a trailer", chunked(b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n"), (200, 400)),
    ("malformed trailer", chunked(b"2\r\n{}\r\n0\r\nA\x00: b\r\n\r\n"), CLIENTS),
    ("many trailers", chunked(b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 10_000 + b"\r\n"), CLIENTS),
    ("long trailer", chunked(b"2\r\n{}\r\n0\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n"), CLIENTS),
    ("many small ones", chunked(b"1\r\n \r\n" * 100_000 + b"2\r\n{}\r\n" + _END), SERVED),
    ("more than there may be", chunked(b"10000\r\n" + (b" " * 65536 + b"\r\n10000\r\n") * 17), (413,)),
]

OVERSIZED: list[Case] = [
    ("path", request(b"GET /hello/" + b"x" * 20_000), (431,)),
    ("query", request(b"GET /hello/x?q=" + b"x" * 20_000), (431,)),
    ("method", request(b"G" * 50_000 + b" /hello/x"), REFUSED),
    ("value of a header", request(b"GET /hello/x", b"A: " + b"x" * 20_000), (431,)),
    ("name of a header", request(b"GET /hello/x", b"A" * 20_000 + b": x"), (431,)),
    ("number of headers", request(b"GET /hello/x", *[b"A: b"] * 200), (431,)),
    (
        "number of cookies",
        request(b"GET /hello/x", b"Cookie: " + b"; ".join(b"a%d=b" % n for n in range(1500))),
        SERVED,
    ),
    ("number of languages", request(b"GET /hello/x", b"Accept: " + b"a/b," * 3000), (406,)),
    ("number of fields of a query", request(b"GET /hello/x?" + b"a&" * 7000), REFUSED),
    ("empty fields of a query", request(b"GET /hello/x?" + b"&" * 15_000), REFUSED),
    ("one name again and again", request(b"GET /hello/x?" + b"q=1&" * 900), REFUSED),
    ("length of a body", request(b"POST /json", _CL + b"99999999"), (413,)),
    ("body", json(b'{"t":"' + b"x" * 2_000_000 + b'"}'), (413,)),
    ("fields of a form", post(b"/form", b"application/x-www-form-urlencoded", b"a=b&" * 5000), REFUSED),
    ("empty fields", post(b"/form", b"application/x-www-form-urlencoded", b"&" * 900_000), REFUSED),
    ("parts of a form", form(*[part(b"v")] * 5000), REFUSED),
    ("headers of a part", form(part(b"v", b'name="t"', *[b"A: b"] * 5000)), REFUSED),
    ("header of a part", form(part(b"v", b'name="t"', b"A: " + b"b" * 900_000)), REFUSED),
    ("name of a part", form(part(b"v", b'name="' + b"n" * 100_000 + b'"')), REFUSED),
    ("name of a file", form(part(b"v", b'name="file"; filename="' + b"n" * 5000 + b'"')), SERVED),
    ("boundary", post(b"/form", b"multipart/form-data; boundary=" + b"X" * 5000, b"--" + b"X" * 5000), REFUSED),
    ("parameters of a type", post(b"/json", b"application/json" + b";a=b" * 3000, b"{}"), SERVED),
    ("line of a stream", post(b"/rows", b"application/x-ndjson", b'"' + b"a" * 900_000), REFUSED),
    ("token", request(b"GET /kept", b"Authorization: Bearer " + b"a" * 16_000), (401,)),
]

TEXTS: list[Case] = [
    ("bytes in a path", request(b"GET /hello/\xff\xfe"), REFUSED),
    ("bytes in a path, encoded", request(b"GET /hello/%ff%fe"), REFUSED),
    ("overlong dot", request(b"GET /hello/%c0%ae"), REFUSED),
    ("surrogate in a path", request(b"GET /hello/%ED%A0%80"), REFUSED),
    ("no digits after %", request(b"GET /hello/%zz"), SERVED),
    ("bytes in a query", request(b"GET /hello/x?q=\xff"), REFUSED),
    ("bytes in a query, encoded", request(b"GET /hello/x?q=%ff"), REFUSED),
    ("bytes in the name of a field", request(b"GET /hello/x?%ff=1"), REFUSED),
    ("bytes in a header", request(b"GET /hello/x", b"h: \xff\xfe"), REFUSED),
    ("bytes in a cookie", request(b"GET /hello/x", b"Cookie: c=\xff\xfe"), REFUSED),
    ("bytes in an unknown cookie", request(b"GET /hello/x", b"Cookie: d=\xff; \xff=d"), SERVED),
    ("odd cookies", request(b"GET /hello/x", b'Cookie: a="b; =x; ;;; $Version=1; a[]=2; __proto__=1'), SERVED),
    ("bytes in an origin", request(b"GET /hello/x", b"Origin: \xff\xfe"), SERVED),
    ("bytes in Accept", request(b"GET /hello/x", b"Accept: \xff;q=\xff"), (406,)),
    ("bytes in a type", post(b"/json", b"\xff/\xfe; charset=\xff", b"{}"), (415,)),
    ("bytes in a body", json(b'{"t":"\xff"}'), REFUSED),
    ("bytes in a form", post(b"/form", b"application/x-www-form-urlencoded", b"t=%ff"), REFUSED),
    ("bytes in a part", form(part(b"\xff")), REFUSED),
    ("bytes in the name of a part", form(part(b"v", b'name="\xff"')), REFUSED),
    ("bytes in the name of a file", form(part(b"v", b'name="file"; filename="\xff\xfe"')), (200, 400)),
    ("bytes in a stream", post(b"/rows", b"application/x-ndjson", b'"\xff"\n'), REFUSED),
    ("bytes in a token", request(b"GET /kept", b"Authorization: Bearer \xff.\xff.\xff"), (401,)),
    ("bytes in a key", request(b"GET /kept", b"X-Key: \xff"), (401,)),
    ("bytes in the id of a request", request(b"GET /hello/x", b"X-Request-Id: \xff"), SERVED),
    ("control characters in a header", request(b"GET /hello/x", b"A: b\x01c"), REFUSED),
    ("NUL in a header", request(b"GET /hello/x", b"A: b\x00c"), REFUSED),
    ("NUL in a name", request(b"GET /hello/x", b"A\x00: b"), REFUSED),
    ("NUL in a path", request(b"GET /hello/\x00"), REFUSED),
    ("NUL in a path, encoded", request(b"GET /hello/%00"), SERVED),
    ("UTF-16", json("{}".encode("utf-16")), REFUSED),
    ("lone surrogate", json(rb'{"t":"\ud800"}'), REFUSED),
    ("words for other than UTF-8", post(b"/json", b"application/json; charset=utf-7", b"{}"), (415,)),
]

NUMBERS_AND_DEPTHS: list[Case] = [
    ("10,000 lists", json(b'{"j":' + b"[" * 10_000 + b"]" * 10_000 + b"}"), REFUSED),
    ("10,000 lists that stay open", json(b"[" * 10_000), REFUSED),
    ("300,000 lists", json(b"[" * 300_000), REFUSED),
    ("10,000 objects", json(b'{"j":' * 10_000 + b"1" + b"}" * 10_000), REFUSED),
    ("lists in a query", request(b"GET /hello/x?n=" + b"%5B" * 4000), REFUSED),
    ("10,000 lists in a part", form(part(b"[" * 10_000, b'name="t"', b"Content-Type: application/json")), REFUSED),
    ("10,000 lists in a line", post(b"/rows", b"application/x-ndjson", b"[" * 10_000 + b"]" * 10_000), REFUSED),
    ("exponent", json(b'{"d":1e999999}'), REFUSED),
    ("negative exponent", json(b'{"d":1e-999999}'), REFUSED),
    ("exponent of 30 digits", json(b'{"d":1e' + b"9" * 30 + b"}"), REFUSED),
    ("negative exponent of 30 digits", json(b'{"d":1e-' + b"9" * 30 + b"}"), (200, 400)),
    ("exponents in a list", json(b'{"f":[' + b"1e-400," * 100_000 + b"1]}"), (200, 400)),
    ("900,000 digits", json(b'{"n":' + b"9" * 900_000 + b"}"), REFUSED),
    ("900,000 digits of a decimal", json(b'{"d":0.' + b"9" * 900_000 + b"}"), (200, 400)),
    ("900,000 digits of anything", json(b'{"j":' + b"9" * 900_000 + b"}"), REFUSED),
    ("300 digits of anything", json(b'{"j":' + b"9" * 300 + b"}"), (200, 400)),
    ("digits in a query", request(b"GET /hello/x?n=" + b"9" * 15_000), REFUSED),
    ("exponent in a query", request(b"GET /hello/x?n=1e999999999"), REFUSED),
    ("exponent of 30 digits in a query", request(b"GET /hello/x?d=1e-" + b"9" * 30), REFUSED),
    ("no number", json(b'{"d":NaN}'), REFUSED),
    ("infinity", json(b'{"d":-Infinity}'), REFUSED),
    ("one key again and again", json(b'{"o":{' + b'"a":1,' * 100_000 + b'"a":1}}'), SERVED),
    (
        "many keys with one beginning",
        json(b'{"o":{' + b",".join(b'"%s%d":1' % (b"a" * 8, n) for n in range(40_000)) + b"}}"),
        SERVED,
    ),
    ("keys that Python knows", json(b'{"o":{"__class__":1,"__proto__":{"a":1},"constructor":1}}'), SERVED),
    ("unknown keys that Python knows", json(b'{"__class__":1}'), REFUSED),
    ("mostly unknown keys", json(b"{" + b",".join(b'"k%d":1' % n for n in range(50_000)) + b"}"), REFUSED),
]


def _coded(coding: bytes, body: bytes) -> bytes:
    return json(body, b"Content-Encoding: " + coding)


_SMALL = b'{"t": "' + b"ab" * 500 + b'"}'
_ZEROS = gzip.compress(b"\0" * 50_000_000)

CODED: list[Case] = [
    ("gzip", _coded(b"gzip", gzip.compress(_SMALL)), SERVED),
    ("capitals", _coded(b"GZip", gzip.compress(_SMALL)), SERVED),
    ("deflate", _coded(b"deflate", zlib.compress(_SMALL)), SERVED),
    ("br", _coded(b"br", brotli.compress(_SMALL)), SERVED),
    ("identity", _coded(b"identity", b"{}"), SERVED),
    ("gzip that was cut short", _coded(b"gzip", gzip.compress(_SMALL)[:-9]), REFUSED),
    ("gzip without its check", _coded(b"gzip", gzip.compress(_SMALL)[:-8]), REFUSED),
    ("gzip with a wrong check", _coded(b"gzip", gzip.compress(_SMALL)[:-8] + b"\0" * 8), REFUSED),
    ("deflate that was cut short", _coded(b"deflate", zlib.compress(_SMALL)[:-5]), REFUSED),
    ("br that was cut short", _coded(b"br", brotli.compress(_SMALL)[:-3]), REFUSED),
    ("invalid gzip", _coded(b"gzip", b"{}"), REFUSED),
    ("invalid br", _coded(b"br", b"{}" * 50), REFUSED),
    ("zstd", _coded(b"zstd", b"\x28\xb5\x2f\xfd\x04\x00\x11\x00\x00{}"), (415,)),
    ("an unknown one", _coded(b"x-y", b"{}"), (415,)),
    ("one upon the other", _coded(b"gzip, gzip", gzip.compress(gzip.compress(_SMALL))), (415,)),
    ("two headers", json(b"{}", b"Content-Encoding: gzip", b"Content-Encoding: gzip"), (400, 415)),
    ("bomb", _coded(b"gzip", _ZEROS), (413,)),
    ("br bomb", _coded(b"br", brotli.compress(b"\0" * 50_000_000, quality=5)), (413,)),
    ("deflate bomb", _coded(b"deflate", zlib.compress(b"\0" * 50_000_000)), (413,)),
    ("many small members", _coded(b"gzip", gzip.compress(b"") * 40_000), (200, 400)),
    (
        "bomb in chunks",
        chunked(b"%x\r\n" % len(_ZEROS) + _ZEROS + b"\r\n" + _END).replace(
            b"Transfer", b"Content-Encoding: gzip\r\nTransfer", 1
        ),
        (413,),
    ),
    (
        "bomb to an endpoint without a body",
        request(b"GET /hello/x", b"Content-Encoding: gzip", b"Content-Length: %d" % len(_ZEROS), body=_ZEROS),
        SERVED,
    ),
    (
        "bomb to an unknown path",
        request(b"POST /unknown", b"Content-Encoding: gzip", b"Content-Length: %d" % len(_ZEROS), body=_ZEROS),
        (404,),
    ),
    ("bomb for a text", post(b"/whole", b"text/plain", _ZEROS, b"Content-Encoding: gzip"), (413,)),
    ("bomb for a stream", post(b"/rows", b"application/x-ndjson", _ZEROS, b"Content-Encoding: gzip"), (400, 413)),
    ("bomb in a part", form(part(gzip.compress(b"a" * 10_000_000), b'name="t"', b"Content-Encoding: gzip")), REFUSED),
    (
        "bomb around a form",
        form(part(b"\0" * 900_000)).replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type", 1),
        REFUSED,
    ),
]

FORMS: list[Case] = [
    ("no boundary", post(b"/form", b"multipart/form-data", b"--\r\n"), REFUSED),
    ("empty boundary", post(b"/form", b'multipart/form-data; boundary=""', b"----\r\n"), (200, 400)),
    ("another boundary", post(b"/form", b"multipart/form-data; boundary=YY", b"--XX\r\n\r\n--XX--"), REFUSED),
    ("boundary with a line break", post(b"/form", b'multipart/form-data; boundary="a\tb"', b"--a\tb--"), (200, 400)),
    ("no end", form(part(b"v"), end=b""), REFUSED),
    ("nothing but garbage", form(end=b"garbage" * 1000), REFUSED),
    ("no name", form(b"A: b\r\n\r\nv"), REFUSED),
    ("no headers", form(b"\r\nv"), REFUSED),
    ("line feeds alone", form(part(b"v").replace(b"\r\n", b"\n"), end=b"\n--XX--\n"), REFUSED),
    ("folded header", form(part(b"v", b'name="t"', b"A: b\r\n c")), (200, 400)),
    (
        "a form in a part",
        form(part(b"--YY\r\n\r\nv\r\n--YY--", b'name="t"', b"Content-Type: multipart/mixed; boundary=YY")),
        REFUSED,
    ),
    ("base64", form(part(b"YQ==", b'name="t"', b"Content-Transfer-Encoding: base64")), REFUSED),
    ("length beyond the part", form(part(b"abc", b'name="t"', b"Content-Length: 99999999")), (200, 400)),
    ("length of less than nothing", form(part(b"abc", b'name="t"', b"Content-Length: -1")), (200, 400)),
    ("length that is none", form(part(b"abc", b'name="t"', b"Content-Length: x")), (200, 400)),
    ("unknown charset", form(part(b"v", b'name="t"', b"Content-Type: text/plain; charset=klingon")), (200, 400)),
    ("_charset_", form(part(b"klingon", b'name="_charset_"'), part(b"v")), REFUSED),
    ("extended name, malformed", form(part(b"v", b"name=\"file\"; filename*=klingon''%ff")), (200, 400)),
    ("extended name, no charset", form(part(b"v", b'name="file"; filename*=%ff')), (200, 400)),
    ("extended name of a codec", form(part(b"v", b"name=\"file\"; filename*=zip''%ff")), (200, 400)),
    ("name in pieces", form(part(b"v", b'name="file"; filename*0="a"; filename*1="b"')), (200, 400)),
    ("two names", form(part(b"v", b'name="t"; name="file"')), REFUSED),
    ("semicolons", form(part(b"v", b";" * 2000)), REFUSED),
    ("quotes", form(part(b"v", b'name="' + b"\\" * 3000 + b'"')), REFUSED),
    ("control characters", form(part(b"v", b'name="file"; filename="a\x01b"')), REFUSED),
]

PATHS: list[Case] = [
    ("dots", request(b"GET /../../etc/passwd"), (404,)),
    ("dots, encoded", request(b"GET /hello/%2e%2e/%2e%2e/etc/passwd"), (404,)),
    ("dots, encoded twice", request(b"GET /hello/%252e%252e%252fetc"), SERVED),
    ("slashes, encoded", request(b"GET /hello/..%2f..%2fetc%2fpasswd"), SERVED),
    ("backslashes", request(b"GET /hello/..\\..\\etc"), (200, 400)),
    ("two slashes", request(b"GET //hello/x"), (404,)),
    ("the server's own, spelt otherwise", request(b"GET /%5fhealth"), (404,)),
    ("the server's own, with more", request(b"GET /_health/x"), (404,)),
    ("kept, spelt otherwise", request(b"GET /%6bept"), (401,)),
    ("kept, with a slash", request(b"GET /kept/"), (401,)),
    ("kept, in capitals", request(b"GET /KEPT"), (404,)),
    ("kept, with a semicolon", request(b"GET /kept;a=b"), (404,)),
    ("kept, with dots", request(b"GET /hello/../kept"), (404,)),
    ("kept, absolute", request(b"GET http://x/kept"), (401,)),
    ("kept, another method", request(b"HEAD /kept"), (401,)),
    ("kept, method overridden", request(b"POST /kept", b"X-HTTP-Method-Override: GET", b"Content-Length: 0"), (405,)),
    ("kept, path overridden", request(b"GET /hello/x", b"X-Original-URL: /kept", b"X-Rewrite-URL: /kept"), SERVED),
    ("streams of others", request(b"GET /_streams/x"), (404,)),
    ("a line break", request(b"GET /hello/%0d%0aSet-Cookie:%20evil=1"), SERVED),
    ("a line break in a query", request(b"GET /hello/x?q=%0d%0aSet-Cookie:%20evil=1"), SERVED),
    ("an event of its own", request(b"GET /hello/x?q=%0a%0aevent:%20evil%0adata:%20x%0a%0a"), SERVED),
    ("a proxy's address", request(b"GET evil.example:80"), REFUSED),
    ("a proxy's tunnel", request(b"CONNECT evil.example:80"), CLIENTS),
    ("a file", request(b"GET file:///etc/passwd"), CLIENTS),
    ("port out of range", request(b"GET http://x:99999/hello/x"), REFUSED),
    ("half an address", request(b"GET http://[::1/hello/x"), REFUSED),
    ("a star", request(b"GET *"), REFUSED),
    ("file names that climb", form(part(b"v", b'name="file"; filename="../../../etc/passwd"')), SERVED),
    ("file names of another system", form(part(b"v", b'name="file"; filename="..\\\\..\\\\boot.ini"')), SERVED),
    ("file names, encoded", form(part(b"v", b"name=\"file\"; filename*=utf-8''..%2f..%2fetc%2fpasswd%00")), SERVED),
]

NO_HTTP: list[Case] = [
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, REFUSED),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", REFUSED),
    ("HTTP/0.9", b"GET /hello/x\r\n\r\n", REFUSED),
    ("HTTP/3.0", b"GET /hello/x HTTP/3.0\r\nHost: x\r\n\r\n", REFUSED),
    ("HTTP/1.99", b"GET /hello/x HTTP/1.99\r\nHost: x\r\n\r\n", REFUSED),
    ("words", b"hello\r\n\r\n", REFUSED),
    ("nothing but lines", b"\r\n" * 1000 + b"x\r\n\r\n", REFUSED),
    ("zeros", b"\0" * 10_000, REFUSED),
    ("an unknown method", request(b"BREW /hello/x"), (405,)),
    ("small letters", request(b"get /hello/x"), (405,)),
    ("TRACE", request(b"TRACE /hello/x"), (405,)),
    ("a tab for a space", b"GET\t/hello/x\tHTTP/1.1\r\nHost: x\r\n\r\n", REFUSED),
    ("two spaces", b"GET  /hello/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", (200, 400)),
    ("no colon", request(b"GET /hello/x", b"nothing"), REFUSED),
    ("no name", request(b"GET /hello/x", b": x"), REFUSED),
    ("spaces in a name", request(b"GET /hello/x", b"A b: c"), REFUSED),
    ("another protocol", request(b"GET /hello/x", b"Upgrade: h2c", b"HTTP2-Settings: x"), SERVED),
    ("tea", request(b"POST /json", b"Expect: tea", b"Content-Length: 2", body=b"{}"), (417,)),
]

CREDENTIALS: list[Case] = [
    (f"{name} {value[:30]!r}", request(b"GET /kept", name.encode() + b": " + value), (401,))
    for name in ("Authorization", "X-Key", "Cookie")
    for value in (
        b"Bearer",
        b"Bearer ",
        b"Bearer a.b.c",
        b"Bearer ...",
        b"Bearer e30.e30.",
        b"Bearer eyJhbGciOiJub25lIn0.e30.",
        b"Bearer eyJhbGciOiJcclxuWC1FdmlsOiB4In0.e30.AAAA",  # alg: a line break
        b"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6Ii4uLy4uL2V0Yy9wYXNzd2QifQ.e30.AAAA",
        b"Bearer eyJhbGciOiJIUzI1NiIsImp3ayI6e319.e30.AAAA",
        b"Bearer eyJhbGciOlsxXX0.e30.AAAA",
        b"Bearer W10.e30.AAAA",
        b"Bearer bnVsbA.bnVsbA.AAAA",
        b"Bearer eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiYiJdfQ.e30.AAAA",
        b"Bearer " + b"." * 1000,
        b"Basic Og==",
        b"session=" + b"a.b.c",
        b"session=a.b.c; session=d.e.f",
        b"\x80\x81",
    )
]

CORPUS: dict[str, list[Case]] = {
    "smuggled": SMUGGLED,
    "chunks": CHUNKS,
    "oversized": OVERSIZED,
    "texts": TEXTS,
    "numbers and depths": NUMBERS_AND_DEPTHS,
    "coded": CODED,
    "forms": FORMS,
    "paths": PATHS,
    "no HTTP": NO_HTTP,
    "credentials": CREDENTIALS,
}
