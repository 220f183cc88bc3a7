"""A tool for each endpoint of the guest agent, made from the contract."""

import asyncio
import base64
import contextlib
from collections.abc import Iterator
from typing import Annotated, Any, Final, get_type_hints

import msgspec

from guestwire.client import CallFailed, Guest
from guestwire.client.endpoints import Endpoints
from guestwire.client.results import FileContent, ProcessState
from guestwire.contract import Effect, Endpoint, Parameters
from guestwire.contract.endpoints.agent import PATH, UNRESTRICTED, Name
from guestwire.contract.registry import ENDPOINTS
from guestwire.errors import InvalidParameters
from guestwire.mcp import paths
from guestwire.mcp.policy import Level
from guestwire.mcp.tool import Call, Function, OfGuest, Registry, Tool

tools = Registry()

FEW: Final = frozenset({
    "ping", "get-osinfo", "network-get-interfaces", "get-fsinfo", "exec", "exec-status", "fsfreeze-status",
})  # fmt: skip
"""Listed always, beside those of levels that have no other tools: other servers for Proxmox VE have the first six under these names."""

LEVELS: Final = {
    "VM.GuestAgent.Audit": Level.READ,
    "VM.GuestAgent.FileRead": Level.FILES,
    "VM.GuestAgent.FileWrite": Level.FILES,
    "VM.GuestAgent.FileSystemMgmt": Level.MANAGE,
    "VM.PowerMgmt": Level.POWER,
    UNRESTRICTED: Level.EXEC,
}
"""By the privilege that an endpoint needs."""

HINTS: Final = {
    "exec": "Prefer run_command, which waits for the end and gives the output.",
    "exec-status": "Output comes once, when the program has ended.",
    "file-read": "For text prefer read_text_file.",
    "file-write": "Replaces the file, 60 KiB at most; prefer write_text_file, which keeps the old file until the new one is whole.",
    "fsfreeze-freeze": "Everything that writes in the guest waits until fsfreeze_thaw: call that soon.",
    "shutdown": "Ends everything that runs in the guest.",
    "get-fsinfo": "Sizes in bytes; use it when a disk may be full.",
    "agent": "Of little use here: each of them is a tool.",
    "ping": "Cheap.",
    "get-memory-blocks": "Seldom of use.",
    "get-memory-block-info": "Seldom of use.",
    "info": "Use it when a command is refused as disabled.",
    "get-users": "guest_overview has it, too.",
    "set-user-password": "Whoever uses the old one is locked out.",
    "suspend-ram": "It answers no more until somebody on the host wakes it.",
    "suspend-hybrid": "It answers no more until somebody on the host wakes it.",
    "suspend-disk": "It is off until somebody on the host starts it.",
    "fstrim": "May take minutes on large disks.",
}
"""What an assistant should know beside an endpoint's summary."""


INSTEAD: Final = {"decode": "Answer text; otherwise base64."}
"""Of a parameter that means something else here: texts are UTF-8."""


class Done(msgspec.Struct, frozen=True):
    """It is done; there is nothing more to say."""

    done: bool = True


def _endpoints() -> Iterator[Endpoint]:
    return (one for one in ENDPOINTS if one.path.startswith(PATH) and (one.method, one.path) != ("POST", PATH))


def _level(endpoint: Endpoint) -> Level:
    if endpoint.name == "set-user-password":
        return Level.MANAGE
    privileges = getattr(endpoint.check, "any_of", ())
    return LEVELS[privileges[0]] if privileges else Level.READ


def _parameters(endpoint: Endpoint) -> type[Parameters]:
    fields = msgspec.structs.fields(endpoint.parameters)
    own = [_field(field) for field in fields if field.name not in ("node", "vmid")]
    return msgspec.defstruct(
        endpoint.parameters.__name__, own, bases=(OfGuest,), frozen=True, kw_only=True, rename="kebab"
    )  # type: ignore[return-value]  # OfGuest is one


def _field(field: Any) -> Any:
    kind = field.type
    if field.name in INSTEAD:
        kind = Annotated[kind, msgspec.Meta(description=INSTEAD[field.name])]
    return (field.name, kind) if field.default is msgspec.NODEFAULT else (field.name, kind, field.default)


def _answer(endpoint: Endpoint) -> Any:
    """The type of the result: an object, as assistants want it."""
    if endpoint.path == PATH:
        return _wrapped(list[Name])
    answer = get_type_hints(getattr(Endpoints, _python(endpoint)))["return"]
    if answer is type(None):
        return Done
    return answer if isinstance(answer, type) and issubclass(answer, msgspec.Struct) else _wrapped(answer)


