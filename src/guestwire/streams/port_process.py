"""A program in a guest whose standard input and output are one port of our own: nothing is between the two.

That is for what serves a connection, and knows its end: a port can't tell the guest that only one direction has ended.
"""

import asyncio
import contextlib
import logging
import re
import signal
import socket
from contextlib import AsyncExitStack
from typing import Final

from guestwire.agent.guest import GuestAgent
from guestwire.agent.results import ProcessStatus
from guestwire.agent.systems import UNIX
from guestwire.channels.own_port import OwnPorts
from guestwire.errors import AgentError, GuestError
from guestwire.pacing import Backoff
from guestwire.streams.carried_process import RESET, CarriedProcess, signal_word
from guestwire.streams.marks import END, HELLO, LEAD, MarkScanner
from guestwire.streams.relay import refusal
from guestwire.streams.remote_process import STDERR, STDOUT, Exit, StreamRequest, WindowSize
from guestwire.streams.stream_ports import new_port_name, pieces_of, plug_in

PLUGS_WITHIN: Final = 0.5
"""Seconds that a start waits for its port; without one it goes another way."""

GREETS_WITHIN: Final = 10.0
"""Seconds from the start of the program's shell to its first word; it looks for its port for one or two."""

NO_PORT: Final = 91
"""The exit code of `scripts/unix/on_port.sh` where the guest does not see the port."""

RESET_SEEN_WITHIN: Final = 3.0

LAST_BYTES_WITHIN: Final = 1.0
"""Seconds of silence after the end of a shell that did not say that this is all."""

ENDS_WITHIN: Final = 2.0
"""Seconds from the end of its port to the program's; then it gets SIGHUP, and as much later SIGKILL. As long has a program
whose input has ended a port, to read what was sent."""

CLOSES_WITHIN: Final = 10.0

GREETING_SIZE: Final = 38
_first = re.compile(re.escape(LEAD) + rb"([0-9a-f-]{36})" + re.escape(HELLO))

log = logging.getLogger("guestwire.streams")


class PortProcess(CarriedProcess):
    """See `RemoteProcess`. `start_on_port` makes one.

    Args:
        agent: the guest's.
        pid: of the shell above the program.
        port: our side of it.
        plugged: has the port taken out when it is closed; it belongs to the process from now on.
        mark: see `streams.marks`.
        ports: of the VM.
        resets: of the VM before its start.
    """

    way = "port"

    def __init__(
        self,
        agent: GuestAgent,
        pid: int,
        port: socket.socket,
        plugged: AsyncExitStack,
        mark: str,
        *,
        ports: OwnPorts,
        resets: int,
    ) -> None:
        super().__init__(agent.guest, pid, (STDOUT, STDERR), ports=ports, resets=resets)
        self._agent = agent
        self._port = port
        self._plugged = plugged
        self._mark = mark
        self._input_turn = asyncio.Lock()
        self._input_ended = False
        self._received = 0
        self._unplugging: asyncio.Task[None] | None = None
        """We have ended the connection."""
        self._reader = self._spawn(self._read(), "output")
        self._spawn(self._watch_end(), "exit")
        self._spawn(self._watch_resets(), "resets")

    # What `RemoteProcess` promises

    async def send(self, data: bytes) -> None:
        """See `RemoteProcess.send`."""
        async with self._input_turn:
            if self._broken:
                raise self._broken
            if self._input_ended or self._unplugging or self._reader.done():
                raise BrokenPipeError(f"process {self.pid} reads no more")
            sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(self._port, data))
            try:
                await asyncio.wait([sending, self._reader], return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    with contextlib.suppress(OSError):  # the reader of the port sees that, too, and says why
                        return sending.result()
                    await asyncio.wait([self._reader])
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            raise self._broken or BrokenPipeError(f"process {self.pid} reads no more")

    async def send_eof(self) -> None:
        """See `RemoteProcess.send_eof`: the connection ends both ways."""
        async with self._input_turn:
            if not self._input_ended:
                self._input_ended = True
                # QEMU takes what was sent, then hangs up; the guest's kernel gives a reader all of it, then the end.
                with contextlib.suppress(OSError):
                    self._port.shutdown(socket.SHUT_WR)
                self._spawn(self._unplug_read_port(), "end of input")

    async def resize(self, size: WindowSize) -> None:
        """See `RemoteProcess.resize`: there is no terminal."""

    async def kill(self, number: signal.Signals) -> None:
        """See `RemoteProcess.kill`."""
        if not self._exit.done():
            await self._agent.processes.start(UNIX.signal(self.pid, signal_word(number)), capture="none")

    async def leave(self) -> None:
        """See `RemoteProcess.leave`: a connection can't be left either."""
        await self.close()

    async def prepare_freeze(self) -> None:
        """See `LongWork`: nothing in the guest counts on a word of the host's."""

    # Its output and its end

    async def _read(self) -> None:
        output = self._buffers[STDOUT]
        async for piece in pieces_of(self._port, MarkScanner(self._mark)):
            self._received += len(piece.data)
            if piece.data:
                await output.put(piece.data)
            if piece.letter == END:
                self._hang_up()
                break
        if self._unplugging or self._input_ended:
            await output.end()
        else:
            await self._break(RESET if self._was_reset else "its port was closed, as by a stop of the VM")

    async def _unplug_read_port(self) -> None:
        await asyncio.wait([self._reader])
        await asyncio.sleep(ENDS_WITHIN)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._unplugging is None:
            with contextlib.suppress(OSError):
                self._port.shutdown(socket.SHUT_RDWR)
            # Who reads from a port whose host has hung up sees an end; who writes waits until the port is gone.
            self._unplugging = asyncio.get_running_loop().create_task(self._plugged.aclose(), name="unplug")

    async def _watch_end(self) -> None:
        pauses = Backoff(0.05, 2.0)
        after_end = Backoff(0.005, 0.5)
        while True:
            if self._reader.done():
                await asyncio.sleep(after_end.next())
            else:
                await asyncio.wait([self._reader], timeout=pauses.next())
            try:
                status = await self._patiently(lambda: self._agent.processes.status(self.pid))
            except AgentError as error:
                await self._break(f"its agent does not know the process any more ({error.description})")
                return
            if status.exited:
                break
        await self._note_end(status)
        # Where the shell above the program was killed, nothing says that this is all.
        while not self._reader.done():
            before = self._received
            await asyncio.wait([self._reader], timeout=LAST_BYTES_WITHIN)
            if self._received == before and not self._buffers[STDOUT].is_full:
                self._hang_up()
        self._closing = self._closing or asyncio.get_running_loop().create_task(self._close())

    async def _note_end(self, status: ProcessStatus) -> None:
        if not self._exit.done():  # its close may have seen it meanwhile
            self._exit.set_result(Exit(status.exitcode, status.signal))
        await self._buffers[STDERR].put(status.err_data or b"")
        await self._buffers[STDERR].end()

    async def _watch_resets(self) -> None:
        while not self._was_reset:  # noqa: ASYNC110  # QEMU's event is only counted
            await asyncio.sleep(RESET_SEEN_WITHIN)
        await self._break(RESET)

    async def _close(self) -> None:
        self._hang_up()
        if not self._was_reset and (self._broken or not self._exit.done()):
            with contextlib.suppress(GuestError, TimeoutError):
                async with asyncio.timeout(CLOSES_WITHIN):
                    await self._end_program()
        await self._end_tasks()
        await asyncio.gather(*filter(None, [self._unplugging]))
        await self._end_all()
        self.on_close()

    async def _end_program(self) -> None:
        """Sees its end, which that of its port should bring about."""
        for name in ("", "HUP", "KILL"):
            if name:
                await self._agent.processes.start(UNIX.signal(self.pid, name), capture="none")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENDS_WITHIN):
                    while not (status := await self._agent.processes.status(self.pid)).exited:  # noqa: ASYNC110  # only asking tells
                        await asyncio.sleep(0.05)
                    await self._note_end(status)
                    return


