"""The record of a tool, and the registry: names, schemas, annotations and policy of all tools follow from it.

To add a tool is to add one function with its record, in a file of `tools/`; endpoints of the contract are tools by
their own record:

    @tools.tool("ping", GuestParameters, level=Level.READ, effect=Effect.READS)
    async def ping(call: Call, _: GuestParameters) -> Answers:
        \"\"\"What an assistant reads: what it is for, when to use it, what it costs.\"\"\"

What a policy asks of a call follows from the roles of its parameters; a text without a role does not load.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final, Protocol, TypeVar, get_type_hints

import msgspec

from guestwire.client import Guest
from guestwire.contract import Effect, Level, Parameters, Role, parameter, rules
from guestwire.contract.openapi import schema_of
from guestwire.contract.parameters import require_roles
from guestwire.mcp.caller import Caller
from guestwire.mcp.policy import Limits, Policy, Refused, Rule

P = TypeVar("P", bound=Parameters)

MOST_PROCESSES: Final = 1000
"""Of one caller in one guest, that may be asked about; the latest ones."""


class Progress(Protocol):
    """Tells how much is done, of how much; and what has come meanwhile."""

    def __call__(self, done: float, total: float | None, text: str | None = None, /) -> None:
        """See the class."""
        ...


def no_progress(_done: float, _total: float | None, _text: str | None = None, /) -> None:
    """For calls whose client wants none."""


"""Is called with the amount that is done, and the amount in all."""


class GuestParameters(Parameters, frozen=True, kw_only=True):
    """Parameters of a tool that works in one guest."""

    guest: Annotated[str, parameter("Name or VMID.", Role.GUEST)]


class AnyGuestParameters(GuestParameters, frozen=True, kw_only=True):
    """The same, also where guests can't be listed: that may be what is to be found out."""


@dataclass
class Call:
    """One call of a tool from beginning to end: its request, what was found for it, and what its record will say.

    Attributes:
        caller: by their credentials.
        policy: the whole policy.
        name: the tool's, as the caller gave it.
        arguments: not validated.
        client: the client program's name, for the record.
        approved: the guest in which a person said yes to exactly this; None: no person was asked.
        progress: to be called on long work.
        is_followed: the client wants to see progress.
        log: sends a line to the client's log.
        chosen: the guest; None in calls about none.
        rule: decides for this guest.
        started: of the monotonic clock.
        outcome: ok, asks, refused, failed or cancelled.
        detail: why.
        note: the last line that the tool sent to the client's log.
        is_recorded: False keeps it out of the records.
    """

    caller: Caller
    policy: Policy
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    client: str = ""
    approved: str | None = None
    progress: Progress = no_progress
    is_followed: bool = False
    log: Callable[[str], None] = lambda _text: None
    chosen: Guest | None = None
    rule: Rule | None = None
    started: float = field(default_factory=time.monotonic)
    outcome: str = "ok"
    detail: str = ""
    note: str = ""
    is_recorded: bool = True

    @property
    def guest(self) -> Guest:
        """The guest of a call that is about one."""
        assert self.chosen is not None  # noqa: S101  # tools whose parameters name a guest get it
        return self.chosen

    @property
    def allowed(self) -> Rule:
        """The rule of a call that is about a guest."""
        assert self.rule is not None  # noqa: S101  # as above
        return self.rule

    @property
    def limits(self) -> Limits:
        """Of this call."""
        return self.policy.limits

    def note_process(self, pid: int) -> None:
        """The caller has started this process: it may ask how it ends."""
        key = self.guest.vm.node, self.guest.vm.vmid
        self.caller.processes.setdefault(key, deque(maxlen=MOST_PROCESSES)).append(pid)

    def require_own_process(self, pid: int) -> None:
        """Refuses a process that this caller did not start, where the policy restricts which programs it may run.

        Its output may be what the rules for programs and paths keep from the caller.

        Raises:
            Refused: it is another's.
        """
        own = self.caller.processes.get((self.guest.vm.node, self.guest.vm.vmid), ())
        if self.allowed.run is not None and pid not in own:
            raise Refused(
                f"process {pid} is none that you started here, and only those may be asked about ({self.allowed.source}, run)"
            )

    def tell(self, text: str) -> None:
        """Sends a line to the client's log, and keeps it for the record of a call that is broken off."""
        self.note = text
        self.log(text)

    def stop_in_dry_run(self) -> None:
        """To be called when all is checked, and something would be changed next.

        Raises:
            Refused: it is a dry run.
        """
        if self.policy.dry_run:
            raise Refused("dry run: nothing was done; the policy allows it")


