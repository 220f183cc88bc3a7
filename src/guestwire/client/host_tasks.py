"""Tasks of a host: work that goes on after its call, as starting a VM; waiting for the end, and what it was."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from guestwire.client.errors import CallFailed, ErrorContext
from guestwire.pacing import Backoff

if TYPE_CHECKING:
    from guestwire.client.protocols import HostOfGuest

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0
LAST_LINES: Final = 5
"""Of its log, that are shown of a task that failed."""

WARNINGS: Final = "WARNINGS"
"""How a task of Proxmox VE ends that has done its work, and says something of it."""


class TaskFailed(CallFailed):
    """A task ended, and not well; `upid` is its id, `log` its last lines."""

    def __init__(self, context: ErrorContext, message: str, upid: str, log: list[str]) -> None:
        self.upid = upid
        self.log = log
        super().__init__(context, message)


class TaskRunning(CallFailed):
    """A task has not ended in time, and goes on; `upid` is its id."""

    exit_code = 124

    def __init__(self, context: ErrorContext, upid: str, seconds: float) -> None:
        self.upid = upid
        super().__init__(context, f"task {upid} still runs after {seconds:g} seconds; it goes on")


async def wait_for_task(host: "HostOfGuest", node: str, upid: str, context: ErrorContext, within: float) -> None:
    """Waits until a task ends well.

    Args:
        host: that has it.
        node: where it runs.
        upid: its id.
        context: names the guest in errors.
        within: seconds to wait.

    Raises:
        TaskFailed: it ended otherwise.
        TaskRunning: it has not ended then.
        CallFailed: see `client.errors`.
    """
    path = f"/nodes/{node}/tasks/{upid}"
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
    try:
        async with asyncio.timeout(within):
            while (state := _as_object(await host.raw("GET", f"{path}/status"))).get("status") == "running":  # noqa: ASYNC110  # only asking tells
                await asyncio.sleep(backoff.next())
    except TimeoutError:
        raise TaskRunning(context, upid, within) from None
    status = str(state.get("exitstatus", "unknown"))
    if status == "OK" or status.startswith(WARNINGS):
        return
    lines = await host.raw("GET", f"{path}/log", limit=1000)
    texts = [str(_as_object(line).get("t", "")) for line in lines] if isinstance(lines, list) else []
    raise TaskFailed(context, status, upid, texts[-LAST_LINES:])


def _as_object(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
