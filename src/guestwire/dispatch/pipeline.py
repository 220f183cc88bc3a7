"""The pipeline that runs calls in this process, with the checks in Proxmox VE's order.

Route, conflicting path parameters, permission, node, parameters; then the endpoint's own: VM, agent. Whatever the outcome, it is recorded.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from guestwire.contract import Endpoint, validate
from guestwire.dispatch.call import Call, Recorder
from guestwire.dispatch.router import Router
from guestwire.errors import GuestError, GuestwireError, InvalidParameters, NotImplementedHere, UnknownNode

THIS_NODE: Final = "localhost"

CALLER_LEFT: Final = 499
"""The status in records of a call that nobody waited for any more."""

CONFLICT: Final = "duplicate parameter (already defined in URI) with conflicting values!"

Authorise = Callable[[Call, Endpoint], None]
"""Raises `Forbidden` when the caller lacks what the endpoint needs. It sees the parameters before they are validated."""


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
            if self._recorder:
                self._recorder.record_soon(call, CALLER_LEFT, "the caller left")
            raise
        except Exception:
            await self.record(call, 500, "internal error")
            raise
        await self.record(call, 200, "OK")
        return result

    async def record(self, call: Call, status: int, result: str) -> None:
        """Records an outcome; `call` does that by itself, for all that come after authentication."""
        if self._recorder:
            await self._recorder.record(call, status, result)

    async def _run(self, call: Call) -> Any:
        if call.route is None:
            self.resolve(call)
        route = call.route
        if route is None:
            raise NotImplementedHere(call.method, call.path)
        endpoint = route.endpoint
        call.parameters = merge_path(await call.read(), route.in_path)
        if self._authorise:
            self._authorise(call, endpoint)
        if self._node is not None and (node := route.in_path.get("node", THIS_NODE)) not in (self._node, THIS_NODE):
            raise UnknownNode(node)
        parameters = validate(endpoint.parameters, call.parameters)
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


def merge_path(given: Mapping[str, Any], in_path: Mapping[str, str]) -> dict[str, Any]:
    """All parameters; those of the path may be repeated elsewhere with the same value."""
    if conflicts := [name for name, value in in_path.items() if given.get(name, value) != value]:
        raise InvalidParameters(dict.fromkeys(conflicts, CONFLICT))
    return {**given, **in_path}
