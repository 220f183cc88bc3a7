"""A program in a guest by way of a relay beside it, whatever reaches that relay: `RelayAccess` is the seam below.

It begins with files and FIFOs of the guest's, which every agent can read and write. Where the VM can be given ports of
our own, the bytes go over to them as soon as those are up; that they are not up yet, or never, costs nobody anything.
A terminal waits a second for its port and then has it from its first byte on, with nothing of ours between the two.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any, Final, NamedTuple, Protocol

from guestwire.agent.missing_commands import is_refused
from guestwire.channels.own_port import OwnPorts
from guestwire.errors import AgentError, GuestError
from guestwire.pacing import Backoff
from guestwire.streams.buffers import OutputBuffer
from guestwire.streams.carried_process import PATIENCE, RESET, CarriedProcess, signal_word
from guestwire.streams.marks import END, HELLO, NEXT, PORT, MarkScanner, Piece
from guestwire.streams.relay import (
    FEW_READS,
    MANY_READS,
    RelayMark,
    clearing,
    file_of,
    folders_of,
    input_frame,
    mark_in,
    refusal,
    starting,
)
from guestwire.streams.remote_process import STDERR, STDOUT, Exit, Output, StreamRequest, WindowSize
from guestwire.streams.stream_ports import new_port_name, pieces_of, plug_in

log = logging.getLogger("guestwire.streams")

READ_AT_ONCE: Final = 256 * 1024
"""Bytes of a file that are asked for at once."""

IN_FLIGHT: Final = 28 * 1024
"""Bytes of input that the relay has not taken yet, at most: they wait in a pipe of 64 KiB, some of them perhaps twice."""

STARTS_WITHIN: Final = 30.0
KEEPALIVE: Final = 3.0
"""Seconds between signs of life; a relay that has heard of none for 12 to 18 ends everything."""

KEEPALIVES_LEFT_OUT: Final = 1
"""Behind each, while input goes by a port: the end of that tells the relay as much."""

PATIENT: Final = 1.25
"""A pause to the one before it, while something may come: it comes a quarter of the time later at most than it might."""

ERRORS_AFTER: Final = 0.015
"""Seconds between looks at standard error, at first."""

QUIET_AFTER: Final = 10.0
"""Seconds without a byte, after which an output is looked at less often."""

PORTS_AFTER: Final = 2.0
"""Seconds that a program without a terminal must run to be given ports: they cost its guest as much as ten of its commands."""

MANY: Final = 64 * 1024
"""Bytes, either way, that get it ports at once."""

PORTS_WITHIN: Final = 15.0
PLUGS_WITHIN: Final = 0.1
"""Seconds that a start waits for a port, which the guest may take another second to see."""

ENDS_WITHIN: Final = 5.0
"""Seconds from the order to end a program to its end: it gets SIGHUP, and after two seconds SIGKILL."""

CLOSES_WITHIN: Final = 5.0


class Pace(NamedTuple):
    """Seconds between looks at what grows: at first, at most, and at most when it is quiet."""

    first: float
    longest: float
    quiet: float


class ProcessState(Protocol):
    """How a process is; as `agent.results.ProcessStatus`."""

    @property
    def exited(self) -> int:
        """Whether it has ended."""
        ...

    @property
    def exitcode(self) -> int | None:
        """Its exit code; None after a signal."""
        ...

    @property
    def signal(self) -> int | None:
        """The signal that ended it."""
        ...


class RelayAccess(Protocol):
    """What carries commands and files to and from a guest. All raise `GuestError`.

    Attributes:
        guest: how messages name the guest.
        way: see `RemoteProcess.way`.
        pace: how often it may be asked.
        largest_frame: bytes that go into a FIFO at once.
        moves: held while one of the guest's programs goes over to ports of our own.
    """

    guest: str
    way: str
    pace: Pace
    largest_frame: int
    moves: asyncio.Semaphore

    async def check(self) -> None:
        """Looks whether the guest's agent allows what a relay is reached by.

        Raises:
            GuestError: `NO_FILES`; nothing was started.
        """
        ...

    async def start(self, command: list[str]) -> int:
        """Starts a program, whose outputs nobody keeps; its id."""
        ...

    async def status(self, pid: int) -> ProcessState:
        """How it is; an ended one may be asked for again."""
        ...

    async def read(self, path: str, offset: int, count: int) -> bytes:
        """Bytes of a file that is there, at most so many; fewer only where it ends now.

        Raises:
            AgentError: it is not there.
        """
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Writes into a FIFO that is there, at once."""
        ...

    async def forget(self, path: str) -> None:
        """A file or FIFO is used no more."""
        ...

    async def forget_all(self) -> None:
        """None of them is."""
        ...


