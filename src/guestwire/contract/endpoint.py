"""The endpoint record and the registry: the one table from which every face follows.

Routes, validation, permission checks, audit, OpenAPI and reference, client methods, commands and tools are made from
the records. To add an endpoint is to add one function with its record, in one file of `endpoints/`; CONTRIBUTING.md
walks through it:

    @endpoints.endpoint("GET", f"{AGENT}/get-load", VmParameters, check=AUDIT, tool=ToolView(hint="Cheap."))
    async def get_load(context: GuestContext, parameters: VmParameters) -> Forwarded[Load]:
        \"\"\"Reads the guest's load.\"\"\"
        return await forward(context, parameters, qga.GET_LOAD)

A record that leaves open what must be decided does not load: a text without a role, a tool without a level.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar, get_type_hints

from guestwire.access.checks import Check, LoggedIn, Privileges
from guestwire.contract.faces import CommandView, Level, ToolView
from guestwire.contract.parameters import Parameters, Role, require_roles, rules

P = TypeVar("P", bound=Parameters)
C = TypeVar("C")

Function = Callable[[Any, Any], Awaitable[Any]]

VM: Final = "/nodes/{node}/qemu/{vmid}"
"""The path of one VM; the endpoints below it are methods of the client's guests."""

OWN: Final = "guestwire"
"""The step in a path below which endpoints are ours and not Proxmox VE's."""

DEFAULT_TIMEOUT: Final = 15.0
LOGGED_IN: Final = LoggedIn()

LEVELS: Final = {
    "VM.GuestAgent.Audit": Level.READ,
    "VM.GuestAgent.FileRead": Level.FILES,
    "VM.GuestAgent.FileWrite": Level.FILES,
    "VM.GuestAgent.FileSystemMgmt": Level.MANAGE,
    "VM.PowerMgmt": Level.POWER,
    "VM.GuestAgent.Unrestricted": Level.EXEC,
}
"""What a policy must allow for an endpoint, by the first privilege that it asks for."""

_parameter = re.compile(r"\{(\w+)\}")


class Effect(Enum):
    """What an endpoint does to a guest. The HTTP method does not tell: Proxmox VE's ping is a POST."""

    READS = "reads"
    WRITES = "writes"
    DISRUPTS = "disrupts"
    """Stops the guest or what runs in it from working, for a while or for good."""


class Origin(Enum):
    """Whose endpoint it is: one of Proxmox VE's API, or our own, under a path of its own."""

    PVE = "Proxmox VE"
    OWN = "guestwire"


class Kind(Enum):
    """How an endpoint answers: once, with a stream of messages, or with a program whose bytes go both ways."""

    CALL = "call"
    STREAM = "stream"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: below `/api2/{format}`, with path parameters in braces.
        name: what a command line or a tool calls it: the last word of the path that is no parameter, unless the record
            says another.
        summary: one line.
        parameters: all of them, those in the path too.
        returns: the type of the result.
        check: what a caller needs.
        tokens: whether it can be called with an API token, too.
        effect: see `Effect`.
        timeout: seconds it may take at most.
        function: does it.
        kind: see `Kind`.
        tool: how assistants see it; None: it is no tool.
        command: how the command line shows it; None: only `guestwire raw` calls it.
        instead: of ours, a command that does the same where the host lacks the endpoint, as Proxmox VE does; "" for none.
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
    kind: Kind = Kind.CALL
    tool: ToolView | None = None
    command: CommandView | None = None
    instead: str = ""

    @property
    def origin(self) -> Origin:
        """Whose it is, as its path says."""
        return Origin.OWN if OWN in self.path.split("/") else Origin.PVE

    @property
    def is_about_guest(self) -> bool:
        """True for an endpoint of one VM."""
        return self.path == VM or self.path.startswith(f"{VM}/")

    @property
    def read_paths(self) -> list[str]:
        """The parameters that name a file of a guest that is read."""
        return [name for name, rule in rules(self.parameters).items() if Role.READ_PATH in rule.roles]

    @property
    def level(self) -> Level:
        """What a policy must allow before an assistant may use it.

        Raises:
            TypeError: neither its tool view nor its privileges say.
        """
        if self.tool and self.tool.level:
            return self.tool.level
        if isinstance(self.check, Privileges) and self.check.any_of[0] in LEVELS:
            return LEVELS[self.check.any_of[0]]
        raise TypeError(f"{self.method} {self.path} is a tool without a level: name one in its ToolView")


class Registry:
    """Endpoints by path and method. The decorator takes the record; summary and result type come from the function."""

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
            TypeError: the record is not complete.
        """
        if (endpoint.method, endpoint.path) in self._endpoints:
            raise ValueError(f"{endpoint.method} {endpoint.path} is there already")
        _require_complete(endpoint)
        self._endpoints[endpoint.method, endpoint.path] = endpoint

    def endpoint(
        self, method: str, path: str, parameters: type[P], *, check: Check = LOGGED_IN, effect: Effect = Effect.READS,
        timeout: float = DEFAULT_TIMEOUT, tokens: bool = True, kind: Kind = Kind.CALL, tool: ToolView | None = None,
        command: CommandView | None = None, name: str | None = None, instead: str = "",
    ) -> Callable[[Callable[[C, P], Awaitable[Any]]], Endpoint]:  # fmt: skip
        """Makes an endpoint of the decorated function, and adds it."""

        def register(function: Callable[[C, P], Awaitable[Any]]) -> Endpoint:
            endpoint = Endpoint(
                method=method,
                path=path,
                name=name or next((step for step in reversed(path.split("/")) if not step.startswith("{")), ""),
                summary=(function.__doc__ or "").strip().partition("\n")[0],
                parameters=parameters,
                returns=get_type_hints(function)["return"],
                check=check,
                effect=effect,
                timeout=timeout,
                function=function,
                tokens=tokens,
                kind=kind,
                tool=tool,
                command=command,
                instead=instead,
            )
            self.add(endpoint)
            return endpoint

        return register

    def children(self, path: str) -> list[str]:
        """The names one step below `path`, sorted."""
        below = (endpoint.path.removeprefix(path + "/") for endpoint in self if endpoint.path.startswith(path + "/"))
        return sorted({rest.partition("/")[0] for rest in below})


def _require_complete(endpoint: Endpoint) -> None:
    if not endpoint.summary:
        raise TypeError(f"{endpoint.method} {endpoint.path} is not documented: its function needs a docstring")
    require_roles(endpoint.parameters)
    if missing := set(_parameter.findall(endpoint.path)) - rules(endpoint.parameters).keys():
        raise TypeError(
            f"{endpoint.method} {endpoint.path}: {', '.join(sorted(missing))} is in the path and no parameter"
        )
    if endpoint.tool:
        _ = endpoint.level
        if not endpoint.is_about_guest:
            raise TypeError(f"{endpoint.method} {endpoint.path} is a tool, but about no guest: no rule would be asked")
