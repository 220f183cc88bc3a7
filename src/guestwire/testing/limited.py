"""guestwire with what Proxmox VE has and no more: `python -m guestwire.testing.limited FILE` serves a configuration so.

For tests of clients: what works here works there. Beside the missing endpoints of our own, and a `/version` that does
not name guestwire:

- Every answer ends its connection.
- A character above U+00FF breaks a command's arguments, a path and a user's name (Proxmox VE runs into a time-out), and
  is refused in content, password and standard input. An agent's error with such characters is status 596 and nothing
  else.
- exec-status gives the end of a process once, and none with more than 2.5 MB of output.
- file-read with `decode=0` gives base64 of each MiB, one after the other: padding stands in the middle.

With `--strict` its times, too, which make a slow guest another world:

- Before each call the agent is pinged; without an answer in 3 seconds it is "not running".
- A command has 5 seconds, whatever its answer's size; what takes longer is lost. Of file-read each MiB has them.
- Three workers take calls, and one that waits for a guest is held by it; a call that finds none in 5 seconds is status 596.
- A suspend ends with a time-out, for a guest that obeys has no answer.
"""

import asyncio
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
from guestwire.contract import ByteText, Effect, Endpoint, GuestContext, Origin, Parameters
from guestwire.contract.endpoints.agent import ping
from guestwire.contract.endpoints.files import FileRead, file_read
from guestwire.contract.endpoints.nodes import version
from guestwire.contract.endpoints.processes import Exec, ExecStatus, exec_status, execute
from guestwire.contract.parameters import VmParameters
from guestwire.contract.registry import ENDPOINTS
from guestwire.contract.results import FileContent, ProcessState, Started
from guestwire.dispatch import Recorder
from guestwire.errors import AgentError, AgentNotConfigured, AgentNotRunning, CommandTimeout, GuestError, GuestwireError
from guestwire.inventory import Inventory, read_config
from guestwire.server import Gateway
from guestwire.server.http1 import Request

PING_WITHIN: Final = 3.0
COMMAND_WITHIN: Final = 5.0
WORKERS: Final = 3

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
        super().__init__(
            inventory, access, recorder, [self.limit(one) for one in ENDPOINTS if one.origin is Origin.PVE]
        )

    @staticmethod
    def limit(endpoint: Endpoint) -> Endpoint:
        """An endpoint of Proxmox VE with its limits."""
        function = _FUNCTIONS.get(endpoint.path, endpoint.function)
        return replace(endpoint, function=_with_broken_words(_with_narrow_text(function)))

    async def __call__(self, request: Request) -> None:
        """Answers one request, and ends its connection."""
        request.keeps = False
        await super().__call__(request)


class StrictGateway(LimitedGateway):
    """Answers as Proxmox VE would, in its time."""

    @staticmethod
    def limit(endpoint: Endpoint) -> Endpoint:
        """An endpoint of Proxmox VE with its limits and its times."""
        limited = LimitedGateway.limit(endpoint)
        return replace(limited, function=_in_time(limited)) if endpoint.is_about_guest else limited


_workers: Final = asyncio.Semaphore(WORKERS)


def _in_time(endpoint: Endpoint) -> Function:
    async def in_time(context: GuestContext, parameters: Any) -> Any:
        try:
            async with asyncio.timeout(COMMAND_WITHIN):
                await _workers.acquire()
        except TimeoutError:
            raise _BrokenPipe("Connection timed out") from None
        try:
            try:
                async with asyncio.timeout(PING_WITHIN):
                    await ping.function(context, VmParameters(node=parameters.node, vmid=parameters.vmid))
            except AgentNotConfigured:
                raise
            except (TimeoutError, GuestError):
                raise AgentNotRunning(f"VM {parameters.vmid}", "no answer to a ping") from None
            return await _execute(endpoint, context, parameters)
        finally:
            _workers.release()

    return in_time


async def _execute(endpoint: Endpoint, context: GuestContext, parameters: Any) -> Any:
    seconds = COMMAND_WITHIN
    if isinstance(parameters, FileRead):
        seconds *= max(1, -(-parameters.count // PIECE))
    elif endpoint.effect is Effect.DISRUPTS and endpoint.name.startswith("fsfreeze"):
        seconds = endpoint.timeout
    if endpoint.name.startswith("suspend"):
        await endpoint.function(context, parameters)
        raise CommandTimeout(f"VM {parameters.vmid}", f"guest-{endpoint.name}")
    try:
        async with asyncio.timeout(seconds):
            return await endpoint.function(context, parameters)
    except TimeoutError:
        if isinstance(parameters, ExecStatus):
            _reported.add(parameters)  # the agent has told it, and nobody heard
        raise CommandTimeout(f"VM {parameters.vmid}", f"guest-{endpoint.name}") from None


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
            self.add(parameters)
        if sum(text.size for text in (state.out_data, state.err_data) if text) > MAX_OUTPUT:
            raise CommandTimeout(f"VM {parameters.vmid}", "guest-exec-status")
        return state

    def add(self, parameters: ExecStatus) -> None:
        """From now on the process is not known."""
        self._ends.add((parameters.vmid, parameters.pid))


_reported: Final = _ReportedEnds()
_FUNCTIONS: Final[dict[str, Function]] = {
    version.path: _version,
    file_read.path: _file_read,
    execute.path: _reported.exec,
    exec_status.path: _reported.exec_status,
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


def main(config: str, *options: str) -> None:
    """Serves until SIGTERM or SIGINT; `--strict` as above."""
    prepare(read_config(Path(config)))
    run(Path(config), StrictGateway if "--strict" in options else LimitedGateway)


if __name__ == "__main__":
    main(*sys.argv[1:])
