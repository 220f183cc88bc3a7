"""The endpoint record and the registry: the one table from which routes, validation, OpenAPI, clients and tools follow.

To add an endpoint is to add one function with its record, in one file of `endpoints/`:

    @endpoints.endpoint("GET", "/nodes/{node}/qemu/{vmid}/agent/file-read", FileRead, check=..., ...)
    async def file_read(context: Context, parameters: FileRead) -> FileContent:
        \"\"\"One line that says what it does.\"\"\"
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar, get_type_hints

from guestwire.access.checks import Check, LoggedIn
from guestwire.contract.context import Context
from guestwire.contract.parameters import Parameters

P = TypeVar("P", bound=Parameters)

Function = Callable[[Context, Any], Awaitable[Any]]


class Effect(Enum):
    """What an endpoint does to a guest. The HTTP method does not tell: Proxmox VE's ping is a POST."""

    READS = "reads"
    WRITES = "writes"
    DISRUPTS = "disrupts"
    """Stops the guest or what runs in it from working, for a while or for good."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: below `/api2/{format}`, with path parameters in braces.
        name: the last word of the path that is no parameter; what a command line or a tool calls it.
        summary: one line.
        parameters: all of them, those in the path too.
        returns: the type of the result.
        check: what a caller needs.
        tokens: whether it can be called with an API token, too.
        effect: see `Effect`.
        timeout: seconds it may take at most.
        function: does it.
        is_bounded: whether it ends in time by itself, as one command to an agent does: nobody else need watch the clock then.
    """

    method: str
    path: str
    name: str
    summary: str
    parameters: type[Parameters]
    returns: Any
    check: Check
    effect: Effect
    timeout: float
    function: Function
    tokens: bool = True
    is_bounded: bool = False


DEFAULT_TIMEOUT: Final = 15.0
LOGGED_IN: Final = LoggedIn()


class Registry:
    """Endpoints by path and method. The decorators take the record; summary and result type come from the function."""

    def __init__(self, *parts: "Registry") -> None:
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        for part in parts:
            for endpoint in part:
                self.add(endpoint)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints.values())

    def add(self, endpoint: Endpoint) -> None:
        """Adds one.

        Raises:
            ValueError: the method and path are taken.
        """
        if (endpoint.method, endpoint.path) in self._endpoints:
            raise ValueError(f"{endpoint.method} {endpoint.path} is there already")
        self._endpoints[endpoint.method, endpoint.path] = endpoint

    def endpoint(
        self,
        method: str,
        path: str,
        parameters: type[P],
        *,
        check: Check = LOGGED_IN,
        tokens: bool = True,
        effect: Effect = Effect.READS,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Callable[[Callable[[Context, P], Awaitable[Any]]], Endpoint]:
        """Makes an endpoint of the decorated function, and adds it."""

        def register(function: Callable[[Context, P], Awaitable[Any]]) -> Endpoint:
            endpoint = Endpoint(
                method=method,
                path=path,
                name=_name(path),
                summary=(function.__doc__ or "").strip().partition("\n")[0],
                parameters=parameters,
                returns=get_type_hints(function)["return"],
                check=check,
                tokens=tokens,
                effect=effect,
                timeout=timeout,
                function=function,
            )
            self.add(endpoint)
            return endpoint

        return register

    def children(self, path: str) -> list[str]:
        """The names one step below `path`, sorted."""
        below = (endpoint.path.removeprefix(path + "/") for endpoint in self if endpoint.path.startswith(path + "/"))
        return sorted({rest.partition("/")[0] for rest in below})


def _name(path: str) -> str:
    return next((step for step in reversed(path.split("/")) if not step.startswith("{")), "")
