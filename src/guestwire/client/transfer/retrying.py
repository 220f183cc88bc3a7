"""Calls that may be made twice, made until they succeed: copying survives connections and agents that break off."""

import asyncio
import contextlib
import posixpath
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from guestwire.agent.systems import HIGHEST_ON_PROXMOX, UNIX, Command, System, is_undecodable, system_of
from guestwire.client.cancellation import finish_when_cancelled
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import CallFailed, ErrorContext, FileRefused, is_passing
from guestwire.client.processes import REMOVED_WITHIN, CompletedProcess, Processes, check_texts
from guestwire.client.protocols import HostOfGuest
from guestwire.pacing import Backoff

T = TypeVar("T")

ATTEMPTS: Final = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds; each pause is twice the one before: 51 seconds in all."""

LONGEST_LIST: Final = 256 * 1024 * 1024

LONGEST_MESSAGE: Final = 300

_forgotten = re.compile(r"[Hh]andle '\d+' has not been found|Invalid parameter 'pid'|PID \S+ does")
"""Messages of an agent that was started again: it does not know what was begun before."""

_tool = re.compile(
    r"^(?:/bin/)?(?:sh|dd|rm|mv|cat|chmod): (?:line |)?(?:\d+: )?(?:cd: (?:line \d+: )?(?:can't cd to (?=.*: [A-Z]))?)?"
)
"""What shells and tools say before the reason; only dash gives none when a folder can't be entered."""


class Retrying:
    """Calls and scripts in one guest.

    As soon as one succeeded, those that break off are made again; before that, they fail at once.
    """

    def __init__(self, calls: Endpoints, processes: Processes, host: HostOfGuest) -> None:
        self._processes = processes
        self.calls = calls
        self.host = host
        self._succeeded = False

    @property
    def context(self) -> ErrorContext:
        """Which guest on which host, for errors."""
        return self.calls.context

    async def call(self, function: Callable[[], Awaitable[T]], *, gives_up_on: type[CallFailed] | None = None) -> T:
        """The result of a call that may be made twice.

        Args:
            function: makes the call.
            gives_up_on: an error after which the caller has something better to do.

        Raises:
            CallFailed: it failed for good, or in every attempt; see `client.errors`.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        for _ in range(ATTEMPTS) if self._succeeded else ():
            try:
                return await function()
            except CallFailed as error:
                if not is_transient(error) or (gives_up_on and isinstance(error, gives_up_on)):
                    raise
                await asyncio.sleep(backoff.next())
        result = await function()
        self._succeeded = True
        return result

    async def run(self, command: Command, data: bytes | None = None) -> CompletedProcess:
        """Runs a command that may run twice; `data` is its standard input."""
        return await self.call(lambda: self._processes.run(command, input=data))

    async def run_to_read(self, system: System, command: Command) -> CompletedProcess:
        """Runs a command that may run twice and changes nothing.

        When the caller is cancelled, it is interrupted, for of a file without end it would go on for ever. Windows has
        no signal for that.
        """
        pid: int | None = None

        def keep(started: int) -> None:
            nonlocal pid
            pid = started

        try:
            return await self.call(lambda: self._processes.run(command, on_start=keep))
        except asyncio.CancelledError:
            if pid is not None and system is UNIX:
                await finish_when_cancelled(self._interrupt_quietly(pid))
            raise

    async def _interrupt_quietly(self, pid: int) -> None:
        with contextlib.suppress(CallFailed, TimeoutError):
            async with asyncio.timeout(REMOVED_WITHIN):
                await self.call(lambda: self._processes.interrupt(pid))

    async def check(self, command: Command, data: bytes | None = None) -> CompletedProcess:
        """Runs a command that may run twice, and must succeed.

        Raises:
            FileRefused: it did not; the message is its own.
        """
        return self.raise_for_exit(await self.run(command, data))

    def raise_for_exit(self, process: CompletedProcess) -> CompletedProcess:
        """The process itself, when its exit code is 0.

        Raises:
            FileRefused: it is not.
        """
        if process.ok:
            return process
        how = f"'{process.argv[0]}' ended with {process.code or process.signal}"
        raise self.refusal(process.errors.strip().partition("\n")[0] or how)

    def refusal(self, reason: str) -> FileRefused:
        """The error for a script's reason, without the name of the tool that found it."""
        return FileRefused(self.context, _tool.sub("", reason)[:LONGEST_MESSAGE])

    async def output(self, path: str, command: Command) -> tuple[str, str]:
        """The output, of any length, of a command in the system of `path`, and the name of a file that held it.

        Proxmox VE loses more than 2.5 MB, the agent what is over 16 MiB: such output goes by way of a file, which may
        stand in what is listed, and is removed.
        """
        system = system_of(path)
        is_unix = system is UNIX
        if not is_unix or await self.host.is_guestwire():
            process = self.raise_for_exit(await self.run_to_read(system, command))
            if not process.stdout_truncated:
                return process.output, ""
            if not is_unix:
                raise FileRefused(self.context, "the list is longer than the agent keeps; list a folder below it")
        file = _temporary(path)
        try:
            self.raise_for_exit(await self.run_to_read(system, UNIX.redirect(file, command)))
            data = b""
            while len(data) <= LONGEST_LIST:
                found = await self.call(partial(self.calls.file_read, file, offset=len(data)))
                data += found.content.encode("latin-1")
                if not found.truncated:
                    return data.decode("utf-8", "surrogateescape"), posixpath.basename(file)
        finally:
            await finish_when_cancelled(self.remove_quietly(file))
        raise FileRefused(self.context, f"its list is longer than {LONGEST_LIST} bytes; take a folder below it")

    async def remove_quietly(self, path: str) -> None:
        """Removes a file, in a short time or not at all: there is another error to report."""
        with contextlib.suppress(CallFailed, TimeoutError):
            async with asyncio.timeout(REMOVED_WITHIN):
                await self.check(system_of(path).remove(path))

    @contextlib.asynccontextmanager
    async def addressable(self, path: str) -> AsyncIterator[str]:
        """A path that the API can carry.

        It is a link to the file, where its name is no text, or has letters that Proxmox VE breaks.
        """
        check_texts(self.context, path)
        is_wide = max(path, default="") > HIGHEST_ON_PROXMOX and not await self.host.is_guestwire()
        if not is_wide and not is_undecodable(path):
            yield path
            return
        if not await self.host.may_run(self.calls.vmid):
            reason = "the API can't carry its name; to reach it by a link takes VM.GuestAgent.Unrestricted"
            raise FileRefused(self.context, f"{path}: {reason}")
        link = _temporary(path)
        await self.check(system_of(path).link(path, link))
        try:
            yield link
        finally:
            await finish_when_cancelled(self.remove_quietly(link))


def is_transient(error: CallFailed) -> bool:
    """True if the same call may succeed a little later, also by an agent that has forgotten what was begun."""
    return is_passing(error) or bool(_forgotten.search(error.message))


def _temporary(path: str) -> str:
    """A file that is soon removed, in the system that `path` is of; its name can't be guessed."""
    return f"{system_of(path).temporary}guestwire-{uuid.uuid4().hex}"