class RelayProcess(CarriedProcess):
    """See `RemoteProcess`. `start_process` makes one.

    Args:
        access: to the guest.
        request: what was started.
        pid: the program's.
        folder: the relay's.
        mark: the relay's; see `streams.marks`.
        ports: of the VM, where it can be given some.
        resets: of the VM before its start.
    """

    def __init__(
        self,
        access: RelayAccess,
        request: StreamRequest,
        pid: int,
        folder: str,
        mark: str,
        *,
        ports: OwnPorts | None,
        resets: int,
    ) -> None:
        self._outputs: tuple[Output, ...] = (STDOUT,) if request.merge or request.tty else (STDOUT, STDERR)
        super().__init__(access.guest, pid, self._outputs, ports=ports, resets=resets)
        self.way = access.way
        self._access = access
        self._request = request
        self._folder = folder
        self._mark = mark
        self._port_of: dict[Output, asyncio.Future[socket.socket]] = {}
        self._input: socket.socket | None = None
        self._plugged = contextlib.AsyncExitStack()
        """The ports that it has."""
        self._input_turn = asyncio.Lock()
        self._input_ended = self._input_refused = False
        self._sequence = 0
        self._in_flight: deque[tuple[int, int]] = deque()
        self._wake = asyncio.Event()
        """Something was sent: an answer may come soon."""
        self._ports_wanted = asyncio.Event()
        self._carried = 0
        self._readers: list[asyncio.Task[None]] = []

    def begin(self, plugged: contextlib.AsyncExitStack, port: socket.socket | None) -> None:
        """Carries its bytes from now on.

        Args:
            plugged: what is plugged in for it already; it belongs to the process from now on.
            port: its terminal's, of these, where that uses it.
        """
        loop = asyncio.get_running_loop()
        self._plugged = plugged
        self._port_of = {output: loop.create_future() for output in self._outputs} if self._ports else {}
        if port:
            self._port_of[STDOUT].set_result(port)
            self._input, self.way = port, "port"
        self._readers = [self._spawn(self._read_output(output)) for output in self._outputs]
        self._spawn(self._watch_end())
        self._spawn(self._keep_alive())
        if self._ports and not port:
            self._spawn(self._use_ports(self._ports), "ports")

    # What `RemoteProcess` promises

    async def send(self, data: bytes) -> None:
        """See `RemoteProcess.send`."""
        rest = memoryview(data)
        async with self._input_turn:
            while rest:
                self._check_input()
                if self._input:
                    await self._send_by_port(self._input, bytes(rest))
                    return
                piece = bytes(rest[: self._access.largest_frame])
                await self._wait_for_room(len(piece))
                self._sequence += 1
                self._in_flight.append((self._sequence, len(piece)))
                await self._frame(input_frame(self._sequence, piece))
                rest = rest[len(piece) :]
                self._count(len(piece))
                self._wake.set()

    async def send_eof(self) -> None:
        """See `RemoteProcess.send_eof`."""
        if self._request.tty:
            await self.send(b"\x04")
            return
        async with self._input_turn:
            if self._input_ended or self._input_refused or self._exit.done():
                return
            if self._input:
                with contextlib.suppress(OSError):
                    self._input.shutdown(socket.SHUT_WR)
            else:
                with contextlib.suppress(BrokenPipeError):
                    await self._wait_for_room(self._access.largest_frame)
                await self._frame(b"e\n")
            await self._order("e p" if self._input else "e")
            self._input_ended = True

    async def resize(self, size: WindowSize) -> None:
        """See `RemoteProcess.resize`."""
        if self._request.tty and not self._exit.done():
            await self._order(f"s {size.rows} {size.columns}")

    async def kill(self, number: signal.Signals) -> None:
        """See `RemoteProcess.kill`."""
        if not self._exit.done():
            await self._order(f"g {signal_word(number)}")
            self._wake.set()

    async def leave(self) -> None:
        """See `RemoteProcess.leave`."""
        if self._request.tty:
            await self.close()
            return
        await self._order("l")
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._clear(), name=f"end of stream {self.pid}")
        await asyncio.shield(self._closing)

    async def prepare_freeze(self) -> None:
        """The relay is told that the host will be silent: its agent takes no command while file systems are frozen."""
        await self._access.write(f"{self._folder}/ctl", b"f\n")

    def _count(self, size: int) -> None:
        self._carried += size
        if self._carried > MANY:
            self._ports_wanted.set()

    # Input

    def _check_input(self) -> None:
        if self._broken:
            raise self._broken
        if self._input_ended or self._input_refused or self._exit.done():
            raise BrokenPipeError(f"process {self.pid} reads no more")

    async def _wait_for_room(self, size: int) -> None:
        pauses = Backoff(self._access.pace.first, self._access.pace.longest)
        while self._in_flight and sum(waiting for _, waiting in self._in_flight) + size > IN_FLIGHT:
            before = len(self._in_flight)
            await self._look_what_was_taken()
            self._check_input()
            if len(self._in_flight) == before:
                await asyncio.sleep(pauses.next())

    async def _look_what_was_taken(self) -> None:
        try:
            noted = await self._patiently(lambda: self._access.read(f"{self._folder}/ack", 0, 32))
        except AgentError:  # nothing was taken yet
            return
        if noted.startswith(b"x"):
            self._input_refused = True
            return
        if noted.endswith(b"\n") and noted[:-1].isdigit():
            while self._in_flight and self._in_flight[0][0] <= int(noted):
                self._in_flight.popleft()

    async def _send_by_port(self, port: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it is full, or what is wrong with it is seen below
            data = data[port.send(data) :]
        if not data:
            return
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(port, data))
        pauses = Backoff(0.5, 2.0)
        try:
            while not sending.done():
                ends: list[asyncio.Future[Any]] = [sending, self._exit]
                await asyncio.wait(ends, timeout=pauses.next(), return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    await self._look_what_was_taken()
                    self._check_input()
            try:
                await sending
            except OSError as error:
                await self._break(f"its port failed: {error}")
                self._check_input()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _frame(self, frame: bytes) -> None:
        # It may be written twice: the relay knows what it has.
        await self._patiently(lambda: self._access.write(f"{self._folder}/in", frame))

    async def _order(self, line: str) -> None:
        await self._patiently(lambda: self._access.write(f"{self._folder}/ctl", f"{line}\n".encode()))

    # Outputs

    async def _read_output(self, output: Output) -> None:
        buffer = self._buffers[output]
        try:
            has_port = self._port_of and self._port_of[output].done()
            if has_port or await self._read_files(output, buffer) == PORT:
                await self._read_port(output, await self._port_of[output], buffer)
            await buffer.end()
        except AgentError as error:
            await self._break(f"the relay in the guest has ended ({error.description})")
        finally:
            await buffer.end(self._broken)

    async def _read_files(self, output: Output, buffer: OutputBuffer) -> bytes:
        scanner = MarkScanner(self._mark)
        number = offset = 0
        # Errors wait a little longer: each look takes the guest's processor from what is to answer.
        first = self._access.pace.first if output == STDOUT else max(self._access.pace.first, ERRORS_AFTER)
        pauses = Backoff(first, self._access.pace.longest, PATIENT)
        heard_at = time.monotonic()
        while True:
            path = f"{self._folder}/{file_of(output, number)}"

            def read(path: str = path, at: int = offset) -> Awaitable[bytes]:
                return self._access.read(path, at, READ_AT_ONCE)

            data = await self._patiently(read)
            offset += len(data)
            # A mark is written at once: it is split only where a read ends before the file does.
            for piece in scanner.feed(data, may_go_on=len(data) == READ_AT_ONCE):
                await self._put(buffer, piece)
                if piece.letter in (END, PORT):
                    await self._access.forget(path)
                    return piece.letter
                if piece.letter == NEXT:
                    await self._access.forget(path)
                    await self._order(f"a {output} {number}")
                    number, offset = number + 1, 0
            if data:
                heard_at = time.monotonic()
                pauses.reset()
                self._count(len(data))
                continue
            if self._broken:
                return END
            pause = pauses.next()
            if time.monotonic() - heard_at > QUIET_AFTER:
                pause = self._access.pace.quiet
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                    pauses.reset()
                    heard_at = time.monotonic()
                    await asyncio.sleep(self._access.pace.first)
            self._wake.clear()

    async def _put(self, buffer: OutputBuffer, piece: Piece) -> None:
        if piece.data:
            await buffer.put(piece.data)

    async def _read_port(self, output: Output, port: socket.socket, buffer: OutputBuffer) -> None:
        parts = 0
        async for piece in pieces_of(port, MarkScanner(self._mark)):
            await self._put(buffer, piece)
            if piece.letter == END:
                return
            if piece.letter == NEXT:
                await self._order(f"a {output} p{parts}")
                parts += 1
        await self._break("its port was closed, as by a stop of the VM")

    # Ports

    async def _use_ports(self, ports: OwnPorts) -> None:
        if not self._request.tty:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PORTS_AFTER):
                    await self._ports_wanted.wait()
        async with self._access.moves:
            await self._go_over(ports)

    async def _go_over(self, ports: OwnPorts) -> None:
        kinds = ("t",) if self._request.tty else ("0", *map(str, self._outputs))
        await self._plugged.aclose()  # what came too late for its start
        try:
            sockets = {}
            for kind in kinds:
                name = new_port_name()
                sockets[kind] = await plug_in(ports, name, self._plugged)
                await self._order(f"p {kind} {name} {int(ports.needs_acknowledgement)}")
            async with asyncio.timeout(PORTS_WITHIN):
                await asyncio.gather(*map(self._greet, sockets.values()))
        except (GuestError, TimeoutError, OSError) as error:
            log.debug("process %d of %s goes on without ports: %s", self.pid, self._access.guest, error)
            await self._plugged.aclose()
            return
        # From here on there is no way back, and so no time limit but that of each call.
        try:
            await self._move_over(sockets)
        except GuestError as error:
            await self._break(f"its move to ports failed: {error}")
        else:
            self.way = "port"

    async def _greet(self, port: socket.socket) -> None:
        """Waits for the relay's first word."""
        scanner, loop = MarkScanner(self._mark), asyncio.get_running_loop()
        while True:
            data = await loop.sock_recv(port, 64)
            if not data:
                raise ConnectionResetError("a port was closed")
            for piece in scanner.feed(data, may_go_on=True):
                if piece != Piece(b"", HELLO):
                    raise ConnectionError(f"{piece.data[:32]!r} before its first word")
                return

    async def _move_over(self, sockets: dict[str, socket.socket]) -> None:
        for output in self._outputs:
            self._port_of[output].set_result(sockets["t" if self._request.tty else str(output)])
        await self._order("w")
        async with self._input_turn:  # whose holder waits for a program that does not read
            if not self._input_ended and not self._input_refused:
                await self._frame(b"p\n")
                self._input = sockets["t" if self._request.tty else "0"]
        self._wake.set()

    # Its end

    async def _watch_end(self) -> None:
        pauses = Backoff(0.05, 4.0)
        while not self._exit.done():
            if not all(reader.done() for reader in self._readers):
                await asyncio.wait(self._readers, timeout=pauses.next())
                if all(reader.done() for reader in self._readers):
                    pauses = Backoff(self._access.pace.first, 0.5)
            else:
                await asyncio.sleep(pauses.next())
            try:
                state = await self._patiently(lambda: self._access.status(self.pid))
            except AgentError as error:
                await self._break(f"its agent does not know the process any more ({error.description})")
                return
            if state.exited:
                if not self._exit.done():  # its close may have seen it meanwhile
                    self._exit.set_result(Exit(state.exitcode, state.signal))
                self._wake.set()
        await asyncio.wait(self._readers)
        # Who reads nothing any more, and has no process, needs no relay either.
        self._closing = self._closing or asyncio.get_running_loop().create_task(self._close())

    async def _keep_alive(self) -> None:
        """Shows the relay that the host is there, and sees that the relay is: a program may have ended it."""
        number, left_out, answered_at = 0, 0, time.monotonic()
        while True:
            await asyncio.sleep(KEEPALIVE)
            if self._was_reset:
                await self._break(RESET)
                return
            feeds = self._input and not (self._request.tty or self._input_ended or self._input_refused)
            if feeds and left_out < KEEPALIVES_LEFT_OUT:
                left_out += 1
                continue
            number, left_out = number + 1, 0
            try:
                await self._access.write(f"{self._folder}/ctl", b"k %d\n" % number)
                noted = await self._access.read(f"{self._folder}/alive", 0, 32)
                if noted[:-1].isdigit() and int(noted[:-1]) >= number - 1:
                    answered_at = time.monotonic()
            except AgentError as error:
                if is_refused(error):
                    answered_at = time.monotonic()
            except GuestError:
                continue  # what is waited for says so in time
            if time.monotonic() - answered_at > PATIENCE:
                await self._break("the relay in the guest answers no more")
                return

    async def _close(self) -> None:
        if not self._was_reset:
            await self._close_there()
        await self._clear()

    async def _close_there(self) -> None:
        """Leaves nothing of the stream in the guest."""
        has_exited = self._exit.done() and not self._exit.exception()
        # Whose relay was killed sees no end of the outputs: nothing in the guest would remove what is there.
        may_be_alone = self._broken is not None or (has_exited and not all(reader.done() for reader in self._readers))
        with contextlib.suppress(GuestError, TimeoutError):
            async with asyncio.timeout(CLOSES_WITHIN):
                await self._order("b")
        if not has_exited:
            with contextlib.suppress(GuestError):
                may_be_alone |= not await self._end_program()
        if may_be_alone:
            with contextlib.suppress(GuestError, TimeoutError):
                async with asyncio.timeout(CLOSES_WITHIN):
                    await self._access.start(clearing(self._folder))

    async def _clear(self) -> None:
        """Leaves nothing of the stream on this side."""
        await self._end_tasks()
        await self._plugged.aclose()
        await self._end_all()
        with contextlib.suppress(GuestError, TimeoutError):
            async with asyncio.timeout(CLOSES_WITHIN):
                await self._access.forget_all()
        self.on_close()

    async def _end_program(self) -> bool:
        """Sees the program's end; one whose relay does not see to it is ended by the agent. Returns whether that did."""
        for order in (None, ["/bin/sh", "-c", 'kill -9 "-$1" || kill -9 "$1"', "sh", str(self.pid)]):
            if order:
                await self._access.start(order)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENDS_WITHIN):
                    while not (state := await self._access.status(self.pid)).exited:  # noqa: ASYNC110  # only asking tells
                        await asyncio.sleep(0.05)
                    if not self._exit.done():
                        self._exit.set_result(Exit(state.exitcode, state.signal))
                    return order is None
        return False

    async def _break(self, why: str) -> None:
        await super()._break(why)
        self._wake.set()


