"""Access to endpoints: authentication and rate limits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from http.cookies import SimpleCookie
from ipaddress import IPv6Network
from itertools import pairwise
from typing import Any, Final
from urllib.parse import parse_qsl

from streamstack.connections.state import MemorySlots, Quota, Slots, Verdict
from streamstack.errors import RunError
from streamstack.functions.security import open_callers
from streamstack.functions.state import key_of, open_rates, open_slots, quota_of, refusal, seconds_of, tightest
from streamstack.language.authentication import BEARER, ApiKey, CredentialPlace, Method, Methods
from streamstack.language.definition import Authentication, RateLimit, Way
from streamstack.language.expressions import Value
from streamstack.language.values import Rate, to_json
from streamstack.runtime.plan import Plan
from streamstack.runtime.run import Context, Run
from streamstack.server.headers import CorsHeaders, header_lines, is_of_host
from streamstack.server.replies import RefusalError
from streamstack.server.request import Addresses, Request

#: Methods that change nothing (RFC 9110, section 9.2.1).
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Claims = Mapping[str, Any]


class Guard:
    """What stands before one endpoint: the ways in, any of which will do."""

    __slots__ = ("_challenge", "_optional", "_ways", "authentication")

    def __init__(self, authentication: Authentication, methods: Methods) -> None:
        self.authentication = authentication
        self._optional = authentication.optional
        self._ways = [(way, methods[way.name], _places(methods[way.name])) for way in authentication.ways]
        challenges = dict.fromkeys(_challenge(method) for _, method, _ in self._ways)
        self._challenge = header_lines([("WWW-Authenticate", each) for each in challenges])

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols before a token: browsers want one of those that they offer to be chosen."""
        return tuple(place.name for _, _, places in self._ways for place in places if place.where == "subprotocol")

    async def admit(self, request: Request, context: Context, cors: CorsHeaders) -> Claims | None:
        """Return the claims of the caller; None where authentication is optional and the request has none.

        Raises RefusalError: ``unauthorized``, ``forbidden`` where scopes are missing, ``unavailable`` where no
        key is to be had.
        """
        refusal: RefusalError | None = None
        callers = context.resource(open_callers)
        for way, method, places in self._ways:
            try:
                place, sent = _find(request, places)
                if sent is None:
                    continue
                claims = await callers[method.name].verify(sent)
            except RunError as error:
                refusal = refusal or self._refuse(method, error)
                continue
            missing = [scope for scope in way.scopes if scope not in claims["scopes"]]
            if missing:
                refusal = _lacking(way, method, missing)  # who that is, is known: it says more
                continue
            if place.where == "cookie":
                _refuse_others(request, cors)
            return claims
        if refusal is not None:
            raise refusal
        if self._optional:
            return None
        raise RefusalError("unauthorized", f"this endpoint needs {self._wanted()}", lines=self._challenge)

    def _wanted(self) -> str:
        """Say what a caller has to send, and where."""
        return ", or ".join(
            dict.fromkeys(_describe(method, place) for _, method, places in self._ways for place in places)
        )

    def _refuse(self, method: Method, error: RunError) -> RefusalError:
        if error.code != "unauthorized":
            after = error.retry_after
            lines = b"" if after is None else header_lines([("Retry-After", f"{after:.0f}")])
            return RefusalError(error.code, error.message, status=error.status, lines=lines)
        lines = self._challenge
        if not isinstance(method, ApiKey):
            challenge = f'Bearer error="invalid_token", error_description="{_quoted(error.message)}"'
            lines = header_lines([("WWW-Authenticate", challenge)])
        return RefusalError("unauthorized", error.message, lines=lines)


def _lacking(way: Way, method: Method, missing: list[str]) -> RefusalError:
    """Return the refusal of a caller who may do less (RFC 6750, section 3.1)."""
    message = f"the caller lacks the scope{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    challenge = f'Bearer error="insufficient_scope", scope="{" ".join(way.scopes)}"'
    lines = b"" if isinstance(method, ApiKey) else header_lines([("WWW-Authenticate", challenge)])
    return RefusalError("forbidden", message, lines=lines)


def _refuse_others(request: Request, cors: CorsHeaders) -> None:
    """Refuse what a page of another site makes a browser send, with the cookie that belongs to us.

    Browsers say where a request comes from (Fetch Metadata), also behind proxies. Older ones do not, and none does
    without TLS: then the page's origin must be the host that was asked. What is not a browser says neither, and has no
    cookie that it did not mean to send.
    """
    if request.method in _SAFE:
        return
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        other = origin is not None and not is_of_host(origin, request.host)
    else:
        other = site not in {"same-origin", "none"}
    if other and not cors.names(origin):
        raise RefusalError("forbidden", "a page of another site may not use this cookie")


def _places(method: Method) -> tuple[CredentialPlace, ...]:
    return (method.place,) if isinstance(method, ApiKey) else method.places


