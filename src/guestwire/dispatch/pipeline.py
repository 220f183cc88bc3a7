"""The seam of every call, and the pipeline behind it: a `Call` goes down, its result or an error comes up.

Above the seam: the HTTP server, offline administration, the client on an agent's own socket. Below it: `Pipeline`,
which runs endpoints in this process. The client's `Carrier` over HTTPS is the same seam on the far side of a network;
one over NATS will be another. `guestwire.testing.dispatchers` is the conformance check that all of them pass.

The pipeline checks in Proxmox VE's order: route, conflicting path parameters, permission, node, parameters; then the
endpoint's own: VM, agent. Whatever the outcome, it is recorded.
"""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol

from guestwire.access.subject import Subject
from guestwire.access.values import canonical
from guestwire.contract import Effect, Endpoint, Parameters, join_lists, validate
from guestwire.contract.endpoint import Kind
from guestwire.contract.results import FileContent
from guestwire.counting import counted
from guestwire.dispatch.recorded_process import RecordedProcess
from guestwire.errors import GuestError, GuestwireError, InvalidParameters, NotImplementedHere, UnknownNode

NOBODY: Final = Subject("")
"""The caller of an endpoint that needs no login."""

_process: Final = secrets.token_hex(3)
_numbers: Final = itertools.count(1)


def new_id() -> str:
    """An id for a request, unlike any other for as long as a log is kept."""
    return f"{_process}{next(_numbers):06x}"


ReadParameters = Callable[[], Awaitable[Mapping[str, Any]]]


def parameters_given(parameters: Mapping[str, Any]) -> ReadParameters:
    """Parameters that are there already; those that are None are left out."""

    async def read() -> Mapping[str, Any]:
        return {name: value for name, value in parameters.items() if value is not None}

    return read


@dataclass(slots=True)
class Route:
    """An endpoint, and the parameters in the path."""

    endpoint: Endpoint
    in_path: dict[str, str]
    _parameters: Parameters | None = None

    @property
    def parameters(self) -> Parameters:
        """The parameters of a call that has none but those in the path; validated once, for a router remembers routes.

        Raises:
            InvalidParameters: see `validate`.
        """
        if self._parameters is None:
            self._parameters = validate(self.endpoint.parameters, self.in_path)
        return self._parameters


@dataclass(slots=True)
class Call:
    """One call, and the facts that its record needs while it goes on.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: below `/api2/{format}`, decoded.
        read: gives the parameters beside those in the path, as the caller sent them; awaited once the endpoint is
            known.
        subject: the caller, as permissions know it.
        address: the caller's.
        actor: the caller as records name it, where that is not the subject.
        has_token: an API token came with it, good or not.
        id: what log, audit trail and an internal error have in common; unique for as long as a log is kept.
        route: the endpoint and the parameters in the path; None until it is resolved, or when there is none.
        parameters: all that are known so far, not validated.
        began: of the performance counter, in seconds.
        is_recorded: the outcome is in the audit trail already.
        failure: why it failed, for the log; "" when it did not.
        hold: keeps the caller's connection open, and gives what is done when it has ended; None where there is none.
    """

    method: str
    path: str
    read: ReadParameters
    subject: Subject = NOBODY
    address: str = ""
    actor: str = ""
    has_token: bool = False
    id: str = field(default_factory=new_id)
    route: Route | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    began: float = field(default_factory=time.perf_counter)
    is_recorded: bool = False
    failure: str = ""
    hold: Callable[[], asyncio.Future[None]] | None = field(default=None, repr=False)

    @property
    def milliseconds(self) -> float:
        """The time since it began."""
        return (time.perf_counter() - self.began) * 1000


class Dispatcher(Protocol):
    """Takes calls to their endpoints. Any number at once."""

    async def call(self, call: Call) -> Any:
        """Runs a call; its outcome is recorded before this returns.

        Returns:
            The endpoint's result.

        Raises:
            GuestwireError: the call is refused or failed; each error knows its HTTP status.
        """
        ...


class Recorder(Protocol):
    """Keeps what became of calls."""

    async def begin(self, call: Call) -> None:
        """Returns when it is safe that the call has begun: whatever happens next, its effect will not be without a record."""
        ...

    async def record(self, call: Call, status: int, result: str) -> None:
        """Returns when the record is safe; a call is recorded once, later outcomes of the same one are left out."""
        ...

    def record_soon(self, call: Call, status: int, result: str) -> None:
        """The same for a call that has no caller any more: it does not wait."""
        ...


# The pipeline

THIS_NODE: Final = "localhost"

CALLER_LEFT: Final = 499
"""The status in records of a call that nobody waited for any more."""

REFUSALS: Final = frozenset({401, 403})
"""Statuses that are recorded also of calls that only read."""

CONFLICT: Final = "duplicate parameter (already defined in URI) with conflicting values!"

_parameter = re.compile(r"\{(\w+)\}")
_anything: Final = re.compile(r"\S+")


LONGEST_REMEMBERED: Final = 256
REMEMBERED: Final = 1024
"""Calls that need not be looked up again, and the length of their paths."""

Authorise = Callable[[Call, Endpoint], None]
"""Raises `Forbidden` when the caller lacks what the endpoint needs.

It sees the parameters before they are validated.
"""


class _Step:
    """One place in the tree of paths."""

    def __init__(self) -> None:
        self.named: dict[str, _Step] = {}
        self.parameter: tuple[str, _Step] | None = None
        self.endpoints: dict[str, Endpoint] = {}


