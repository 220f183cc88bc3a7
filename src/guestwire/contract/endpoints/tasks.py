"""Tasks: work that goes on after its call. Who may not see the node's (`Sys.Audit`) sees their own.

Source: Proxmox VE's API under `/nodes/{node}/tasks` and `/cluster/tasks`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from guestwire.contract.context import TaskContext
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.parameters import NodeParameters, Parameters, Role, parameter
from guestwire.contract.results import Name, Page
from guestwire.contract.upid import Upid
from guestwire.errors import Forbidden, InvalidParameters
from guestwire.stores import StoredTask

endpoints = Registry()

TASK: Final = "/nodes/{node}/tasks/{upid}"
RECENT: Final = 25
"""Tasks of the cluster's list."""

AUDIT: Final = ("Sys.Audit",)
MODIFY: Final = ("Sys.Modify",)

UpidText = Annotated[str, parameter("The task's id.", Role.TEXT, max_length=512)]


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the id of a task says of it; `tokenid` is there where a token began it."""

    upid: str
    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str
    user: str
    tokenid: str | None = None


class TaskInfo(Task, frozen=True, kw_only=True, omit_defaults=True):
    """A task in a list; `endtime` and `status` are there when it has ended."""

    endtime: int | None = None
    status: str | None = None
    saved: str | None = None


class TaskStatus(Task, frozen=True, kw_only=True, omit_defaults=True):
    """A task; `status` is `running` or `stopped`, `exitstatus` is `OK` or what went wrong."""

    status: str
    exitstatus: str | None = None


class LogLine(msgspec.Struct, frozen=True):
    """A line of a task's log; the first is number 1."""

    n: int
    t: str


class ListTasks(NodeParameters, frozen=True, kw_only=True):
    """Parameters of the list of tasks."""

    start: Annotated[int, parameter("Tasks that are left out at the beginning.", ge=0)] = 0
    limit: Annotated[int, parameter("Tasks at most.", ge=0)] = 50
    vmid: Annotated[int, parameter("Only those about this VM.", ge=100, le=999_999_999, format="pve-vmid")] | None = (
        None
    )
    userfilter: Annotated[str, parameter("Only those of users with this in their name.", Role.TEXT)] | None = None
    typefilter: Annotated[str, parameter("Only those of this type.", Role.TEXT)] | None = None
    errors: Annotated[bool, parameter("Only those that failed.")] = False
    source: Annotated[str, parameter("Those that ended, that run, or both.", Role.TEXT, enum=("archive", "active", "all"))] = "archive"  # fmt: skip
    since: Annotated[int, parameter("Only those begun since then, in seconds since the epoch.")] | None = None
    until: Annotated[int, parameter("Only those begun until then, in seconds since the epoch.")] | None = None
    statusfilter: Annotated[str, parameter("Only those that ended so: ok, error, unknown.", Role.TEXT)] | None = None


class OneTask(NodeParameters, frozen=True, kw_only=True):
    """A task."""

    upid: UpidText


class TaskLog(OneTask, frozen=True, kw_only=True):
    """Parameters of a task's log."""

    start: Annotated[int, parameter("Lines that are left out at the beginning.", ge=0)] = 0
    limit: Annotated[int, parameter("Lines at most; 0: all.", ge=0)] = 50
    download: Annotated[bool, parameter("As clients of Proxmox VE send it.")] = False


@endpoints.endpoint("GET", "/nodes/{node}/tasks", ListTasks)
async def tasks(context: TaskContext, parameters: ListTasks) -> Page[TaskInfo]:
    """Lists tasks, the newest first."""
    found = [task for task in _seen(context) if _matches(task, parameters)]
    return Page(found[parameters.start : parameters.start + parameters.limit], len(found))


@endpoints.endpoint("GET", "/cluster/tasks", Parameters)
async def recent(context: TaskContext, _parameters: Parameters) -> list[TaskInfo]:
    """Lists the newest tasks."""
    newest = [task for _, task in zip(range(RECENT), _seen(context), strict=False)]
    return [msgspec.structs.replace(task, saved="1" if task.status else "0") for task in newest]