def _challenge(method: Method) -> str:
    """Return what tells a client how to prove who it is (RFC 9110, section 11.6.1)."""
    for place in _places(method):
        if place.where == "header" and place.name.lower() != "authorization":
            return f'ApiKey header="{place.name}"'
        if isinstance(method, ApiKey) and place.where == "query":
            return f'ApiKey query="{_quoted(place.name)}"'
    return "Bearer"


def _describe(method: Method, place: CredentialPlace) -> str:
    what = "an API key" if isinstance(method, ApiKey) else "a token"
    if place.where == "header":
        bearer = place.name.lower() == "authorization"
        return f"{what} (Authorization: Bearer ...)" if bearer else f"{what} (the header {place.name})"
    if place.where == "subprotocol":
        return f"{what} (the WebSocket subprotocol behind `{place.name}`)"
    return f"{what} (the cookie {place.name})" if place.where == "cookie" else f"{what} (?{place.name}=...)"


def _quoted(text: str) -> str:
    return text.replace("\\", "").replace('"', "'")


# ------------------------------------------------------------- where it is sent


def _find(request: Request, places: tuple[CredentialPlace, ...]) -> tuple[CredentialPlace, str | None]:
    """Return what a caller sent, from the first place that has something.

    Raises RunError ``unauthorized`` where it is there twice, since two readers could each take another one, and where
    all that was sent is empty or of another scheme: only a request without credentials is that of a guest.
    """
    fault = ""
    for place in places:
        if place.where == "header":
            sent = _only(request.headers.getall(place.name, []), f"the header {place.name}")
            if sent is not None:
                sent, wrong = _in_header(sent.strip(), place.name)
                fault = fault or wrong
        elif place.where == "cookie":
            # Browsers send cookies that a logout has emptied.
            sent = _only(_cookies(request, place.name), f"the cookie {place.name}")
        elif place.where == "subprotocol":
            sent = _behind(request, place.name)
        else:
            sent = _only(_queried(request, place.name), f"`{place.name}` in the query")
            fault = fault or (f"`{place.name}` in the query is empty" if sent == "" else "")
        if sent:
            return place, sent
    if fault:
        raise RunError("unauthorized", fault)
    return BEARER, None


def _behind(request: Request, name: str) -> str | None:
    """Return the subprotocol that a client offers next after another."""
    offered = [each.strip() for each in ",".join(request.headers.getall("Sec-WebSocket-Protocol", ())).split(",")]
    return next((after for one, after in pairwise(offered) if one == name), None)