def _wrapped(answer: Any) -> Any:
    return msgspec.defstruct("Result", [("result", answer)], frozen=True)


def _python(endpoint: Endpoint) -> str:
    return endpoint.name.replace("-", "_")


def _calling(endpoint: Endpoint, answer: Any) -> Function:
    async def function(call: Call, parameters: Any) -> Any:
        given = {name: value for name, value in msgspec.structs.asdict(parameters).items() if name != "guest"}
        if endpoint.path == PATH:
            return answer(msgspec.convert(await call.guest.raw("GET", ""), list[Name]))
        found = await getattr(call.guest, _python(endpoint))(**given)
        if answer is Done:
            return Done()
        return found if isinstance(found, answer) else answer(found)

    return function


async def _exec(call: Call, parameters: Any) -> Any:
    given = parameters.input_data
    call.allowed.check_program(parameters.command, has_input=given is not None)
    call.stop_in_dry_run()
    data = None if given is None else given.encode().decode("latin-1")
    return await call.guest.exec(parameters.command, input_data=data)


async def _exec_status(call: Call, parameters: Any) -> ProcessState:
    state = await call.guest.exec_status(parameters.pid)
    return msgspec.structs.replace(state, out_data=_text(state.out_data), err_data=_text(state.err_data))


async def _file_read(call: Call, parameters: Any) -> FileContent:
    path = await paths.to_read(call.guest, call.allowed, parameters.file)
    count = min(parameters.count, call.limits.bytes)
    found = await call.guest.file_read(path, count=count, offset=parameters.offset, decode=parameters.decode)
    await paths.still(call.guest, path, restricted=call.allowed.read is not None)
    return msgspec.structs.replace(found, content=_text(found.content) or "") if parameters.decode else found


async def _file_write(call: Call, parameters: Any) -> Done:
    path = await paths.to_write(call.guest, call.allowed, parameters.file)
    content = base64.b64encode(parameters.content.encode()).decode() if parameters.encode else parameters.content
    if len(content) > MOST_CONTENT:
        raise InvalidParameters({"content": f"takes {MOST_CONTENT} characters as base64 at most; use write_text_file"})
    call.stop_in_dry_run()
    await call.guest.file_write(path, content, encode=False)
    return Done()


MOST_CONTENT: Final = 60 * 1024


async def _freeze(call: Call, _: Any) -> Any:
    """Who stops waiting for a freeze gets a thawed guest: nobody would know that it is frozen."""
    try:
        frozen = await call.guest.fsfreeze_freeze()
    except asyncio.CancelledError:
        await asyncio.shield(_thawed(call.guest))
        raise
    return _FROZEN(frozen)


async def _thawed(guest: Guest) -> None:
    with contextlib.suppress(CallFailed):
        await guest.fsfreeze_thaw()


def _text(given: str | None) -> str | None:
    """Bytes that stand one in a character, as the text that they most likely are."""
    return None if given is None else given.encode("latin-1").decode("utf-8", "replace")


_SPECIAL: Final[dict[str, Function]] = {
    "exec": _exec,
    "exec-status": _exec_status,
    "file-read": _file_read,
    "file-write": _file_write,
    "fsfreeze-freeze": _freeze,
}
"""Endpoints whose parameters the policy looks at, or whose results are more than handed on."""


PREVIEWED: Final = frozenset({"exec", "file-write"})
"""Those of them whose parameters are checked in a dry run, too."""


def _tool(endpoint: Endpoint) -> Tool:
    answer = _answer(endpoint)
    hint = HINTS.get(endpoint.name, "")
    return Tool(
        name="agent_index" if endpoint.path == PATH else _python(endpoint),
        description=f"{endpoint.summary} {hint}".strip(),
        parameters=_parameters(endpoint),
        returns=answer,
        level=_level(endpoint),
        effect=endpoint.effect,
        idempotent=endpoint.effect is not Effect.DISRUPTS or endpoint.name.startswith("fsfreeze"),
        few=endpoint.name in FEW or _level(endpoint) in (Level.MANAGE, Level.POWER),
        function=_SPECIAL.get(endpoint.name) or _calling(endpoint, answer),
        previews=endpoint.name in PREVIEWED,
    )


for _endpoint in _endpoints():
    tools.add(_tool(_endpoint))

_FROZEN: Final = next(tool.returns for tool in tools if tool.name == "fsfreeze_freeze")
