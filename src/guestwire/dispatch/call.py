"""The seam of every call: a `Call` goes down, its result or an error comes up.

Above it: the HTTP server, offline administration, the client on an agent's own socket. Below it: `Pipeline`, which runs
endpoints in this process. The client's `Carrier` over HTTPS is the same seam on the far side of a network; one over
NATS will be another. `guestwire.testing.dispatchers` is the conformance check that all of them pass.
"""

import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from guestwire.access.subject import Subject
from guestwire.contract.endpoint import Endpoint
from guestwire.contract.parameters import Parameters, validate

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
        id: what log, audit trail and an internal error have in common; unique for as long as a log is kept.
        route: the endpoint and the parameters in the path; None until it is resolved, or when there is none.
        parameters: all that are known so far, not validated.
        began: of the performance counter, in seconds.
        is_recorded: the outcome is in the audit trail already.
    """

    method: str
    path: str
    read: ReadParameters
    subject: Subject = NOBODY
    address: str = ""
    actor: str = ""
    id: str = field(default_factory=new_id)
    route: Route | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    began: float = field(default_factory=time.perf_counter)
    is_recorded: bool = False

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

    async def record(self, call: Call, status: int, result: str) -> None:
        """Returns when the record is safe; a call is recorded once, later outcomes of the same one are left out."""
        ...

    def record_soon(self, call: Call, status: int, result: str) -> None:
        """The same for a call that has no caller any more: it does not wait."""
        ...
