"""guestwire with what Proxmox VE has and no more: `python -m guestwire.testing.limited FILE` serves a configuration so.

For tests of clients: what works here works there. Beside the missing endpoints of our own, and a `/version` that does
not name guestwire:

- Every answer ends its connection.
- A character above U+00FF breaks a command's arguments, a path and a user's name (Proxmox VE runs into a time-out), and
  is refused in content, password and standard input. An agent's error with such characters is status 596 and nothing
  else.
- exec-status gives the end of a process once, and none with more than 2.5 MB of output.
- file-read with `decode=0` gives base64 of each MiB, one after the other: padding stands in the middle.
"""

import base64
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from msgspec.structs import replace as replace_struct

from guestwire.access.control import Access
from guestwire.app.prepare import prepare
from guestwire.app.service import run
from guestwire.contract import ByteText, Endpoint, GuestContext, Origin, Parameters
from guestwire.contract.endpoints.files import FileRead, file_read
from guestwire.contract.endpoints.nodes import version
from guestwire.contract.endpoints.processes import Exec, ExecStatus, exec_status, execute
from guestwire.contract.registry import ENDPOINTS
from guestwire.contract.results import FileContent, ProcessState, Started
from guestwire.dispatch import Recorder
from guestwire.errors import AgentError, CommandTimeout, GuestError, GuestwireError
from guestwire.inventory import Inventory, read_config
from guestwire.server import Gateway
from guestwire.server.http1 import Request

VERSION: Final = {"version": "9.2.6", "release": "9.2", "repoid": "deadbeef00"}

CONTENT: Final = ("content", "password", "input_data")
PASSED_ON: Final = ("command", "file", "username", *CONTENT)
"""Parameters whose text goes to the agent."""

HIGHEST: Final = "\u00ff"
MAX_OUTPUT: Final = 2_500_000
PIECE: Final = 1024 * 1024

Function = Callable[[Any, Any], Awaitable[Any]]


class _BrokenPipe(GuestwireError):
    """The answer of Proxmox VE where its service stumbles over an agent's words."""

    status = 596


class LimitedGateway(Gateway):
    """Answers as Proxmox VE would."""

    gives_octets = False

    def __init__(self, inventory: Inventory, access: Access, recorder: Recorder) -> None:
        super().__init__(inventory, access, recorder, [_limit(one) for one in ENDPOINTS if one.origin is Origin.PVE])

    async def __call__(self, request: Request) -> None:
        """Answers one request, and ends its connection."""
        request.keeps = False
        await super().__call__(request)


def _limit(endpoint: Endpoint) -> Endpoint:
    function = _FUNCTIONS.get(endpoint.path, endpoint.function)
    return replace(endpoint, function=_with_broken_words(_with_narrow_text(function)))


async def _version(_context: object, _parameters: Parameters) -> dict[str, str]:
    return VERSION


async def _file_read(context: GuestContext, parameters: FileRead) -> FileContent[ByteText]:
    found = await file_read.function(context, replace_struct(parameters, decode=True))
    if parameters.decode:
        return cast("FileContent[ByteText]", found)
    data = b"".join(found.content.pieces)
    pieces = [base64.b64encode(data[start : start + PIECE]) for start in range(0, len(data), PIECE)]
    return cast("FileContent[ByteText]", replace_struct(found, content=ByteText(pieces)))


class _ReportedEnds:
    """The processes whose end was told; a guest that starts anew gives their ids again."""

    def __init__(self) -> None:
        self._ends: set[tuple[int, int]] = set()

    async def exec(self, context: GuestContext, parameters: Exec) -> Started:
        started: Started = await execute.function(context, parameters)
        self._ends.discard((parameters.vmid, started.pid))
        return started

    async def exec_status(self, context: GuestContext, parameters: ExecStatus) -> ProcessState[ByteText]:
        key = parameters.vmid, parameters.pid
        if key in self._ends:
            raise GuestError(f"Agent error: PID {parameters.pid} does not exist")
        state: ProcessState[ByteText] = await exec_status.function(context, parameters)
        if state.exited:
            self._ends.add(key)
        if sum(text.size for text in (state.out_data, state.err_data) if text) > MAX_OUTPUT:
            raise CommandTimeout(f"VM {parameters.vmid}", "guest-exec-status")
        return state


_told: Final = _ReportedEnds()
_FUNCTIONS: Final[dict[str, Function]] = {
    version.path: _version,
    file_read.path: _file_read,
    execute.path: _told.exec,
    exec_status.path: _told.exec_status,
}


def _with_narrow_text(function: Function) -> Function:
    async def narrow(context: GuestContext, parameters: Any) -> Any:
        vm = f"VM {getattr(parameters, 'vmid', '?')}"
        for name, text in _texts(parameters):
            if max(text, default="") > HIGHEST:
                if name in CONTENT:
                    raise GuestError("Wide character in subroutine entry at /usr/share/perl5/PVE/API2/Qemu/Agent.pm.")
                raise CommandTimeout(vm, f"guest-{name}")
        return await function(context, parameters)

    return narrow


def _with_broken_words(function: Function) -> Function:
    async def broken(context: GuestContext, parameters: Any) -> Any:
        try:
            return await function(context, parameters)
        except AgentError as error:
            if max(error.description, default="") > HIGHEST:
                raise _BrokenPipe("Broken pipe") from error
            raise

    return broken


def _texts(parameters: Any) -> Iterator[tuple[str, str]]:
    for name in PASSED_ON:
        value = getattr(parameters, name, None)
        for text in value if isinstance(value, list) else (value,):
            if text:
                yield name, text


def main(config: str) -> None:
    """Serves until SIGTERM or SIGINT."""
    prepare(read_config(Path(config)))
    run(Path(config), LimitedGateway)


if __name__ == "__main__":
    main(sys.argv[1])
