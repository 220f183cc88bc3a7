"""What every call goes through: parameters, policy, a person's yes, limits; then the guest; then what comes back is shown, and recorded."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from guestwire.client import CallFailed, Guest
from guestwire.contract import Effect, rules, validate
from guestwire.contract.auditing import shown_parameters
from guestwire.errors import GuestwireError, InvalidParameters
from guestwire.mcp.policy import Policy, Refused, Rule
from guestwire.mcp.records import Records
from guestwire.mcp.shown import fitting, marked, visible, visible_values
from guestwire.mcp.tool import Call, Caller, Progress, Registry, Tool, as_argument, as_parameters

log = logging.getLogger("guestwire.mcp")

LONGEST_ERROR: Final = 800
GRACE: Final = 5.0
"""Seconds that a call may take beyond the policy's limit: tools that wait keep to the limit themselves."""


class YesNeeded(GuestwireError):
    """A person must say yes first; the text is what they are asked."""


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
        approved: a person said yes to exactly this.
        progress: told on long work.
        note: the client's log.
    """

    caller: Caller
    tool: str
    arguments: Mapping[str, Any]
    client: str = ""
    approved: bool = False
    progress: Progress = lambda _done, _total: None
    note: Callable[[str], None] = lambda _text: None


@dataclass
class _Course:
    """What is known of a call while it goes on, for its record."""

    started: float = field(default_factory=time.monotonic)
    guest: Guest | None = None
    outcome: str = "ok"
    detail: str = ""


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
        return [
            tool
            for tool in self._tools
            if (tool.few or self.policy.every) and self.policy.allows_anywhere(tool.name, tool.level)
            and (tool.name != "copy_file" or self.policy.copy_folders)
        ]  # fmt: skip

    async def call(self, asked: Asked) -> Answer:
        """Does it, or says why not in a sentence or two.

        Raises:
            YesNeeded: a person must be asked; nothing was done.
        """
        course = _Course()
        tool = next((tool for tool in self.listed() if tool.name == asked.tool), None)
        try:
            return await self._done(tool, asked, course)
        except YesNeeded:
            course.outcome = "asks"
            raise
        except asyncio.CancelledError:
            course.outcome = "cancelled"
            raise
        except TimeoutError:
            course.outcome = "failed"
            return _failed(course, "no answer in the time that the policy allows; the guest may still be at it")
        except InvalidParameters as error:
            course.outcome = "refused"
            return _failed(
                course, "; ".join(f"{as_argument(name)}: {text.strip()}" for name, text in error.errors.items())
            )
        except GuestwireError as error:
            course.outcome = "refused" if isinstance(error, Refused) else "failed"
            return _failed(course, _advised(error))
        except Exception:
            course.outcome = "failed"
            log.exception("tool %s failed", asked.tool)
            return _failed(course, "an error in guestwire itself; its log has more")
        finally:
            await asyncio.shield(self._record(tool, asked, course))

    async def _done(self, tool: Tool | None, asked: Asked, course: _Course) -> Answer:
        if tool is None:
            raise Refused(self._why_not(asked.tool))
        asked.caller.count(course.started, self.policy.limits.calls_per_minute)
        parameters = _validated(tool, asked.arguments)
        async with asyncio.timeout((tool.seconds or self.policy.limits.seconds) + GRACE):
            rule = None
            if tool.is_about_guest:
                course.guest = await asked.caller.find(parameters.guest)
                rule = self._rule(tool, course.guest)
                if rule.asks(tool.name, tool.level) and not asked.approved:
                    raise YesNeeded(_question(tool, asked.arguments, course.guest))
            if self.policy.dry_run and tool.effect is not Effect.READS and not tool.previews:
                raise Refused("dry run: nothing was done; it would have been allowed so far")
            call = Call(asked.caller, self.policy, course.guest, rule, asked.progress, asked.note)
            return self._shown(tool, await tool.function(call, parameters), call)

    def _why_not(self, name: str) -> str:
        tool = self._tools.get(name)
        if tool is None:
            return f"there is no tool '{visible(name[:80])}'"
        if not self.policy.allows_anywhere(name, tool.level):
            return f"{name} needs '{tool.level.value}', which the policy allows in no guest; the operator can (--allow, or the policy file)"
        return (
            f"{name} is not offered here; the operator can offer every tool (--tools every) and folders (--copy-folder)"
        )

    def _rule(self, tool: Tool, guest: Guest) -> Rule:
        rule = self.policy.rule_for(guest.vmid, guest.vm.name)
        rule.check_tool(tool.name, tool.level)
        return rule

    def _shown(self, tool: Tool, found: Any, call: Call) -> Answer:
        values = visible_values(msgspec.to_builtins(found))
        text, room, more = _json(values), self.policy.limits.characters, ""
        if len(text) > room:
            more = f"\nIt was shortened; all of it: read_more cursor={call.caller.kept.keep(text)}"
            values = fitting(values, room - 1000)
            text = _json(values)
        where = f" in guest {call.chosen.place.guest}" if call.chosen else ""
        return Answer(marked(text, f"{tool.name}{where}") + more, values)

    async def _record(self, tool: Tool | None, asked: Asked, course: _Course) -> None:
        if self._records is None:
            return
        await self._records.write({
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": asked.client,
            "host": asked.caller.host.name,
            "guest": course.guest.place.guest if course.guest else None,
            "vmid": course.guest.vmid if course.guest else None,
            "tool": tool.name if tool else asked.tool[:80],
            "parameters": _recorded(tool, asked.arguments),
            "approved": asked.approved,
            "outcome": course.outcome,
            "detail": course.detail,
            "milliseconds": round((time.monotonic() - course.started) * 1000),
        })  # fmt: skip


def _validated(tool: Tool, arguments: Mapping[str, Any]) -> Any:
    given = as_parameters(tool, arguments)
    for name, rule in rules(tool.parameters).items():
        if rule.kind == "array" and given.get(name) is not None and not isinstance(given[name], list):
            raise InvalidParameters({name: "must be a list, each argument an item of its own"})
    return validate(tool.parameters, given)


def _recorded(tool: Tool | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return shown_parameters(rules(tool.parameters), as_parameters(tool, arguments), commands=True) if tool else {}


def _question(tool: Tool, arguments: Mapping[str, Any], guest: Guest) -> str:
    shown = {name: value for name, value in _recorded(tool, arguments).items() if name != "guest"}
    return f"{tool.name} in guest {guest.place.guest}: {visible(_json(shown))[:1500]}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _failed(course: _Course, text: str) -> Answer:
    course.detail = visible(text)[:LONGEST_ERROR]
    return Answer(course.detail)


def _advised(error: GuestwireError) -> str:
    """Errors of the client advise people at a command line; an assistant has tools."""
    text = str(error)
    if isinstance(error, CallFailed):
        text = text.replace("`guestwire doctor GUEST` finds out why", "diagnose finds out why")
    return text
