"""What QMP says of a VM: whether it runs, and what happens beside the guest agent's channel.

QMP takes one client a socket: give guestwire a socket of its own. When another client holds it, QEMU is at least known
to run.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from qemu.qmp import ConnectError, EventListener, ExecuteError, QMPClient, QMPError

from guestwire.channels.budget import shared_budget
from guestwire.channels.channel import Channel, GuestEvent
from guestwire.errors import MonitorError
from guestwire.pacing import Backoff

CONNECT_TIMEOUT: Final = 3.0
COMMAND_TIMEOUT: Final = 3.0
GREETS_WITHIN: Final = 1.0
"""Seconds from the beginning of a connection that callers wait for it: QEMU greets a client in a hundredth of that, unless the host
is busy or another client is just leaving."""

RETRY: Final = 0.5
RETRY_AT_MOST: Final = 4.0

EVENTS: Final = {
    "SUSPEND": GuestEvent.SUSPENDED,
    "SUSPEND_DISK": GuestEvent.SUSPENDED,
    "WAKEUP": GuestEvent.WOKEN,
    "RESET": GuestEvent.RESET,
    "SHUTDOWN": GuestEvent.STOPPED,
}
PORT_CHANGE: Final = "VSERPORT_CHANGE"

STATES: Final = {"STOP": "paused", "RESUME": "running", "SUSPEND": "suspended", "WAKEUP": "running"}
"""What the VM does from one of these events on."""

_PEER: Final = struct.Struct("3i")
"""`struct ucred`: process, user and group."""

_library_log = logging.getLogger("qemu.qmp")
_library_log.setLevel(logging.CRITICAL)  # it logs what it also raises


class Monitor:
    """Watches one VM's QMP socket until it is closed. Must be made where an event loop runs.

    Args:
        path: the QMP socket.
        guest: how messages name the guest.
        agent: the guest agent's socket; tells its port from the VM's others.
        channel: told what happens.

    Attributes:
        path: the QMP socket.
        pid: the process that answers, as long as it does; None: not known.
        resets: how often the VM has started anew, as far as that was seen.
        beside: work for each connection, from its beginning to its end at most.
        run_state: what it does, in QEMU's words: running, paused, suspended, and more; None: not known.
    """

    def __init__(self, path: Path, guest: str, agent: Path | None, channel: Channel | None) -> None:
        self.path = path
        self._guest = guest
        self._agent = agent
        self._channel = channel
        self._connections = shared_budget().connections
        self._running = asyncio.Event()
        self._wake = asyncio.Event()
        self._is_listening = False
        """It takes connections; while another client holds it, that is all it says."""
        self._is_held = False
        """QEMU runs and does not greet us, for another client holds it."""
        self._connects_since: float | None = None
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection that is being made, or else the next one, is there or can't be had."""
        self._client: QMPClient | None = None
        self._socket: socket.socket | None = None
        """The client's, while there is one."""
        self._giving = asyncio.Lock()
        self.pid: int | None = None
        self.resets = 0
        self.run_state: str | None = None
        self.beside: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._task = asyncio.get_running_loop().create_task(self._watch(), name=f"monitor {guest}")

    @property
    def known_state(self) -> bool | None:
        """True if the VM's QEMU runs, False if it has no socket; None: `is_running` would wait to find out."""
        if self._running.is_set() or self._is_held:
            return True
        return None if self._path_exists() else False

    async def is_running(self) -> bool:
        """True if the VM's QEMU runs; a socket that has just appeared is waited for, one second at most."""
        if self.known_state is None:
            await self.until_connected()
        return self._running.is_set() or self._is_listening

    @property
    def is_connected(self) -> bool:
        """True while commands can be executed."""
        return self._client is not None

    async def until_connected(self) -> None:
        """Waits where it may be that commands can be executed then, until `GREETS_WITHIN` after the connection was begun.

        Where another client holds the socket, nobody waits once that is known.
        """
        if self._client or self._is_held or not self._path_exists():
            return
        now = asyncio.get_running_loop().time()
        if self._connects_since is None:
            self._wake.set()
        left = (self._connects_since or now) + GREETS_WITHIN - now
        if left > 0:
            await asyncio.wait([self._outcome], timeout=left)

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, within: float = COMMAND_TIMEOUT
    ) -> Any:
        """What QEMU answers to a command; waits `within` seconds at most.

        Raises:
            MonitorError: it is refused or fails, or nobody answers here.
        """
        client = self._client
        if client is None:
            is_there = self._running.is_set() or self._is_listening
            why = "another client holds it" if is_there else "nothing answers there"
            raise MonitorError(self._guest, command, f"{why}: {self.path}")
        try:
            async with asyncio.timeout(within):
                return await client.execute(command, arguments)
        except TimeoutError:
            raise MonitorError(self._guest, command, f"no answer in {within:g} seconds") from None
        except (QMPError, EOFError, OSError) as error:
            is_refusal = isinstance(error, ExecuteError)
            raise MonitorError(self._guest, command, str(error), is_refusal=is_refusal) from error

    async def give_descriptor(self, name: str, descriptor: int) -> None:
        """Gives QEMU a file descriptor, which commands then name; the caller may close its own.

        Raises:
            MonitorError: see `execute`.
        """
        async with self._giving:  # QEMU takes the last one that came
            if self._socket:
                try:
                    # Blanks between commands are nothing. Those are short, and written whole, so that it is between.
                    socket.send_fds(self._socket, [b" "], [descriptor])
                except OSError as error:  # QEMU has ended, and the watch has not seen it yet
                    raise MonitorError(self._guest, "getfd", f"nothing answers there: {self.path}") from error
            await self.execute("getfd", {"fdname": name})

    def attend(self, agent: Path, channel: Channel) -> None:
        """Tells this channel from now on, of the port behind this socket."""
        self._agent, self._channel = agent, channel

    async def close(self) -> None:
        """Ends the watch."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _path_exists(self) -> bool:
        try:
            return self.path.is_socket()
        except OSError:  # this user may not look
            return False

    async def _watch(self) -> None:
        backoff = Backoff(RETRY, RETRY_AT_MOST)
        while True:
            if await self._attend():
                backoff.reset()
            self._running.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._wake.wait()
            self._wake.clear()

    async def _attend(self) -> bool:
        """One connection from beginning to end; False when there was none."""
        try:
            self._connections.take()
        except OSError:
            return False
        try:
            return await self._attend_to(QMPClient(self._guest))
        finally:
            self._connections.give_back()

    async def _attend_to(self, client: QMPClient) -> bool:
        own = socket.socket(socket.AF_UNIX)
        own.setblocking(False)  # noqa: FBT003
        self._connects_since = asyncio.get_running_loop().time()
        try:
            await self._connect(own)
            self._is_listening = True
            pid, _, _ = _PEER.unpack(own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            await self._until_greeted(client, own)
        except (ConnectError, OSError):
            self._is_listening = False
            own.close()
            self._settle()
            return False
        except BaseException:
            own.close()
            raise
        self._client, self._socket, self.pid = client, own, pid or None
        self._running.set()
        self._settle()
        try:
            await self._listen(client)
        finally:
            self._client = self._socket = self.pid = self.run_state = None
            self._is_listening = False
            self._running.clear()
            with contextlib.suppress(QMPError, EOFError, OSError):
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await client.disconnect()
        return True

    async def _connect(self, own: socket.socket) -> None:
        """Connects; waits while others wait for QEMU to take them, whose queue is short."""
        while True:
            try:
                own.connect(str(self.path))  # with a path it takes no time
            except BlockingIOError:
                self._is_listening = True
                self._settle(is_held=True)
                await asyncio.sleep(RETRY)
            else:
                return

    async def _until_greeted(self, client: QMPClient, own: socket.socket) -> None:
        """Waits for QEMU to take this client, however long another one holds it; one that gives up would stay in its queue."""
        greeting = asyncio.ensure_future(client.connect(own))
        try:
            done, _ = await asyncio.wait([greeting], timeout=GREETS_WITHIN)
            if not done:
                self._settle(is_held=True)
            await greeting
        finally:
            greeting.cancel()
            await asyncio.gather(greeting, return_exceptions=True)

    def _settle(self, *, is_held: bool = False) -> None:
        """The connection that was made is there, or can't be had."""
        self._is_held, self._connects_since = is_held, None
        self._outcome.set_result(None)
        self._outcome = asyncio.get_running_loop().create_future()

    async def _listen(self, client: QMPClient) -> None:
        with client.listener({*EVENTS, *STATES, PORT_CHANGE}) as events:
            with contextlib.suppress(QMPError, EOFError, OSError):
                async with asyncio.timeout(COMMAND_TIMEOUT):
                    found: Any = await client.execute("query-status")
                    self.run_state = str(found.get("status")) if isinstance(found, dict) else None
            tasks = [asyncio.create_task(self._hear(client, events))]
            if self.beside:
                tasks.append(asyncio.create_task(self.beside()))
            try:
                await client.runstate_changed()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self, client: QMPClient, events: EventListener) -> None:
        async for event in events:
            name = str(event["event"])
            self.resets += name == "RESET"
            self.run_state = STATES.get(name, self.run_state)
            happened = await self._port(client) if name == PORT_CHANGE else EVENTS.get(name)
            if happened and self._channel:
                self._channel.notify(happened)

    async def _port(self, client: QMPClient) -> GuestEvent | None:
        """Which way our port went; the event names a device and not a socket, so QEMU is asked."""
        try:
            devices: Any = await client.execute("query-chardev")
        except QMPError:
            return None
        for device in devices:
            if self._agent and str(self._agent) in str(device.get("filename")):
                return GuestEvent.PORT_OPENED if device.get("frontend-open") else GuestEvent.PORT_CLOSED
        return None