async def start_process(access: RelayAccess, request: StreamRequest, ports: OwnPorts | None = None) -> RelayProcess:
    """Starts a program, and carries its bytes.

    Args:
        access: to the guest.
        request: what is started.
        ports: of the VM, where it can be given some.

    Raises:
        AgentError: the guest's own reason: no such program, folder or user.
        GuestError: the guest can't do it, or does not answer.
    """
    await access.check()
    stream, plugged, resets = secrets.token_hex(8), contextlib.AsyncExitStack(), ports.resets if ports else 0
    name = new_port_name() if request.tty and ports and not ports.needs_acknowledgement else ""
    plugging = None
    try:
        if ports and name:
            plugging = asyncio.create_task(plug_in(ports, name, plugged), name="port")
            plugged.push_async_callback(_end, plugging)
            # Where there is none to be had, the guest need not look for it.
            await asyncio.wait([plugging], timeout=PLUGS_WITHIN)
            if not ports.is_reached or (plugging.done() and plugging.exception()):
                name, plugging = "", None
        pid = await access.start(starting(request, stream, reads=FEW_READS if ports else MANY_READS, port=name))
        try:
            async with asyncio.timeout(STARTS_WITHIN):
                folder, mark = await _find_relay(access, request, stream, pid)
        except TimeoutError:
            raise GuestError(
                f"{access.guest}: process {pid} was started and its relay did not come up in {STARTS_WITHIN:g} seconds; where it does, it ends the process"
            ) from None
        port = await plugging if plugging and mark.by_port else None
    except BaseException:
        await plugged.aclose()
        await access.forget_all()
        raise
    process = RelayProcess(access, request, pid, folder, mark.digits, ports=ports, resets=resets)
    process.begin(plugged, port)
    return process


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _find_relay(access: RelayAccess, request: StreamRequest, stream: str, pid: int) -> tuple[str, RelayMark]:
    pauses = Backoff(access.pace.first, access.pace.longest)
    folders = folders_of(stream)
    looks = 0
    while True:
        looks += 1
        state = await access.status(pid)
        # Hardly ever is it another than the first, and each look is a line in the guest's log.
        for folder in folders if looks % 4 == 0 or state.exited else folders[:1]:
            try:
                found = mark_in(await access.read(f"{folder}/mark", 0, 64))
            except AgentError:
                continue
            if found:
                await access.forget(f"{folder}/mark")
                return folder, found
        if state.exited:
            raise refusal(access.guest, request, state.exitcode)
        await asyncio.sleep(pauses.next())
