"""Calls that are executed in this process, by the same pipeline as on a server."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from guestwire.client.carriers.base import plain
from guestwire.client.errors import AgentUnavailable, ErrorContext, NoSuchEndpoint, failure
from guestwire.contract.results import Page
from guestwire.dispatch import Call, Dispatcher, parameters_given
from guestwire.errors import AgentNotRunning, GuestwireError, InvalidParameters, NotImplementedHere

if TYPE_CHECKING:
    from guestwire.contract.guest_events import Event
    from guestwire.streams.remote_process import RemoteProcess


class InProcessCarrier:
    """The base of carriers without a network.

    Args:
        name: see `Carrier.name`.
        dispatcher: runs the endpoints.
        no_endpoint: what to do where an endpoint is not here.
        no_agent: what to do where an agent does not answer.
    """

    def __init__(self, name: str, dispatcher: Dispatcher, *, no_endpoint: str, no_agent: str) -> None:
        self._name = name
        self._dispatcher = dispatcher
        self._no_endpoint = no_endpoint
        self._no_agent = no_agent

    @property
    def name(self) -> str:
        """See `Carrier.name`."""
        return self._name

    @property
    def may_have_ports(self) -> bool:
        """See `Carrier.may_have_ports`."""
        return True

    def another(self) -> None:
        """See `Carrier.another`."""

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        context: ErrorContext,
        *,
        repeatable: bool = False,  # noqa: ARG002  # the channel knows that of each command
        as_bytes: bool = False,
    ) -> Any:
        """See `Carrier.call`."""
        result = await self._run(Call(plain(method), plain(path), parameters_given(plain(parameters))), context)
        if isinstance(result, Page):
            result = result.data
        # Texts of bytes are all that needs help.
        return msgspec.to_builtins(
            result, enc_hook=bytes if as_bytes else str, builtin_types=(bytes,) if as_bytes else None
        )

    async def events(self, path: str, context: ErrorContext) -> "AsyncGenerator[Event | None, None]":
        """See `Carrier.events`."""
        async with aclosing(await self._run(Call("GET", path, parameters_given({})), context)) as events:
            async for event in events:
                yield event

    async def start(
        self, path: str, parameters: Mapping[str, Any], secrets: Mapping[str, Any], context: ErrorContext
    ) -> "RemoteProcess":
        """See `Carrier.start`."""
        process: RemoteProcess = await self._run(
            Call("GET", plain(path), parameters_given(plain({**parameters, **secrets}))), context
        )
        return process

    async def _prepare(self, context: ErrorContext) -> None:
        """Before each call; for those who look for VMs no sooner than that.

        Raises:
            CallFailed: there is nothing to call.
        """

    async def _run(self, call: Call, context: ErrorContext) -> Any:
        await self._prepare(context)
        try:
            return await self._dispatcher.call(call)
        except InvalidParameters as error:
            raise failure(context, error.status, str(error), error.errors) from error
        except NotImplementedHere as error:
            raise NoSuchEndpoint(context, str(error), error.status, hint=self._no_endpoint) from error
        except AgentNotRunning as error:
            raise AgentUnavailable(context, f"{error} ({error.why})", error.status, hint=self._no_agent) from error
        except GuestwireError as error:
            raise failure(context, error.status, str(error)) from error
