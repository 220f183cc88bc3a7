"""A guest: the endpoints below its agent as typed methods, and processes, files and folders above them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

from guestwire.agent.results import FileSystem, Interface, Load, OsInfo, Route
from guestwire.client.calls import text_of_bytes
from guestwire.client.carriers.base import Carrier
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import AgentTookTooLong, AgentUnavailable, ErrorContext, GuestStopped, NotReady
from guestwire.client.freezing import freezing
from guestwire.client.processes import CompletedProcess, Processes, check_texts
from guestwire.client.protocols import GuestInfo, HostOfGuest
from guestwire.counting import counted
from guestwire.pacing import Backoff

if TYPE_CHECKING:
    from guestwire.client.folders import Folders
    from guestwire.client.live_processes import LiveProcess
    from guestwire.client.streams import Mode, Stream
    from guestwire.client.tcp_connections import TcpConnection
    from guestwire.client.transfer.files import Files
    from guestwire.client.transfer.local_files import Data, LocalPath, Progress
    from guestwire.streams.remote_process import WindowSize

LARGE_INPUT: Final = 256 * 1024
"""Bytes, over which a program's input goes by a stream: on a port it took a third of the time, by agent commands alone half as much again."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
STILL_ON: Final = "it may need longer, or its system ignores the request: see its console"


class FileSystems(list[FileSystem]):
    """Mounted file systems with a size, by mount point.

    The sums are in bytes; a device that is mounted twice counts once in them.
    """

    @property
    def total_bytes(self) -> int:
        """The sum of their sizes."""
        return sum(one.total_bytes or 0 for one in self._devices())

    @property
    def used_bytes(self) -> int:
        """The sum of what is used."""
        return sum(one.used_bytes or 0 for one in self._devices())

    def _devices(self) -> Iterable[FileSystem]:
        return {one.name: one for one in self}.values()


POWER_WITHIN: Final = 300.0

Action = Literal["start", "stop", "shutdown", "reboot", "reset", "suspend", "resume"]


