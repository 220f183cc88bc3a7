"""The record of a tool, and the registry: names, schemas, annotations and policy of all tools follow from it.

To add a tool is to add one function with its record, in a file of `tools/`:

    @tools.tool("ping", OfGuest, level=Level.READ, effect=Effect.READS)
    async def ping(call: Call, _: OfGuest) -> Answers:
        \"\"\"What an assistant reads: what it is for, when to use it, what it costs.\"\"\"
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from secrets import token_hex
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from guestwire.client import Guest, GuestInfo, Host
from guestwire.client.errors import NoSuchGuest, Place
from guestwire.contract import Effect, Parameters, rules
from guestwire.contract.openapi import schema_of
from guestwire.mcp.policy import Level, Limits, Policy, Refused, Rule, TooMany
from guestwire.mcp.shown import Kept, visible

P = TypeVar("P", bound=Parameters)

Progress = Callable[[float, float | None], None]
"""Told how much is done, and of how much in all."""


class OfGuest(Parameters, frozen=True, kw_only=True):
    """Parameters of what is done in one guest."""

    guest: Annotated[str, Meta(description="Name or VMID, as list_guests has it.")]


class OfAnyGuest(OfGuest, frozen=True, kw_only=True):
    """The same, also where guests can't be listed: that may be what is to be found out."""


def rule_for(policy: Policy, host: Host, guest: GuestInfo) -> Rule:
    """The rule that decides for a guest. Of an agent's own socket nobody knows the VM's id, unless the file is named by it."""
    if not host.is_local:
        return policy.rule_for(guest.vmid, guest.name)
    return policy.rule_for(int(guest.name) if guest.name.isascii() and guest.name.isdigit() else 0, guest.name)


@dataclass
class Caller:
    """Whoever uses the server, by their own credentials: their host, and what is kept for them."""

    host: Host
    kept: Kept = field(default_factory=Kept)
    id: str = field(default_factory=lambda: token_hex(8))
    """Unlike any other caller's."""

    calls: deque[float] = field(default_factory=deque)
    """When they called within the last minute."""

    refused: float = -math.inf
    """When it was last recorded that they called too often."""

    under_way: set[asyncio.Task[Any]] = field(default_factory=set)
    """A task for each call."""

    def count(self, now: float, most: int) -> None:
        """Counts a call.

        Raises:
            TooMany: there were too many within a minute.
        """
        while self.calls and self.calls[0] < now - 60:
            self.calls.popleft()
        if len(self.calls) >= most:
            raise TooMany(f"{most} calls a minute are allowed; wait {self.calls[0] + 60 - now:.0f} seconds")
        self.calls.append(now)

    def is_news(self, now: float) -> bool:
        """Whether a refusal for too many calls is the first within a minute: a flood must not wash the records away."""
        if now < self.refused + 60:
            return False
        self.refused = now
        return True

    async def names(self, policy: Policy) -> list[str]:
        """How the guests that the policy does not hide are told apart: by name, or by id where several could be meant.

        Raises:
            CallFailed: see `client.errors`.
        """
        known = await self.host.guests()
        often = Counter(word for one in known for word in {one.name, str(one.vmid)})
        return [
            one.name if often[one.name] == 1 else str(one.vmid)
            for one in known
            if rule_for(policy, self.host, one).levels
        ]

    async def find(self, name: str) -> Guest:
        """A guest by its VM's id, node and id, or name, in this order. It must be listed: rules go by names, too.

        Raises:
            NoSuchGuest: it is not listed, or several have the name.
            CallFailed: see `client.errors`.
        """
        known = await self.host.guests()
        by_id = [one for one in known if name in (str(one.vmid), f"{one.node}/{one.vmid}")]
        fitting = known if self.host.is_local else by_id or [one for one in known if one.name == name]
        if len(fitting) != 1:
            what = (
                "several guests have this name; use the VMID"
                if fitting
                else "no such guest, or you may not see it (VM.Audit)"
            )
            raise NoSuchGuest(
                Place(self.host.name, visible(name[:100])), what, advice="list_guests shows those that there are"
            )
        return self.host.listed(fitting[0])


@dataclass(frozen=True)
class Call:
    """What a tool's function is given.

    Attributes:
        caller: who calls.
        policy: the whole policy.
        chosen: the guest; there is none in calls about none.
        rule: what decides for this guest.
        progress: to be told on long work.
        note: tells the client's log something.
    """

    caller: Caller
    policy: Policy
    chosen: Guest | None
    rule: Rule | None
    progress: Progress
    note: Callable[[str], None]

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

    def stop_in_dry_run(self) -> None:
        """Called when all is checked, and something would be changed next.

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
        idempotent: whether doing it again changes nothing more.
        few: whether it is listed where only what most work needs is.
        function: does it.
        seconds: its own limit, where it is longer than the policy's for good reason.
        previews: whether it does in a dry run what it can: checks by its parameters, and shows what it would do.
    """

    name: str
    description: str
    parameters: type[Parameters]
    returns: Any
    level: Level
    effect: Effect
    idempotent: bool
    few: bool
    function: Function
    seconds: float | None = None
    previews: bool = False

    @property
    def is_about_guest(self) -> bool:
        """Whether it works in one guest, which is found first."""
        return issubclass(self.parameters, OfGuest)

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
        """JSON schema of its structured result."""
        return output_schema(self.returns)


def as_argument(name: str) -> str:
    """A parameter's name as assistants see it."""
    return name.replace("-", "_")


def as_parameters(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments under the names that the parameters have; unknown ones stay."""
    names = {as_argument(name): name for name in rules(tool.parameters)}
    return {names.get(name, name): value for name, value in arguments.items()}


def output_schema(returns: Any) -> dict[str, Any]:
    """The schema of a struct, with its parts in it, and nothing that a program does not need."""
    (schema,), parts = msgspec.json.schema_components([returns], ref_template="{name}")
    return _inlined(schema, parts)  # type: ignore[no-any-return]  # a schema is an object


_NOT_NEEDED: Final = frozenset({"title", "description", "default"})


def _inlined(schema: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(parts[schema["$ref"]], parts)
    kept = {key: value for key, value in schema.items() if key not in _NOT_NEEDED}
    if isinstance(kept.get("properties"), dict):
        properties = {name: _inlined(item, parts) for name, item in kept.pop("properties").items()}
        return {key: value for key, value in kept.items() if value != []} | {"properties": properties}
    return {key: _inlined(value, parts) for key, value in kept.items()}


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

    def names(self) -> frozenset[str]:
        """Of all of them."""
        return frozenset(self._tools)

    def levels(self) -> dict[str, Level]:
        """What the policy must allow for each of them."""
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
        self,
        name: str,
        parameters: type[P],
        *,
        level: Level,
        effect: Effect,
        idempotent: bool = True,
        few: bool = True,
        seconds: float | None = None,
        previews: bool = False,
    ) -> Callable[[Callable[[Call, P], Awaitable[Any]]], Tool]:
        """Makes a tool of the decorated function, and adds it."""

        def register(function: Callable[[Call, P], Awaitable[Any]]) -> Tool:
            description = " ".join((function.__doc__ or "").split())
            returns = get_type_hints(function)["return"]
            tool = Tool(
                name, description, parameters, returns, level, effect, idempotent, few, function, seconds, previews
            )  # fmt: skip
            self.add(tool)
            return tool

        return register
