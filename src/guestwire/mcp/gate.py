"""The one way of every call: parameters, policy, a person's yes, limits; then the guest.

Then the result is made safe to show, and recorded.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from guestwire.client import CallFailed
from guestwire.client.errors import NoSuchGuest
from guestwire.contract import Effect, Role, rules, validate
from guestwire.contract.audit_fields import audit_fields
from guestwire.errors import GuestwireError, InvalidParameters
from guestwire.mcp.call_log import CallRecords
from guestwire.mcp.caller import rule_for
from guestwire.mcp.display import as_json, beginning, delimit, sanitize, sanitize_values, truncate_to_fit
from guestwire.mcp.enforce import enforce, verify_unchanged
from guestwire.mcp.error_text import LONGEST, describe_error
from guestwire.mcp.policy import Policy, Refused, TooMany
from guestwire.mcp.tool import AnyGuestParameters, Call, Registry, Tool, as_argument, as_parameters

log = logging.getLogger("guestwire.mcp")

LONGEST_QUESTION: Final = 10_000
"""Characters that a person is shown; a call that takes more is refused."""

MARKS: Final = 300
"""Characters that the marks around an answer and the cursor take."""

GRACE: Final = 5.0
"""Seconds that a call may take beyond the policy's limit: tools that wait keep to the limit themselves."""


class ApprovalRequired(GuestwireError):
    """A person must say yes first; the text is the question, and `where` the guest that it names."""

    def __init__(self, question: str, where: str) -> None:
        super().__init__(question)
        self.where = where


@dataclass(frozen=True)
class Answer:
    """The answer to the client: a text, and the same as JSON has it unless the call failed."""

    text: str
    structured: dict[str, Any] | None = None

    @property
    def is_error(self) -> bool:
        """True when the call failed."""
        return self.structured is None


class Gate:
    """Lets calls through.

    Args:
        tools: all that there are.
        policy: what may be done.
        records: where each call leaves a line; None: nowhere.
    """

    def __init__(self, tools: Registry, policy: Policy, records: CallRecords | None) -> None:
        self.policy = policy
        self._tools = tools
        self._records = records

    def offered(self) -> list[Tool]:
        """The tools that some guest's rule allows, in the policy's selection."""
        return offered(self._tools, self.policy)

    async def call(self, call: Call) -> Answer:
        """Runs a tool, or says why not in a sentence or two.

        Raises:
            ApprovalRequired: a person must be asked; nothing was done.
        """
        task = asyncio.current_task()
        assert task  # noqa: S101  # a coroutine runs in one
        call.caller.running.add(task)
        task.add_done_callback(call.caller.running.discard)
        tool = next((tool for tool in self.offered() if tool.name == call.name), None)
        try:
            return await self._run(tool, call)
        except ApprovalRequired:
            call.outcome = "asks"
            raise
        except asyncio.CancelledError:
            call.outcome, call.detail = "cancelled", call.note
            raise
        except Exception as error:  # noqa: BLE001  # the client gets an answer in any case, and the log the rest
            return _failure(error, call)
        finally:
            await asyncio.shield(self._record(tool, call))

    async def refuse(self, call: Call, why: Refused) -> Answer:
        """Answers and records a call that was refused before it was run: a person said no, or the yes was none."""
        try:
            call.caller.count(call.started, self.policy.limits.calls_per_minute)
        except TooMany as error:
            why = error
        answer = _failure(why, call)
        await self._record(self._tools.get(call.name), call)
        return answer

    async def _run(self, tool: Tool | None, call: Call) -> Answer:
        if self._records:
            try:  # nothing is done while there are calls that left no record
                await self._records.settle()
                await self._records.refused.settle()
            except OSError as error:
                call.is_recorded = False
                raise Refused(
                    f"nothing is done while calls can't be recorded ({error.strerror}); tell the operator"
                ) from None
        call.caller.count(call.started, self.policy.limits.calls_per_minute)
        if tool is None:
            raise Refused(self._why_not(call.name))
        given = as_parameters(tool, call.arguments)
        for name, rule in rules(tool.parameters).items():
            if rule.kind == "array" and given.get(name) is not None and not isinstance(given[name], list):
                raise InvalidParameters({name: "must be a list, each argument an item of its own"})
        parameters = validate(tool.parameters, given)
        async with asyncio.timeout((tool.seconds or self.policy.limits.seconds) + GRACE):
            await self._find_guest(tool, call, parameters)
            where = call.chosen.context.guest if call.chosen else ""
            asks = (call.rule.asks if call.rule else self.policy.asks_anywhere)(tool.name, tool.level)
            if asks and call.approved != where:
                raise ApprovalRequired(_question(tool, call, where), where)
            reads: list[str] = []
            if call.rule:
                parameters, reads = await enforce(call, parameters)
            if tool.effect is not Effect.READS and not tool.previews:
                call.stop_in_dry_run()
            result = await tool.function(call, parameters)
            if reads:
                await verify_unchanged(call.guest, reads)
            return self._show(tool, result, call)

    async def _find_guest(self, tool: Tool, call: Call, parameters: Any) -> None:
        if not tool.is_about_guest:
            return
        try:
            call.chosen = await call.caller.find(parameters.guest, fresh=call.approved is not None)
        except NoSuchGuest:
            raise
        except CallFailed:
            if not issubclass(tool.parameters, AnyGuestParameters):
                raise
            return
        call.rule = rule_for(self.policy, call.caller.host, call.chosen.vm)
        call.rule.check_tool(tool.name, tool.level)

    def _why_not(self, name: str) -> str:
        tool = self._tools.get(name)
        if tool is None:
            return f"there is no tool '{sanitize(name[:80])}'"
        if not self.policy.allows_anywhere(name, tool.level):
            return f"{name} needs '{tool.level.value}', which the policy allows in no guest; the operator can (--allow, or the policy file)"
        return (
            f"{name} is not offered here; the operator can offer every tool (--tools every) and folders (--copy-folder)"
        )

    def _show(self, tool: Tool, result: Any, call: Call) -> Answer:
        whole, room, more = msgspec.to_builtins(result), self.policy.limits.characters - MARKS, ""
        shorter = truncate_to_fit(whole, room)
        safe = sanitize_values(shorter)
        fitting = truncate_to_fit(safe, room)
        if shorter is not whole or fitting is not safe:
            more = f"\nIt was shortened; all of it: read_more cursor={call.caller.texts.keep(as_json(whole))}"
        where = f" in guest {call.chosen.context.guest}" if call.chosen else ""
        return Answer(delimit(as_json(fitting), f"{tool.name}{where}") + more, fitting)

    async def _record(self, tool: Tool | None, call: Call) -> None:
        if not self._records or not call.is_recorded:
            return
        known = rules(tool.parameters) if tool else {}
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": call.client,
            "host": call.caller.host.name,
            "guest": call.chosen.context.guest if call.chosen else None,
            "vmid": call.chosen.vmid if call.chosen else None,
            "tool": tool.name if tool else call.name[:80],
            "parameters": audit_fields(known, as_parameters(tool, call.arguments), commands=True) if tool else {},
            "approved": call.approved is not None,
            "outcome": call.outcome,
            "detail": call.detail,
            "milliseconds": round((time.monotonic() - call.started) * 1000),
        }
        was_done = call.outcome not in ("refused", "asks")
        try:
            await (self._records if was_done else self._records.refused).write(line)
        except OSError as error:
            log.error("calls can't be recorded, and are refused until they can: %s", error)  # noqa: TRY400  # the reason is all


