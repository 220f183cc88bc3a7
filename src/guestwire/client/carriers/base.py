"""The seam between the client and what answers: whole endpoint calls go down, their results come up.

Above it: `hosts.py` and `guests.py`, which know no HTTP. Below it: a server over HTTPS (`https.py`), or the same
endpoints executed here (`in_process.py`) on a guest agent's socket (`direct.py`) or on a libvirt (`libvirt_host.py`).
"""

import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from guestwire.client.errors import ErrorContext

if TYPE_CHECKING:
    from guestwire.contract.guest_events import Event
    from guestwire.streams.remote_process import RemoteProcess


class Carrier(Protocol):
    """Carries calls to one host. Any number at once."""

    @property
    def name(self) -> str:
        """How messages name the host."""
        ...

    @property
    def may_have_ports(self) -> bool:
        """False where it is known that the VM can't be given ports of our own."""
        ...

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        context: ErrorContext,
        *,
        repeatable: bool = False,
        as_bytes: bool = False,
    ) -> Any:
        """Calls an endpoint.

        Args:
            method: GET, POST, PUT or DELETE.
            path: below `/api2/json`.
            parameters: JSON-able, also as subclasses of its types, and paths; None stands for one that is left out.
            context: for messages.
            repeatable: nothing happens twice when it is sent again after a lost connection.
            as_bytes: what a guest's bytes make in the result may come as `bytes`; a host that has no way for that
                gives what its JSON has.

        Returns:
            What the API has under `data`, as JSON has it.

        Raises:
            CallFailed: see `client.errors`.
        """
        ...

    def events(self, path: str, context: ErrorContext) -> "AsyncGenerator[Event | None, None]":
        """The events of an endpoint that gives a stream of them; None stands for a moment in which nothing happened.

        Raises:
            NoSuchEndpoint: the host has no such endpoint.
            CallFailed: see `client.errors`.
        """
        ...

    async def start(
        self, path: str, parameters: Mapping[str, Any], secrets: Mapping[str, Any], context: ErrorContext
    ) -> "RemoteProcess":
        """Starts a program by an endpoint that gives its bytes both ways; it must be closed. `secrets` are more parameters.

        Its methods raise what `GuestwireError` there is where it runs.

        Raises:
            NoSuchEndpoint: the host has no such endpoint.
            CallFailed: see `client.errors`.
        """
        ...

    def another(self) -> "Carrier | None":
        """One to the same host over a connection that nothing else uses, to be closed; None: there is no connection between."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


def plain(value: Any) -> Any:
    """A parameter in the very types of JSON: what inherits from them (an `enum.StrEnum`, a template's marked text) is not encoded."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str | os.PathLike):
        return "".join(os.fspath(value))
    return next((kind(value) for kind in (int, float) if isinstance(value, kind)), value)
