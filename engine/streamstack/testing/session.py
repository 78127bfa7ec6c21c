"""What the tests of one project share: its definitions, read and compiled once, and its settings by environment."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from streamstack import clock
from streamstack.connections.database import uses_of
from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.authentication import ApiKey, CredentialPlace, Jwt, Key, Method, digest_of
from streamstack.language.cases import Case
from streamstack.language.definition import Endpoint
from streamstack.language.graph import steps_of, steps_with_called
from streamstack.language.project import SETTINGS, Checked, display_name, find_settings, names_of, read_project
from streamstack.language.settings import Settings, load_settings
from streamstack.runtime.plan import Plan, compile_project
from streamstack.runtime.probes import Probes
from streamstack.server.endpoints import EndpointHandler, Routes, make_endpoints
from streamstack.testing.contract import ApiContract

#: Seconds that a token of a test is valid.
_VALID_FOR: Final = 24 * 3600
#: An API key of a test: its authentication, the name of who has it, and its scopes.
CallerKey = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Edition:
    """A project with the settings of one environment. Its authentications accept tokens that tests mint."""

    checked: Checked
    plans: tuple[Plan, ...]
    endpoints: tuple[EndpointHandler, ...]
    routes: Routes[Endpoint]
    contract: ApiContract

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        """Return the endpoint that answers a request; None where none does."""
        found = self.routes.find(method, path.partition("?")[0])
        return None if found is None else found[0]


@dataclass(slots=True)
class TestProject:
    """A project under test. ``edition`` has it with the environment of a test, which holds nothing else.

    The variables of the person who runs the tests, and those in `.env`, are not read.
    """

    __test__ = False

    root: Path
    checked: Checked
    _plans: tuple[Plan, ...]
    probes: Probes | None = None
    _editions: dict[tuple[frozenset[Any], ...], Edition] = field(default_factory=dict)
    _secrets: dict[str, str] = field(default_factory=dict)
    _contracts: dict[int, ApiContract] = field(default_factory=dict)
    _routes: Routes[Endpoint] = field(init=False)
    _users: set[int] = field(init=False)  # the ids of steps that use a database
    sends_mail: bool = field(init=False)

    def __post_init__(self) -> None:
        project = self.checked.project
        self._routes = Routes([(each.method, each.path, each) for each in project.endpoints])
        uses = uses_of(project, self.checked.settings.databases)
        self.sends_mail = any(
            step.function.name == "email.send" for each in project.definitions for step in steps_of(each.stack)
        )
        self._users = {id(step) for each in uses.values() for _, step in each}

    @classmethod
    def read(cls, root: Path, more: Iterable[Path] = (), probes: Probes | None = None) -> TestProject:
        """Read and compile a project, with ``probes`` if they are given. Raises OSError for unreadable files."""
        checked = read_project(root, REGISTRY, {}, env_file=False, more=more)
        return cls(root, checked, () if checked.failed else compile_project(checked.project, probes), probes)

    @property
    def errors(self) -> list[Diagnostic]:
        """The errors for which it can't be served."""
        return [each for each in self.checked.findings if each.severity == "error"]

    def edition(
        self,
        env: Mapping[str, str],
        keys: frozenset[CallerKey] = frozenset(),
        variants: Mapping[str, str] = MappingProxyType({}),
    ) -> Edition:
        """Return the project with an environment, API keys beside those of its settings, and fixed variants.

        Raises UnservableError, and ValueError with the findings of settings that are wrong in this environment.
        """
        key = (frozenset(env.items()), keys, frozenset(variants.items()))
        if key not in self._editions:
            self._editions[key] = self._make(env, keys, variants)
        return self._editions[key]

    def _make(self, env: Mapping[str, str], keys: frozenset[CallerKey], variants: Mapping[str, str]) -> Edition:
        settings, plans, checked = self.checked.settings, self._plans, self.checked
        place = find_settings(self.root)
        name = display_name(place or self.root / SETTINGS)
        if env:
            settings, findings = load_settings(checked.sources.get(name), name, env)
            errors = [each for each in findings if each.severity == "error"]
            if errors:
                raise ValueError("; ".join(f"{each.mark}: {each.message}" for each in errors))
            if not _same_shape(settings, checked.settings):
                checked = read_project(self.root, REGISTRY, env, env_file=False)
                plans = compile_project(checked.project, self.probes)
        settings = replace(
            settings,
            authentication={name: self._accepting(method, keys) for name, method in settings.authentication.items()},
            state=replace(settings.state, redis=None),
            experiments={
                name: each.fixed(variants[name]) if name in variants else each
                for name, each in settings.experiments.items()
            },
        )
        endpoints = make_endpoints(plans, settings, dev=False)
        routes = Routes([(plan.endpoint.method, plan.endpoint.path, plan.endpoint) for plan in plans])
        made = replace(checked, settings=settings, environment=dict(env))
        # The values of environment variables are not in the document.
        contract = self._contracts.setdefault(id(checked.project), ApiContract(made))
        return Edition(made, plans, tuple(endpoints), routes, contract)

    def _accepting(self, method: Method, keys: frozenset[CallerKey]) -> Method:
        """Return an authentication that accepts what tests mint: a secret or keys of their own."""
        if isinstance(method, ApiKey):
            added = [
                Key(key[1], digest_of(self._api_key(key)), key[2]) for key in sorted(keys) if key[0] == method.name
            ]
            return replace(method, keys=(*method.keys, *added))
        if method.secret:
            return method
        return replace(
            method, secret=self._secret(method), own=False, public_key=None, jwks_url=None, algorithms=("HS256",)
        )

    def _secret(self, method: Method) -> str:
        return self._secrets.setdefault(method.name, secrets.token_urlsafe(64))

    def _api_key(self, key: CallerKey) -> str:
        return self._secrets.setdefault("/".join((key[0], key[1], *key[2])), secrets.token_urlsafe(32))

    def may_use_database(self, case: Case) -> bool:
        """Whether a test surely or possibly uses a database: one that calls HTTP may call an endpoint that does."""
        if case.rows or case.sql or any(each.sql or each.expect.database for each in case.exchanges):
            return True
        if not self._users:
            return False
        found = [self._routes.find(each.request.method, each.request.path.partition("?")[0]) for each in case.exchanges]
        return any(
            id(step) in self._users or step.function.name.startswith(("http.", "llm."))
            for endpoint in (each[0] for each in found if each is not None)
            for step in steps_with_called(endpoint.stack, self.checked.project.functions)
        )

    def caller_key(self, edition: Edition, endpoint: Endpoint | None, claims: Mapping[str, Any]) -> CallerKey | None:
        """Return the API key that a client with some claims has; None where the endpoint takes tokens."""
        method = _method(edition, endpoint)
        if isinstance(method, Jwt):
            return None
        scope = claims.get("scope", ())
        return method.name, str(claims.get("sub", "test")), tuple(scope.split() if isinstance(scope, str) else scope)

    def credentials(self, edition: Edition, endpoint: Endpoint | None, claims: Mapping[str, Any]) -> dict[str, str]:
        """Return the headers that authenticate a test's client with some claims.

        Raises ValueError, with what to write instead, where the endpoint takes no such client.
        """
        method = _method(edition, endpoint)
        key = self.caller_key(edition, endpoint, claims)
        if isinstance(method, Jwt):
            return _headers(method.places, _token(method, claims))
        assert key is not None
        return _headers((method.place,), self._api_key(key))