async def start_on_port(agent: GuestAgent, request: StreamRequest, ports: OwnPorts) -> PortProcess | None:
    """Starts a program whose standard input and output are a port.

    Args:
        agent: the guest's.
        request: what is started; only its `argv` counts.
        ports: of the VM.

    Returns:
        The program; None: nothing was started, for the guest does not get a port now.

    Raises:
        AgentError: the guest's own reason, as for a program that is not there.
        GuestError: it does not answer.
    """
    name, resets, plugged = new_port_name(), ports.resets, AsyncExitStack()
    try:
        try:
            async with asyncio.timeout(PLUGS_WITHIN):
                port = await plug_in(ports, name, plugged)
        except (GuestError, OSError) as error:  # also where there is no room for its keeper, or for one more socket
            log.debug("%s: no port for a connection: %s", agent.guest, error)
            await plugged.aclose()
            return None
        pid = await agent.processes.start(UNIX.script("on_port", name, *request.argv))
        mark = await _first_word(agent, request, pid, port)
    except BaseException:
        await plugged.aclose()
        raise
    if mark is None:
        await plugged.aclose()
        return None
    return PortProcess(agent, pid, port, plugged, mark, ports=ports, resets=resets)


async def _first_word(agent: GuestAgent, request: StreamRequest, pid: int, port: socket.socket) -> str | None:
    """The digits of the mark, as soon as the program is about to run; None: there is no port."""
    greeting = asyncio.create_task(_greeting(port), name="first word by a port")
    pauses = Backoff(0.05, 0.5)
    try:
        async with asyncio.timeout(GREETS_WITHIN):
            while not (await asyncio.wait([greeting], timeout=pauses.next()))[0]:
                status = await agent.processes.status(pid)
                if status.exited and status.exitcode == NO_PORT:
                    return None
                if status.exited:
                    raise refusal(agent.guest, request, status.exitcode)
        return await greeting
    except (TimeoutError, OSError) as error:
        raise GuestError(
            f"{agent.guest}: process {pid} was started and did not come up by its port in {GREETS_WITHIN:g} seconds"
            f" ({str(error) or 'it said nothing'}); the end of the port ends it"
        ) from error
    finally:
        greeting.cancel()
        await asyncio.gather(greeting, return_exceptions=True)


async def _greeting(port: socket.socket) -> str:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < GREETING_SIZE:
        if not (more := await loop.sock_recv(port, GREETING_SIZE - len(data))):
            raise ConnectionResetError("the port was closed")
        data += more
    if not (found := _first.fullmatch(data)):
        raise ConnectionError(f"its first bytes are {data!r}")
    return found[1].decode()