def offered(tools: Registry, policy: Policy) -> list[Tool]:
    """The tools that some guest's rule allows, in the policy's selection.

    Those for files on this side need a folder there.
    """
    return [
        tool
        for tool in tools
        if (tool.core or policy.every) and policy.allows_anywhere(tool.name, tool.level)
        and (policy.copy_folders or not tool.has(Role.LOCAL_PATH))
    ]  # fmt: skip


def _question(tool: Tool, call: Call, guest: str) -> str:
    """All that the call would do, for a person who is to say yes. Only secrets are left out.

    Raises:
        Refused: it is more than a person can be shown: what is left out could be what matters.
    """
    secrets = {as_argument(name) for name, rule in rules(tool.parameters).items() if rule.role is Role.SECRET}
    given = {name: "…" if name in secrets else value for name, value in call.arguments.items() if name != "guest"}
    where = f" in guest {guest}" if guest else ""
    text = as_json(given)
    shown, end = beginning(text, 0, LONGEST_QUESTION)
    if end < len(text):
        raise Refused(
            f"a person must say yes to this, and can be shown {LONGEST_QUESTION} characters: it has {len(text)};"
            " do it in smaller parts"
        )
    return f"{tool.name}{where}: {shown}"


def _failure(error: Exception, call: Call) -> Answer:
    call.outcome = "refused" if isinstance(error, Refused | InvalidParameters) else "failed"
    if isinstance(error, TooMany):
        call.is_recorded = call.caller.should_record_refusal(call.started)
    match error:
        case TimeoutError():
            text = f"no answer in the time that the policy allows; {call.note or 'the guest may still be at it'}"
        case InvalidParameters():
            text = "; ".join(f"{as_argument(name)}: {text.strip()}" for name, text in error.errors.items())
        case GuestwireError():
            text = str(error)
        case _:
            log.error("tool %s failed", call.name, exc_info=error)
            text = "an error in guestwire itself; its log has more"
    call.detail = sanitize(text)[:LONGEST]
    return Answer(describe_error(error) if isinstance(error, CallFailed) else call.detail)
