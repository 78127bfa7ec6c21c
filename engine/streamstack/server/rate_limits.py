"""Rate limits of endpoints."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Any, Final

from streamstack.connections.state import MemorySlots, Quota, Slots, Verdict
from streamstack.errors import RunError
from streamstack.functions.state import key_of, open_rates, open_slots, quota_of, refusal, seconds_of, tightest
from streamstack.language.definition import RateLimit
from streamstack.language.expressions import Value
from streamstack.language.units import Rate
from streamstack.runtime.plan import Plan
from streamstack.runtime.run import Run
from streamstack.server.addresses import Addresses
from streamstack.server.request import Request

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

    def asked(
        self, index: int, run: Run, request: Request, inputs: dict[str, Any]
    ) -> tuple[Rate | None, bytes, int | None]:
        """Return the rate of a limit for a request, the key of its count, and how many runs may be under way.

        Raises RunError ``template`` where a binding fails, or gives what is none of these.
        """
        limit = self._plan.endpoint.rate_limits[index]
        by, start = limit.by, self._starts[index]
        # A binding that gives null limits nothing; for `by` it is the caller.
        given = self._plan.limit(index, run, inputs) if self._bound[index] else _NOTHING
        rate = given[0] if isinstance(limit.rate, Value) else limit.rate
        most = given[2] if isinstance(limit.concurrent, Value) else limit.concurrent
        if by == "all":
            return rate, start, most
        if isinstance(by, Value) and given[1] is not None:
            return rate, start + b"by:" + key_of(given[1]), most
        return rate, start + self._caller(None if by == "ip" else run.auth, request), most

    def _caller(self, auth: Mapping[str, Any] | None, request: Request) -> bytes:
        """Return who calls: a subject of an authentication, else an address."""
        if auth is not None and (subject := auth.get("sub")):
            return b"auth:" + key_of([auth.get("method"), subject])
        return b"ip:" + network_of(self._addresses.of(request) or "").encode()


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

    async def ask(self) -> None:
        """Ask whether there is room, before the inputs are read, and take it.

        Raises RunError ``rate-limited``. A call that is refused counts for none of the limits that are asked together.
        """
        await self._ask(self._limiter.early, {})

    async def ask_with(self, inputs: dict[str, Any]) -> None:
        """Ask for what depends on the inputs. Raises as `ask` does."""
        if self._limiter.late:
            await self._ask(self._limiter.late, inputs)

    async def _ask(self, limits: list[tuple[int, RateLimit]], inputs: dict[str, Any]) -> None:
        quotas: list[Quota] = []
        for index, limit in limits:
            rate, key, most = self._limiter.asked(index, self._run, self._request, inputs)
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

    def leave(self) -> None:
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
