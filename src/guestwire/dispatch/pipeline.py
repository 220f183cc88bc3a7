"""The pipeline that runs calls in this process, with the checks in Proxmox VE's order.

Route, conflicting path parameters, permission, node, parameters; then the endpoint's own: VM, agent. Whatever the
outcome, it is recorded.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from guestwire.contract import Effect, Endpoint, validate
from guestwire.dispatch.call import Call, Recorder, Route
from guestwire.errors import GuestError, GuestwireError, InvalidParameters, NotImplementedHere, UnknownNode

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
        await self.record(call, 200, "OK")
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
            call.parameters = merge_path(given, route.in_path)
        if self._authorise:
            self._authorise(call, endpoint)
        if self._node is not None and (node := route.in_path.get("node", THIS_NODE)) not in (self._node, THIS_NODE):
            raise UnknownNode(node)
        parameters = validate(endpoint.parameters, call.parameters) if given else route.parameters
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
    """All parameters; those of the path may be repeated elsewhere with the same value."""
    if conflicts := [name for name, value in in_path.items() if given.get(name, value) != value]:
        raise InvalidParameters(dict.fromkeys(conflicts, CONFLICT))
    return {**given, **in_path}