class Guest(Endpoints):
    """One guest: its agent's endpoints as methods, and `run`, `read_file`, `freeze` and others that stand on them.

    Attributes:
        processes: more about its processes.
        files: more about its files.
        folders: its folders, and whole trees.
    """

    def __init__(self, host: HostOfGuest, carrier: Carrier, vm: GuestInfo, context: ErrorContext) -> None:
        super().__init__(carrier, vm.node, vm.vmid, context)
        self.host = host
        self.vm = vm
        self.watchdog = ""
        """The process that ends a freeze of this client's own, as `agent.watchdog` has it."""

    @cached_property
    def processes(self) -> Processes:
        """Its processes."""
        return Processes(self, self.host)

    # Loaded when they are wanted: few calls are about files.

    @cached_property
    def files(self) -> "Files":
        """Its files."""
        from guestwire.client.transfer.files import Files  # noqa: PLC0415

        return Files(self, self.processes, self.host)

    @cached_property
    def folders(self) -> "Folders":
        """Its folders."""
        from guestwire.client.folders import Folders  # noqa: PLC0415

        return Folders(self.files)

    async def is_windows(self) -> bool:
        """True if the guest runs Windows; asked once."""
        return await self.processes.is_windows()

    # Files

    async def read_file(self, path: str) -> bytes:
        """The whole file; see `Files.read`."""
        return await self.files.read(path)

    async def write_file(
        self,
        path: str,
        data: "Data",
        *,
        mode: int | None = None,
        mtime: int | None = None,
        progress: "Progress | None" = None,
    ) -> int:
        """Makes `data` the whole file; see `Files.write`."""
        return await self.files.write(path, data, mode=mode, mtime=mtime, progress=progress)

    @contextlib.asynccontextmanager
    async def open(self, path: str, mode: "Mode" = "rb", *, permissions: int | None = None) -> "AsyncIterator[Stream]":
        """Opens a file as a stream of bytes.

        Args:
            path: in the guest.
            mode: `rb` reads. `wb` writes a new file, `ab` adds to what is there: either appears as a whole, when the
                stream is closed; after an exception nothing does. Adding takes a process in the guest.
            permissions: of a file that is written; default: see `Files.write`.

        Raises:
            CallFailed: it can't be read or written; see `client.errors`.
        """
        from guestwire.client.streams import open_stream  # noqa: PLC0415

        async with open_stream(path, mode, self.files, self.processes, permissions=permissions) as stream:
            yield stream

    async def upload(self, source: "LocalPath", path: str, *, progress: "Progress | None" = None) -> int:
        """Copies a file to the guest; see `Files.upload`. A folder: `folders.upload`."""
        return await self.files.upload(source, path, progress=progress)

    async def download(self, path: str, target: "LocalPath", *, progress: "Progress | None" = None) -> int:
        """Copies a file from the guest; see `Files.download`. A folder: `folders.download`."""
        return await self.files.download(path, target, progress=progress)

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002  # as subprocess.run has it
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        large: bool | None = None,
        on_start: Callable[[int], None] | None = None,
    ) -> CompletedProcess:
        """Starts a program, and waits for its end; see `Processes.run`.

        With `large`, input and outputs go by a stream while it runs: faster where there is much of them, and nothing is
        cut off at 16 MiB. It ends when its caller is cancelled then. None: so goes an input of over 256 KiB, where the VM may
        be given a port; how much a program will write, only its caller may know.
        """
        if large is None and input is not None and len(input) > LARGE_INPUT:
            large = await self.host.may_have_ports() and not await self.is_windows()
        if not large:
            return await self.processes.run(
                argv, input=input, env=env, cwd=cwd, timeout=timeout, check=check, on_start=on_start
            )
        from guestwire.client.live_processes import run_by_stream  # noqa: PLC0415  # few calls are about it

        return await run_by_stream(
            self.processes, argv, input=input, env=env, cwd=cwd, timeout=timeout, check=check, on_start=on_start
        )

    # Programs while they run

    def start(
        self,
        argv: Sequence[str],
        *,
        tty: "WindowSize | tuple[int, int] | bool" = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        merge: bool = False,
        input: bool = True,  # noqa: A002  # as of `run`
        connection: bool = False,
    ) -> "contextlib.AbstractAsyncContextManager[LiveProcess]":
        """Starts a program whose input and outputs are streams while it runs; at the end of the block it ends, where it still runs.

        Args:
            argv: program and arguments; no shell is between.
            tty: gives it a terminal of so many rows and columns; True: of 24 and 80. Its errors go to its output then.
            env: more environment variables.
            cwd: its working directory.
            user: the guest's user it runs as; None: the agent's own, mostly root.
            merge: its errors go where its output goes.
            input: it has a standard input; without, that ends at once.
            connection: it serves one connection on its standard streams, as `sshd -i` does: the end of its input may be
                that of its output, its errors may come when it has ended, and after a signal its exit code may be 128
                and more. It is faster where the VM can be given a port.

        Raises:
            NoStream: the guest can't do it, as Windows.
            StreamEnded: the stream broke; what became of the program is in it.
            CallFailed: it can't be started so; see `client.errors`.
        """
        from guestwire.client.live_processes import start_in  # noqa: PLC0415  # few calls are about it

        return start_in(
            self.processes, argv, tty=tty, env=env, cwd=cwd, user=user, merge=merge, input=input, connection=connection
        )

    def connect_tcp(self, host: str, port: int) -> "contextlib.AbstractAsyncContextManager[TcpConnection]":
        """Connects from within the guest, which needs no network for its own services; at the end of the block it is closed.

        Args:
            host: a name or an address, as the guest knows it: `localhost` is the guest itself.
            port: the port there.

        Raises:
            ConnectionFailed: nobody listens there, or the guest does not reach it.
            StreamEnded: the stream to the guest broke.
            CallFailed: the guest can't have streams, as Windows; see `client.errors`.
        """
        from guestwire.client.tcp_connections import connect_in  # noqa: PLC0415  # few calls are about it

        return connect_in(self.processes, host, port)

    # Facts

    async def osinfo(self) -> OsInfo:
        """Which operating system it runs; see `get_osinfo`."""
        return await self.get_osinfo()

    async def interfaces(self) -> list[Interface]:
        """Its network interfaces and addresses; see `network_get_interfaces`."""
        return await self.network_get_interfaces()

    async def filesystems(self) -> FileSystems:
        """Its mounted file systems with their use, by mount point, and the sums.

        Those without a size (pseudo file systems) are left out.
        """
        found = (one for one in await self.get_fsinfo() if one.total_bytes)
        return FileSystems(sorted(found, key=lambda one: one.mountpoint))

    async def load(self) -> Load:
        """Its load; see `get_load`. Where agent or host have no such command, from /proc/loadavg, which needs the right to read files."""
        from guestwire.client.proc_files import or_from_files, read_load  # noqa: PLC0415  # few calls are about it

        return await or_from_files(self.get_load(), lambda: read_load(self))

    async def routes(self) -> list[Route]:
        """Its routes; see `network_get_route`. Where agent or host have no such command, from /proc/net, as `load`."""
        from guestwire.client.proc_files import or_from_files, read_routes  # noqa: PLC0415  # as above

        return await or_from_files(self.network_get_route(), lambda: read_routes(self))

    # Changes

    async def set_user_password(self, username: str, password: str, *, crypted: bool = False) -> None:
        """Sets the password of a user in the guest, which gets it as UTF-8.

        Args:
            username: The user in the guest.
            password: The new password.
            crypted: The password is a hash already.
        """
        check_texts(self.context, username, password)
        await super().set_user_password(username, text_of_bytes(password), crypted=crypted)

    async def wait_ready(self, timeout: float = 120.0) -> None:
        """Waits until the agent answers; also for a VM that is just being started.

        Raises:
            NotReady: it does not within that many seconds.
        """
        backoff, why = Backoff(FIRST_PAUSE, LONGEST_PAUSE), "no answer"
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self.ping()
                    except (AgentUnavailable, AgentTookTooLong, GuestStopped) as error:
                        why = error.message
                    else:
                        return
                    await asyncio.sleep(backoff.next())
        except TimeoutError:
            raise NotReady(self.context, f"not ready after {counted(timeout, 'second')}: {why}") from None

    def freeze(
        self, *, lease: int | None = None, mountpoints: Sequence[str] | None = None
    ) -> contextlib.AbstractAsyncContextManager[int]:
        """Freezes the guest's file systems, and thaws them at the end; gives how many are frozen.

        They are thawed after an exception and a cancellation, too. When this process is killed they are so with a lease
        alone: by guestwire's server at once, else at the lease's end by a process in the guest, where it can have one;
        `guestwire.client.freezing.freezing_for` says whether, and freezes several guests together.

        Args:
            lease: seconds after which they are thawed in any case; None: never.
            mountpoints: of the only file systems that are frozen; None: all. Not on Proxmox VE.

        Raises:
            StillFrozen: they could not be thawed.
            FreezeLost: they were thawed before the end: what was done meanwhile is no good snapshot.
            FreezeUncertain: nothing says whether they were frozen until the end. After an exception of the caller's
                these two are notes of it.
            CallFailed: they could not be frozen. Where some may have been, they are thawed then, too.
        """
        return freezing(self, lease, mountpoints)

    @contextlib.asynccontextmanager
    async def alone(self) -> "AsyncIterator[Guest | None]":
        """The same guest over a connection that nothing else uses, until it is closed; None: there is none between."""
        if (carrier := self._carrier.another()) is None:
            yield None
            return
        try:
            yield Guest(self.host, carrier, self.vm, self.context)
        finally:
            await carrier.close()

    async def shutdown(self, *, wait: float | None = None) -> None:
        """Shuts the guest down.

        With `wait`, waits until its VM is stopped or its agent gone, that many seconds at most.

        Raises:
            NotReady: it still runs then.
        """
        if wait is None:
            await super().shutdown()
            return
        try:
            async with asyncio.timeout(wait):
                # The agent says nothing to it: the call ends when the guest does, or after minutes.
                await super().shutdown()
                backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
                while await self._answers():  # noqa: ASYNC110  # only asking tells
                    await asyncio.sleep(backoff.next())
        except TimeoutError:
            raise NotReady(self.context, f"it still runs after {counted(wait, 'second')}", hint=STILL_ON) from None

    async def reboot(self, *, wait: float | None = None) -> None:
        """Has the guest start anew, by its agent; `power("reboot")` does it by the host, on Proxmox VE, too.

        With `wait`, waits until its agent answers again, that many seconds at most.

        Raises:
            NotReady: it does not.
        """
        began = time.monotonic()
        await self.shutdown_mode(mode="reboot")
        if wait is not None:
            await self.wait_ready(max(wait - (time.monotonic() - began), 0))

    async def power(self, action: "Action", *, wait: float | None = POWER_WITHIN) -> str:
        """Starts, stops, … the VM itself, by its host; returns the id of the host's task.

        Args:
            action: `start`, `stop` (as pulling the plug), `shutdown` (by the agent or the power button), `reboot`, `reset`,
                `suspend` (its processors halt) or `resume`.
            wait: seconds to wait for the task's end; None: not at all.

        Raises:
            TaskFailed: it ended otherwise than well.
            TaskRunning: it goes on after these seconds.
        """
        from guestwire.client.host_tasks import wait_for_task  # noqa: PLC0415  # few calls are about it

        calls: dict[Action, Callable[[], Awaitable[str]]] = {
            "start": self.vm_start,
            "stop": self.vm_stop,
            "shutdown": self.vm_shutdown,
            "reboot": self.vm_reboot,
            "reset": self.vm_reset,
            "suspend": self.vm_suspend,
            "resume": self.vm_resume,
        }
        upid = await calls[action]()
        if wait is not None:
            await wait_for_task(self.host, self.node, upid, self.context, wait)
        return upid

    async def _answers(self) -> bool:
        """True if the guest still runs; an agent that is slow to answer does."""
        try:
            await self.ping()
        except (GuestStopped, AgentUnavailable):
            return False
        except AgentTookTooLong:
            pass
        return True