def _in_header(value: str, name: str) -> tuple[str, str]:
    """Return the credential in the value of a header, and what is wrong where it has none."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip(), "" if rest.strip() else "the header Authorization needs a token behind `Bearer`"
    if name.lower() != "authorization":
        return value, "" if value else f"the header {name} is empty"  # it holds the credential alone
    # Browsers send Basic with every request to a host whose proxy asks for it.
    return "", "" if scheme.lower() == "basic" and rest else "the header Authorization is written: Bearer ..."


def _only(values: list[str], where: str) -> str | None:
    if len(values) > 1:
        raise RunError("unauthorized", f"{where} is sent more than once")
    return values[0] if values else None


def _cookies(request: Request, name: str) -> list[str]:
    """Return every value of a cookie: a parser of the whole would keep the last one only."""
    found = []
    for line in request.headers.getall("Cookie", []):
        for part in line.split(";"):
            key, equals, value = part.strip().partition("=")
            if equals and key.strip() == name:
                found.append(SimpleCookie().value_decode(value.strip())[0])
    return found


def _queried(request: Request, name: str) -> list[str]:
    raw = request.rel_url.raw_query_string
    if not raw:
        return []
    return [value for key, value in parse_qsl(raw, keep_blank_values=True) if key == name]


#: Seconds after which to try again where all places are taken: when one becomes free is unknown.
_SOON: Final = 1.0
_NOTHING: Final = (None, None, None)


class Limiter:
    """What stands between the guard of an endpoint and its runs."""

    __slots__ = ("_addresses", "_bound", "_plan", "_starts", "early", "late")

    def __init__(self, plan: Plan, addresses: Addresses) -> None:
        limits = list(enumerate(plan.endpoint.rate_limits))
        self._plan = plan
        self._starts = [f"{plan.endpoint.title}#{index}:".encode() for index, _ in limits]
        self._bound = [bool(limit.bindings) for _, limit in limits]
        self._addresses = addresses
        self.early = [(index, limit) for index, limit in limits if not limit.reads_input]
        self.late = [(index, limit) for index, limit in limits if limit.reads_input]

    def resolve(
        self, index: int, run: Run, request: Request, inputs: dict[str, Any]
    ) -> tuple[Rate | None, bytes, int | None]:
        """Return the rate of a limit for a request, the key of its count, and how many runs may be under way.

        Raises RunError ``template`` where a binding fails, or gives what is none of these.
        """
        limit = self._plan.endpoint.rate_limits[index]
        by, start = limit.by, self._starts[index]
        # A binding that gives null limits nothing; for `by` it is the caller.
        bound = self._plan.limit(index, run, inputs) if self._bound[index] else _NOTHING
        rate = bound[0] if isinstance(limit.rate, Value) else limit.rate
        most = bound[2] if isinstance(limit.concurrent, Value) else limit.concurrent
        if by == "all":
            return rate, start, most
        if isinstance(by, Value) and bound[1] is not None:
            return rate, start + b"by:" + key_of(bound[1]), most
        return rate, start + caller_key(None if by == "ip" else run.auth, self._addresses.of(request)), most


def caller_key(auth: Mapping[str, Any] | None, address: str | None) -> bytes:
    """Return who calls: a subject of an authentication, else an address."""
    if auth is not None and (subject := auth.get("sub")):
        return b"auth:" + key_of([auth.get("method"), subject])
    return b"ip:" + network_of(address or "").encode()


class RateLimitTicket:
    """One request's way past a limiter: the places it holds until its run is over, and what its answer tells."""

    __slots__ = ("_held", "_later", "_limiter", "_request", "_run", "_tightest")

    def __init__(
        self, limiter: Limiter, run: Run, request: Request, later: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._later = later  # does what takes a while
        self._limiter = limiter
        self._run = run
        self._request = request
        self._held: list[bytes] = []
        self._tightest: tuple[Quota, Verdict] | None = None

    async def acquire(self) -> None:
        """Ask whether there is room, before the inputs are read, and take it.

        Raises RunError ``rate-limited``. A call that is refused counts for none of the limits that are asked together.
        """
        await self._acquire(self._limiter.early, {})

    async def acquire_with(self, inputs: dict[str, Any]) -> None:
        """Ask for what depends on the inputs. Raises as `ask` does."""
        if self._limiter.late:
            await self._acquire(self._limiter.late, inputs)

    async def _acquire(self, limits: list[tuple[int, RateLimit]], inputs: dict[str, Any]) -> None:
        quotas: list[Quota] = []
        for index, limit in limits:
            rate, key, most = self._limiter.resolve(index, self._run, self._request, inputs)
            if rate is not None:
                quotas.append(quota_of(rate, limit.algorithm, key))
            if most is not None:
                await self._take(key, most)
        if not quotas:
            return
        verdicts = await self._run.context.resource(open_rates).hit(quotas)
        if self._tightest is not None:
            quotas, verdicts = [*quotas, self._tightest[0]], [*verdicts, self._tightest[1]]
        self._tightest = quota, verdict = tightest(quotas, verdicts)
        if not verdict.admitted:
            raise refusal(quota, verdict)

    async def _take(self, key: bytes, most: int) -> None:
        if not await self._run.context.resource(open_slots).acquire(key, most):
            raise RunError(
                "rate-limited",
                f"{most} {'is' if most == 1 else 'are'} under way already, which is the most at once",
                retry_after=_SOON,
            )
        self._held.append(key)

    def lines(self) -> bytes:
        """Return the header lines of the tightest limit, once.

        Source: draft-ietf-httpapi-ratelimit-headers-06, the form that clients read; later drafts change it each time.
        """
        if self._tightest is None:
            return b""
        (quota, verdict), self._tightest = self._tightest, None
        return b"RateLimit-Limit: %d\r\nRateLimit-Remaining: %d\r\nRateLimit-Reset: %d\r\n" % (
            quota.limit,
            verdict.remaining,
            seconds_of(verdict),
        )

    def release(self) -> None:
        """Give the places back, once."""
        held, self._held = self._held, []
        if not held:
            return
        slots = self._run.context.resource(open_slots)
        if isinstance(slots, MemorySlots):
            for key in held:
                slots.release_now(key)
        else:
            self._later(_give(slots, held))


async def _give(slots: Slots, held: list[bytes]) -> None:
    for key in held:
        await slots.release(key)


@lru_cache(4096)
def network_of(address: str) -> str:
    """Return what counts as one caller: of IPv6 the network of 64 bits, in which a caller has every address."""
    if ":" not in address:
        return address
    try:
        return str(IPv6Network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


def owner_of(claims: Mapping[str, Any] | None) -> str:
    """Return what identifies a caller: authentication method and subject; "" without authentication.

    Of a token without `sub`, all that it says but its times.
    """
    if claims is None:
        return ""
    subject = claims.get("sub")
    if subject is None:
        subject = hashlib.sha256(to_json(claims_of(claims))).hexdigest()
    return f"{claims.get('method', '')}:{subject}"


def claims_of(claims: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the claims of a caller but its times; None without authentication."""
    return None if claims is None else {key: claims[key] for key in sorted(claims) if key not in _PASSING}


#: Claims that differ between two tokens of one caller.
_PASSING: Final = frozenset({"exp", "iat", "nbf", "jti", "auth_time"})