Function = Callable[[Call, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: how it is called.
        description: for the assistant; never has text from a guest.
        parameters: all of them.
        returns: the struct of its structured result.
        level: what the policy must allow.
        effect: see `Effect`.
        function: does it.
        idempotent: a second call changes nothing more.
        destroys: clients should warn.
        core: it is listed where only what most work needs is.
        seconds: its own limit, where it is longer than the policy's for good reason.
        previews: in a dry run it runs, and shows what it would do.
    """

    name: str
    description: str
    parameters: type[Parameters]
    returns: Any
    level: Level
    effect: Effect
    function: Function
    idempotent: bool = True
    destroys: bool = False
    core: bool = True
    seconds: float | None = None
    previews: bool = False

    def __post_init__(self) -> None:
        require_roles(self.parameters)

    @property
    def is_about_guest(self) -> bool:
        """True for a tool that works in one guest, which is found first."""
        return issubclass(self.parameters, GuestParameters)

    def has(self, role: Role) -> bool:
        """True when one of its parameters has the role."""
        return any(rule.role is role for rule in rules(self.parameters).values())

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON schema of its parameters."""
        known = rules(self.parameters)
        properties = {
            as_argument(name): schema_of(rule) | ({"description": rule.description} if rule.description else {})
            for name, rule in known.items()
        }
        required = [as_argument(name) for name, rule in known.items() if rule.required]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """JSON schema of its structured result, with its parts in it, and nothing that a program does not need."""
        (schema,), parts = msgspec.json.schema_components([self.returns], ref_template="{name}")
        return _inline(schema, parts)  # type: ignore[no-any-return]  # a schema is an object


def as_argument(name: str) -> str:
    """A parameter's name as assistants see it."""
    return name.replace("-", "_")


def as_parameters(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments under the names that the parameters have; unknown ones stay."""
    names = {as_argument(name): name for name in rules(tool.parameters)}
    return {names.get(name, name): value for name, value in arguments.items()}


_NOT_NEEDED: Final = frozenset({"title", "description", "default"})


def _inline(schema: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inline(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(parts[schema["$ref"]], parts)
    kept = {key: value for key, value in schema.items() if key not in _NOT_NEEDED}
    if isinstance(kept.get("properties"), dict):
        properties = {name: _inline(item, parts) for name, item in kept.pop("properties").items()}
        return {key: value for key, value in kept.items() if value != []} | {"properties": properties}
    return {key: _inline(value, parts) for key, value in kept.items()}


class Registry:
    """Tools by name."""

    def __init__(self, *parts: "Registry") -> None:
        self._tools: dict[str, Tool] = {tool.name: tool for part in parts for tool in part}

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def get(self, name: str) -> Tool | None:
        """The tool of this name."""
        return self._tools.get(name)

    def levels(self) -> dict[str, Level]:
        """The level that the policy must allow for each of them."""
        return {name: tool.level for name, tool in self._tools.items()}

    def add(self, tool: Tool) -> None:
        """Adds one.

        Raises:
            ValueError: the name is taken.
        """
        if tool.name in self._tools:
            raise ValueError(f"the tool {tool.name} is there already")
        self._tools[tool.name] = tool

    def tool(
        self, name: str, parameters: type[P], *, level: Level, effect: Effect, idempotent: bool = True, core: bool = True,
        seconds: float | None = None, previews: bool = False,
    ) -> Callable[[Callable[[Call, P], Awaitable[Any]]], Tool]:  # fmt: skip
        """Makes a tool of the decorated function, and adds it."""

        def register(function: Callable[[Call, P], Awaitable[Any]]) -> Tool:
            tool = Tool(
                name=name,
                description=" ".join((function.__doc__ or "").split()),
                parameters=parameters,
                returns=get_type_hints(function)["return"],
                level=level,
                effect=effect,
                function=function,
                idempotent=idempotent,
                destroys=effect is not Effect.READS,
                core=core,
                seconds=seconds,
                previews=previews,
            )
            self.add(tool)
            return tool

        return register