class Router:
    """A tree of path steps; empty steps don't count, a parameter is anything without white space."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._root = _Step()
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._find)
        for endpoint in endpoints:
            self._add(endpoint)

    def find(self, method: str, path: str) -> Route | None:
        """The endpoint of a method and path; None when there is none.

        Its `in_path` is for reading: the same call gets the same.
        """
        return self._find(method, path) if len(path) > LONGEST_REMEMBERED else self._remembered(method, path)

    def _find(self, method: str, path: str) -> Route | None:
        step, in_path = self._root, {}
        for word in path.split("/"):
            if not word:
                continue
            if word in step.named:
                step = step.named[word]
            elif step.parameter and _anything.fullmatch(word):
                name, step = step.parameter
                in_path[name] = word
            else:
                return None
        endpoint = step.endpoints.get(method)
        return Route(endpoint, in_path) if endpoint else None

    def _add(self, endpoint: Endpoint) -> None:
        step = self._root
        for word in filter(None, endpoint.path.split("/")):
            step = _next(step, word)
        step.endpoints[endpoint.method] = endpoint


def _next(step: _Step, word: str) -> _Step:
    if found := _parameter.fullmatch(word):
        step.parameter = step.parameter or (found[1], _Step())
        if step.parameter[0] != found[1]:
            raise ValueError(f"a parameter in the same place is called {{{step.parameter[0]}}} and {word}")
        return step.parameter[1]
    return step.named.setdefault(word, _Step())


class Leased(Protocol):
    """What an endpoint's function gets as its context, for one call."""

    def release(self) -> None:
        """The call has ended."""
        ...


class Pipeline:
    """A `Dispatcher` in this process.

    Args:
        router: finds endpoints.
        lease: makes the context of a call; it satisfies whatever contexts the router's endpoints name.
        authorise: None where whoever can make a call may make every call.
        recorder: None where calls leave no record.
        node: the only node that calls may name; None takes any.
    """

    def __init__(
        self, router: Router, lease: Callable[[Call], Leased], *, authorise: Authorise | None = None,
        recorder: Recorder | None = None, node: str | None = None,
    ) -> None:  # fmt: skip
        self._router = router
        self._lease = lease
        self._authorise = authorise
        self._recorder = recorder
        self._node = node

    def resolve(self, call: Call) -> None:
        """Finds the call's endpoint; `call` does that, too, where it was not done before."""
        call.route = self._router.find(call.method, call.path)
        if call.route:
            call.parameters = call.route.in_path

    async def call(self, call: Call) -> Any:
        """See `Dispatcher.call`."""
        try:
            result = await self._run(call)
        except GuestwireError as error:
            await self.record(call, error.status, str(error))
            raise
        except asyncio.CancelledError:
            if self._recorder and _leaves_record(call, CALLER_LEFT):
                self._recorder.record_soon(call, CALLER_LEFT, "the caller left")
            raise
        except Exception:
            await self.record(call, 500, "internal error")
            raise
        recorder = self._recorder
        if call.route and call.route.endpoint.kind is Kind.PROCESS:
            # Its record has been begun, and ends with the program.
            if recorder is None:
                return result
            return RecordedProcess(result, lambda status, how: recorder.record_soon(call, status, how))
        await self.record(call, 200, "OK")
        if self._recorder and isinstance(result, FileContent):
            self._recorder.record_soon(call, 200, f"OK, {counted(result.bytes_read, 'byte')}")
        return result

    async def record(self, call: Call, status: int, result: str) -> None:
        """Records an outcome; `call` does that by itself, for all that come after authentication."""
        if self._recorder and _leaves_record(call, status):
            await self._recorder.record(call, status, result)

    async def _run(self, call: Call) -> Any:
        if call.route is None:
            self.resolve(call)
        route = call.route
        if route is None:
            raise NotImplementedHere(call.method, call.path)
        endpoint = route.endpoint
        if given := await call.read():
            call.parameters = join_lists(endpoint.parameters, merge_path(given, route.in_path))
        if self._authorise:
            self._authorise(call, endpoint)
        if self._node is not None and (node := route.in_path.get("node", THIS_NODE)) not in (self._node, THIS_NODE):
            raise UnknownNode(node)
        parameters = validate(endpoint.parameters, call.parameters) if given else route.parameters
        if self._recorder and endpoint.effect is not Effect.READS:
            await self._recorder.begin(call)
        lease = self._lease(call)
        limit = asyncio.timeout(endpoint.timeout)
        try:
            async with limit:
                return await endpoint.function(lease, parameters)
        except TimeoutError:
            if not limit.expired():
                raise
            raise GuestError(f"{endpoint.name} took longer than {endpoint.timeout:g} seconds") from None
        finally:
            lease.release()


def _leaves_record(call: Call, status: int) -> bool:
    """True for changes, whatever became of them, and for refusals of anything."""
    changes = call.route is not None and call.route.endpoint.effect is not Effect.READS
    return changes or status in REFUSALS


def merge_path(given: Mapping[str, Any], in_path: Mapping[str, str]) -> dict[str, Any]:
    """All parameters; those of the path may be repeated elsewhere with the same value, as text or as number."""
    if conflicts := [name for name, value in in_path.items() if canonical(given.get(name, value)) != value]:
        raise InvalidParameters(dict.fromkeys(conflicts, CONFLICT))
    return {**given, **in_path}
