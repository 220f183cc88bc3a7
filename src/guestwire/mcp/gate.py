"""What every call goes through: parameters, policy, a person's yes, limits; then the guest; then what comes back is shown, and recorded."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from guestwire.client import CallFailed, Guest
from guestwire.client.errors import NoSuchGuest
from guestwire.contract import Effect, rules, validate
from guestwire.contract.auditing import shown_parameters
from guestwire.errors import GuestwireError, InvalidParameters
from guestwire.mcp.policy import Policy, Refused, Rule, TooMany
from guestwire.mcp.records import Records
from guestwire.mcp.shown import as_json, beginning, fitting, marked, shortened, visible, visible_values
from guestwire.mcp.told import LONGEST, told
from guestwire.mcp.tool import Call, Caller, OfAnyGuest, Progress, Registry, Tool, as_argument, as_parameters, rule_for

log = logging.getLogger("guestwire.mcp")

LONGEST_ASKED: Final = 3000
AROUND: Final = 300
"""Characters that marks and the cursor take."""

STILL_AT_IT: Final = "the guest may still be at it"
GRACE: Final = 5.0
"""Seconds that a call may take beyond the policy's limit: tools that wait keep to the limit themselves."""


class YesNeeded(GuestwireError):
    """A person must say yes first; the text is what they are asked, and `where` the guest that it names."""

    def __init__(self, question: str, where: str) -> None:
        super().__init__(question)
        self.where = where


@dataclass(frozen=True)
class Answer:
    """What goes to the client: a text, and the same as JSON has it unless it failed."""

    text: str
    structured: dict[str, Any] | None = None

    @property
    def is_error(self) -> bool:
        """Whether the call failed."""
        return self.structured is None


@dataclass(frozen=True)
class Asked:
    """One call as it came.

    Attributes:
        caller: by whose credentials.
        tool: its name.
        arguments: not validated.
        client: the client's name, for the record.
        approved: the guest in which a person said yes to exactly this; None: nobody did.
        progress: told on long work.
        note: the client's log.
    """

    caller: Caller
    tool: str
    arguments: Mapping[str, Any]
    client: str = ""
    approved: str | None = None
    progress: Progress = lambda _done, _total: None
    note: Callable[[str], None] = lambda _text: None


@dataclass
class _Course:
    """What is known of a call while it goes on, for its record."""

    started: float = field(default_factory=time.monotonic)
    guest: Guest | None = None
    outcome: str = "ok"
    detail: str = ""
    noted: str = ""
    """What the tool said last while it went on."""

    is_recorded: bool = True


class Gate:
    """Lets calls through.

    Args:
        tools: all that there are.
        policy: what may be done.
        records: where each call leaves a line; None: nowhere.
    """

    def __init__(self, tools: Registry, policy: Policy, records: Records | None) -> None:
        self.policy = policy
        self._tools = tools
        self._records = records

    def listed(self) -> list[Tool]:
        """The tools that some guest's rule allows, in the policy's selection."""
        return offered(self._tools, self.policy)

    async def call(self, asked: Asked) -> Answer:
        """Does it, or says why not in a sentence or two.

        Raises:
            YesNeeded: a person must be asked; nothing was done.
        """
        course = _Course()
        task = asyncio.current_task()
        assert task  # noqa: S101  # a coroutine runs in one
        asked.caller.under_way.add(task)
        task.add_done_callback(asked.caller.under_way.discard)
        tool = next((tool for tool in self.listed() if tool.name == asked.tool), None)
        try:
            return await self._done(tool, asked, course)
        except YesNeeded:
            course.outcome = "asks"
            raise
        except asyncio.CancelledError:
            course.outcome, course.detail = "cancelled", course.noted
            raise
        except Exception as error:  # noqa: BLE001  # a client is told in any case, and the log the rest
            return _explained(error, asked, course)
        finally:
            await asyncio.shield(self._record(tool, asked, course))

    async def refused(self, asked: Asked, why: Refused) -> Answer:
        """Answers and records a call that came to nothing before it was done: a person said no, or the yes was none."""
        course = _Course()
        try:
            asked.caller.count(course.started, self.policy.limits.calls_per_minute)
        except TooMany as error:
            why = error
        answer = _explained(why, asked, course)
        await self._record(self._tools.get(asked.tool), asked, course)
        return answer

    async def _done(self, tool: Tool | None, asked: Asked, course: _Course) -> Answer:
        await self._settled(course)
        asked.caller.count(course.started, self.policy.limits.calls_per_minute)
        if tool is None:
            raise Refused(self._why_not(asked.tool))
        parameters = _validated(tool, asked.arguments)
        async with asyncio.timeout((tool.seconds or self.policy.limits.seconds) + GRACE):
            course.guest = await _found(tool, asked.caller, parameters)
            rule = self._rule(tool, asked.caller, course.guest) if course.guest else None
            where = course.guest.place.guest if course.guest else ""
            if self._asks(tool, rule) and asked.approved != where:
                raise YesNeeded(_question(tool, asked.arguments, where), where)
            call = Call(asked.caller, self.policy, course.guest, rule, asked.progress, _noting(course, asked))
            if tool.effect is not Effect.READS and not tool.previews:
                call.stop_in_dry_run()
            return self._shown(tool, await tool.function(call, parameters), call)

    def _asks(self, tool: Tool, rule: Rule | None) -> bool:
        return (rule.asks if rule else self.policy.asks_anywhere)(tool.name, tool.level)

    def _why_not(self, name: str) -> str:
        tool = self._tools.get(name)
        if tool is None:
            return f"there is no tool '{visible(name[:80])}'"
        if not self.policy.allows_anywhere(name, tool.level):
            return f"{name} needs '{tool.level.value}', which the policy allows in no guest; the operator can (--allow, or the policy file)"
        return (
            f"{name} is not offered here; the operator can offer every tool (--tools every) and folders (--copy-folder)"
        )

    def _rule(self, tool: Tool, caller: Caller, guest: Guest) -> Rule:
        rule = rule_for(self.policy, caller.host, guest.vm)
        rule.check_tool(tool.name, tool.level)
        return rule

    def _shown(self, tool: Tool, found: Any, call: Call) -> Answer:
        whole, room, more = msgspec.to_builtins(found), self.policy.limits.characters - AROUND, ""
        shorter = fitting(whole, room)
        values = visible_values(shorter)
        shown = fitting(values, room)
        if shorter is not whole or shown is not values:
            more = f"\nIt was shortened; all of it: read_more cursor={call.caller.kept.keep(as_json(whole))}"
        where = f" in guest {call.chosen.place.guest}" if call.chosen else ""
        return Answer(marked(as_json(shown), f"{tool.name}{where}") + more, shown)

    async def _settled(self, course: _Course) -> None:
        """Nothing is done while there are calls that left no record."""
        if self._records:
            try:
                await self._records.settle()
            except OSError as error:
                course.is_recorded = False
                raise Refused(
                    f"nothing is done while calls can't be recorded ({error.strerror}); tell the operator"
                ) from None

    async def _record(self, tool: Tool | None, asked: Asked, course: _Course) -> None:
        if self._records and course.is_recorded:
            try:
                await self._records.write(_line(tool, asked, course))
            except OSError as error:
                log.error("calls can't be recorded, and are refused until they can: %s", error)  # noqa: TRY400  # the reason is all