@endpoints.endpoint("GET", TASK, OneTask)
async def index(_context: object, _parameters: OneTask) -> list[Name]:
    """Names the parts of a task."""
    return [Name("log"), Name("status")]


@endpoints.endpoint("GET", f"{TASK}/status", OneTask)
async def status(context: TaskContext, parameters: OneTask) -> TaskStatus:
    """Says whether a task runs, and how it ended."""
    task = _allowed(context, parameters.upid, AUDIT)
    return TaskStatus(**_parts(task), status="stopped" if task.status else "running", exitstatus=task.status or None)


@endpoints.endpoint("GET", f"{TASK}/log", TaskLog)
async def log(context: TaskContext, parameters: TaskLog) -> Page[LogLine]:
    """Reads a task's log."""
    lines = _allowed(context, parameters.upid, AUDIT).log.splitlines() or ["no content"]
    end = parameters.start + parameters.limit if parameters.limit else None
    numbered = [LogLine(number, text) for number, text in enumerate(lines, 1)]
    return Page(numbered[parameters.start : end], len(lines))


@endpoints.endpoint("DELETE", TASK, OneTask, effect=Effect.WRITES)
async def cancel(context: TaskContext, parameters: OneTask) -> None:
    """Ends a task that still runs."""
    await context.tasks.cancel(_allowed(context, parameters.upid, MODIFY).upid)


def _seen(context: TaskContext) -> Iterator[TaskInfo]:
    """Those that the caller may see, the newest first."""
    sees_all = context.may(f"/nodes/{context.node}", AUDIT)
    for task in reversed(list(context.tasks.known.values())):
        if sees_all or _is_own(context, task):
            yield TaskInfo(**_parts(task), endtime=task.endtime or None, status=task.status or None)


def _is_own(context: TaskContext, task: StoredTask) -> bool:
    """A user sees the tasks of their tokens, too; a token only its own."""
    owner = _upid(task.upid).user
    return context.subject.key in (owner, owner.partition("!")[0])


def _allowed(context: TaskContext, text: str, privileges: tuple[str, ...]) -> StoredTask:
    if Upid.parse(text) is None:
        raise InvalidParameters({"upid": "unable to parse worker upid"})
    task = context.tasks.known.get(text)
    if not (task and _is_own(context, task)) and not context.may(f"/nodes/{context.node}", privileges):
        raise Forbidden(f"/nodes/{context.node}", privileges)
    if task is None:
        raise InvalidParameters({"upid": "no such task"})
    return task


def _upid(text: str) -> Upid:
    return Upid.parse(text) or Upid("", 0, 0, 0, "", "", "")


def _parts(task: StoredTask) -> dict[str, Any]:
    upid = _upid(task.upid)
    user, _, token = upid.user.partition("!")
    return {
        "upid": task.upid,
        "node": upid.node,
        "pid": upid.pid,
        "pstart": upid.pstart,
        "starttime": upid.starttime,
        "type": upid.type,
        "id": upid.id,
        "user": user,
        "tokenid": token or None,
    }


def _matches(task: TaskInfo, wanted: ListTasks) -> bool:
    state = "unknown" if not task.status else "ok" if task.status == "OK" else "error"
    return (
        (wanted.source == "all" or (wanted.source == "active") == (task.status is None))
        and (wanted.vmid is None or task.id == str(wanted.vmid))
        and (wanted.userfilter is None or wanted.userfilter in task.user)
        and (wanted.typefilter is None or wanted.typefilter == task.type)
        and (not wanted.errors or state == "error")
        and (wanted.since is None or task.starttime >= wanted.since)
        and (wanted.until is None or task.starttime <= wanted.until)
        and (wanted.statusfilter is None or state in wanted.statusfilter.lower().split(","))
    )