def _method(edition: Edition, endpoint: Endpoint | None) -> Method:
    """Return the authentication that a test's client uses: one with tokens, else one with keys."""
    if endpoint is None or endpoint.authentication is None:
        raise ValueError("`auth` has no use: this endpoint has no `authentication`")
    methods = [edition.checked.settings.authentication[way.name] for way in endpoint.authentication.ways]
    return next((each for each in methods if isinstance(each, Jwt)), methods[0])


def _headers(places: Iterable[CredentialPlace], text: str) -> dict[str, str]:
    for place in places:
        if place.where == "cookie":
            return {"Cookie": f"{place.name}={text}"}
        if place.where == "header":
            return {place.name: f"Bearer {text}" if place.name.lower() == "authorization" else text}
        if place.where == "subprotocol":
            return {"Sec-WebSocket-Protocol": f"{place.name}, {text}"}
    raise ValueError("`auth` sends its token in a header or a cookie, and this authentication reads the query only")


def _token(method: Jwt, claims: Mapping[str, Any]) -> str:
    # Its libraries are loaded where a test authenticates, which most don't.
    from streamstack.connections.tokens import secret_key, sign  # noqa: PLC0415

    now = int(clock.time())
    whole = {"iat": now, "exp": now + _VALID_FOR, **method.own_claims, **claims}
    return sign(whole, secret_key(method.secret or "", method.algorithms), method.algorithms[0])


def _same_shape(one: Settings, other: Settings) -> bool:
    """Whether definitions are read and compiled alike with both."""
    return one.streaming == other.streaming and one.inputs == other.inputs and names_of(one) == names_of(other)