def offered(tools: Registry, policy: Policy) -> list[Tool]:
    """The tools that some guest's rule allows, in the policy's selection."""
    return [
        tool
        for tool in tools
        if (tool.few or policy.every) and policy.allows_anywhere(tool.name, tool.level)
        and (tool.name != "copy_file" or policy.copy_folders)
    ]  # fmt: skip


def _line(tool: Tool | None, asked: Asked, course: _Course) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "client": asked.client,
        "host": asked.caller.host.name,
        "guest": course.guest.place.guest if course.guest else None,
        "vmid": course.guest.vmid if course.guest else None,
        "tool": tool.name if tool else asked.tool[:80],
        "parameters": _recorded(tool, asked.arguments),
        "approved": asked.approved is not None,
        "outcome": course.outcome,
        "detail": course.detail,
        "milliseconds": round((time.monotonic() - course.started) * 1000),
    }


def _validated(tool: Tool, arguments: Mapping[str, Any]) -> Any:
    given = as_parameters(tool, arguments)
    for name, rule in rules(tool.parameters).items():
        if rule.kind == "array" and given.get(name) is not None and not isinstance(given[name], list):
            raise InvalidParameters({name: "must be a list, each argument an item of its own"})
    return validate(tool.parameters, given)


def _recorded(tool: Tool | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return shown_parameters(rules(tool.parameters), as_parameters(tool, arguments), commands=True) if tool else {}


async def _found(tool: Tool, caller: Caller, parameters: Any) -> Guest | None:
    if not tool.is_about_guest:
        return None
    try:
        return await caller.find(parameters.guest)
    except NoSuchGuest:
        raise
    except CallFailed:
        if not issubclass(tool.parameters, OfAnyGuest):
            raise
        return None


def _noting(course: _Course, asked: Asked) -> Callable[[str], None]:
    def note(text: str) -> None:
        course.noted = text
        asked.note(text)

    return note


def _question(tool: Tool, arguments: Mapping[str, Any], guest: str) -> str:
    """All that the call would do: whoever says yes must have seen it. Only a password is left out."""
    given = {name: "…" if name == "password" else value for name, value in arguments.items() if name != "guest"}
    where = f" in guest {guest}" if guest else ""
    text = as_json(shortened(given, LONGEST_ASKED // 2, len(str(given))))
    shown, end = beginning(text, 0, LONGEST_ASKED)
    left_out = f" … {len(text) - end} characters more, not shown" if end < len(text) else ""
    return f"{tool.name}{where}: {shown}{left_out}"


def _explained(error: Exception, asked: Asked, course: _Course) -> Answer:
    course.outcome = "refused" if isinstance(error, Refused | InvalidParameters) else "failed"
    if isinstance(error, TooMany):
        course.is_recorded = asked.caller.is_news(course.started)
    course.detail = visible(_why(error, asked, course))[:LONGEST]
    return Answer(told(error) if isinstance(error, CallFailed) else course.detail)


def _why(error: Exception, asked: Asked, course: _Course) -> str:
    match error:
        case TimeoutError():
            text = f"no answer in the time that the policy allows; {course.noted or STILL_AT_IT}"
        case InvalidParameters():
            text = "; ".join(f"{as_argument(name)}: {text.strip()}" for name, text in error.errors.items())
        case GuestwireError():
            text = str(error)
        case _:
            log.error("tool %s failed", asked.tool, exc_info=error)
            text = "an error in guestwire itself; its log has more"
    return text
