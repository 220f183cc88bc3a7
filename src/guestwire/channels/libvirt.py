"""libvirt: its connections to one host, and a channel to the agent of each of its domains.

libvirt holds the agents' sockets itself, and takes whole commands: there is no stream of bytes, and no `link.py`. What
this costs was measured (libvirt 9.0):

1. It waits for a whole answer in a call that blocks, so calls are made in threads; its binding releases the GIL.
2. A connection has five requests on their way at most: six guests that hang would stop a seventh. So connections are
   many, with few calls on each, and a channel has one call on its way. All together are fewer than the daemon's twenty
   workers: what hangs here must leave some to others.
3. A reply of more than 4 MiB is lost, and one of more than 10 MiB ends the agent for all clients until libvirt is started
   again. A command of more than 160,000 bytes hangs. `LIMITS` says what is safe; `agent/` asks for no more.
4. A command that it gave up is forgotten, with its reply. So it gets longer than its caller has, where the reply
   matters late.
"""

import asyncio
import contextlib
import logging
import math
import queue
import re
import threading
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, TypeVar

import msgspec

from guestwire.channels.channel import ChannelState, GuestEvent, Limits, OnLateReply
from guestwire.errors import (
    AgentError,
    AgentNotRunning,
    CommandFailed,
    CommandTimeout,
    ConfigurationError,
    GuestError,
    ProtocolError,
)
from guestwire.pacing import Backoff
from guestwire.wire import Command, Reply, decode_reply

log = logging.getLogger("guestwire.channels")

T = TypeVar("T")

LIMITS: Final = Limits(command=96 * 1024, reply=2 * 1024 * 1024)
"""With a margin: one mebibyte read at once is 1.4 MiB of JSON, and takes four times as long as two halves of it."""

LARGEST_READ: Final = 1024 * 1024

CALLS_EACH: Final = 3
"""Calls on one connection; libvirt's limit is five."""

PROVEN_CALLS: Final = 8
UNPROVEN_CALLS: Final = 8
OTHER_CALLS: Final = 3
"""Calls at once, of the daemon's twenty workers: to guests that answered last, to those of which that is not known, which
may hang and then take no place from the first, and about VMs."""

ANSWERS_WITHIN: Final = 1.0
"""Seconds that closing waits for an answer."""

MAX_WAITING: Final = 1024
LATE: Final = 5
"""Seconds that libvirt waits for a reply longer than its caller, where somebody wants it late."""

PROBE_FIRST: Final = 0.2
PROBE_AT_MOST: Final = 5.0
PROBES_AT_ONCE: Final = 2
"""Silent guests that are asked again at once: each takes a worker for seconds."""

STOPPING: Final = "guestwire is stopping"
READ_ONLY: Final = (
    "this connection to libvirt is read-only: it lists VMs, and can neither call their agents nor start or stop them;"
    " users who may do that are in the group libvirt"
)
MISSING: Final = (
    "libvirt's Python binding is not installed. Either: pip install 'guestwire[libvirt]' (it is built then: that needs a"
    " C compiler, pkg-config and libvirt's headers, on Debian gcc, pkg-config and libvirt-dev). Or: the system's own"
    " package, on Debian python3-libvirt, and an environment that sees it: python3 -m venv --system-site-packages"
)

PING: Final = Command("guest-ping", repeatable=True, timeout=1.0)

_agent_error = re.compile(r"unable to execute QEMU agent command '[^']*': (?P<text>.*)", re.DOTALL)
_classes: Final = ((re.compile(r"The command .* has not been found|Command .* has been disabled"), "CommandNotFound"),)
TIMED_OUT: Final = ("AGENT_UNSYNCED", "AGENT_COMMAND_TIMEOUT", "OPERATION_TIMEOUT")

_events = threading.Lock()
_module: ModuleType | None = None


def binding() -> ModuleType:
    """The module `libvirt`, quiet, with its events running in a thread.

    Raises:
        ConfigurationError: it is not installed.
    """
    global _module  # noqa: PLW0603  # the module is one for the process, as its events are
    with _events:
        if _module is None:
            try:
                import libvirt  # noqa: PLC0415  # optional, and slow to load
                import libvirt_qemu  # noqa: F401, PLC0415
            except ImportError as error:
                raise ConfigurationError(MISSING) from error
            libvirt.registerErrorHandler(lambda *_: None, None)  # it writes to standard error otherwise
            if libvirt.virEventRegisterDefaultImpl() == 0:
                threading.Thread(target=_run_events, args=(libvirt,), name="libvirt events", daemon=True).start()
            _module = libvirt
    return _module


def _run_events(libvirt: Any) -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


def _freeze(domain: Any, arguments: dict[str, Any]) -> int:
    return int(domain.fsFreeze(arguments.get("mountpoints")))


def _thaw(domain: Any, _arguments: dict[str, Any]) -> int:
    return int(domain.fsThaw())


NATIVE: Final[dict[str, Callable[[Any, dict[str, Any]], int]]] = {
    "guest-fsfreeze-freeze": _freeze,
    "guest-fsfreeze-freeze-list": _freeze,
    "guest-fsfreeze-thaw": _thaw,
}
"""Commands that libvirt has calls of its own for, with the same result: its access rules know those by name. They have no
time-out of libvirt's, and need none: a freeze has an hour."""


class LibvirtConnection:
    """One connection, opened when it is used, and again when it was lost. Its methods are for threads: they block."""

    def __init__(self, uri: str) -> None:
        self.calls = 0
        self._uri = uri
        self._lock = threading.Lock()
        self._connection: Any = None
        self._domains: dict[str, Any] = {}

    def open(self) -> Any:
        """The binding's connection; read-only where no other can be had.

        Raises:
            libvirtError: there is none to be had.
        """
        libvirt = binding()
        with self._lock:
            if self._connection is None or not self._connection.isAlive():
                self._domains.clear()
                try:
                    self._connection = libvirt.open(self._uri)
                except libvirt.libvirtError as error:
                    refused = (
                        libvirt.VIR_ERR_AUTH_FAILED,
                        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
                        libvirt.VIR_ERR_AUTH_CANCELLED,
                    )
                    is_refused = error.get_error_code() in refused or "Permission denied" in str(error)
                    if not is_refused:
                        raise
                    self._connection = libvirt.openReadOnly(self._uri)
                with contextlib.suppress(libvirt.libvirtError):
                    self._connection.setKeepAlive(5, 3)
            return self._connection

    def domain(self, uuid: str) -> Any:
        """The binding's domain.

        Raises:
            libvirtError: there is none.
        """
        connection = self.open()
        if uuid not in self._domains:
            self._domains[uuid] = connection.lookupByUUIDString(uuid)
        return self._domains[uuid]

    def close(self) -> None:
        """Ends it, as soon as no call is on it any more."""
        self._domains.clear()
        self._connection = None


class _Calls:
    """Makes calls in threads, a few at once; on connections with few calls on each."""

    def __init__(self, uri: str, most: int) -> None:
        self._uri = uri
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(most)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = self._busy = 0
        self._connections: list[LibvirtConnection] = []

    async def run(self, work: Callable[[LibvirtConnection], T], on_late_result: Callable[[T], None] | None = None) -> T:
        """What `work` returns, or raises. A caller who goes away does not end it: a call into libvirt can't be ended."""
        await self._free.acquire()
        connection = next((one for one in self._connections if one.calls < CALLS_EACH), None)
        if connection is None:
            connection = LibvirtConnection(self._uri)
            self._connections.append(connection)
        connection.calls += 1
        self._busy += 1
        future: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            connection.calls -= 1
            self._busy -= 1
            self._free.release()
            if future.done():
                if on_late_result and result is not None:
                    on_late_result(result)
                return
            if error:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # one of both is there

        def job() -> None:
            result, failure = None, None
            try:
                result = work(connection)
            except BaseException as error:  # noqa: BLE001  # it is the caller's
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                self._loop.call_soon_threadsafe(settle, result, failure)

        if self._busy > self._threads:
            self._threads += 1
            # Daemons, unlike those of an executor: the end of a program waits for no guest that hangs.
            threading.Thread(target=self._work, name="libvirt calls", daemon=True).start()
        self._jobs.put(job)
        return await future

    def close(self) -> None:
        for _ in range(self._threads):
            self._jobs.put(None)
        for connection in self._connections:
            connection.close()

    def _work(self) -> None:
        while job := self._jobs.get():
            job()
            del job  # what it holds must not live until the next one comes


class Libvirt:
    """One libvirt, named by a URI as virsh has it. Must be made where an event loop runs, and closed.

    Raises:
        ConfigurationError: the binding is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        binding()
        self._proven = _Calls(uri, PROVEN_CALLS)
        self._unproven = _Calls(uri, UNPROVEN_CALLS)
        self._others = _Calls(uri, OTHER_CALLS)
        self.probes = asyncio.Semaphore(PROBES_AT_ONCE)

    async def run(self, work: Callable[[LibvirtConnection], T]) -> T:
        """Runs `work` in a thread; what the binding raises comes up as it is. Not for what may hang for a guest."""
        return await self._others.run(work)

    async def run_in_guest(
        self,
        work: Callable[[LibvirtConnection], T],
        *,
        is_proven: bool = False,
        on_late_result: Callable[[T], None] | None = None,
    ) -> T:
        """The same for calls that wait for a guest, on connections of their own.

        Args:
            work: see `run`.
            is_proven: the guest answered last.
            on_late_result: called with what comes when the caller has gone away.
        """
        return await (self._proven if is_proven else self._unproven).run(work, on_late_result)

    def close(self) -> None:
        """Ends its connections, as soon as no call is on them."""
        self._proven.close()
        self._unproven.close()
        self._others.close()


class _Call:
    """One call, from `execute` to its end.

    Attributes:
        command: what is executed.
        arguments: as its caller gave them.
        text: both for libvirt.
        future: the caller's; done when it has an answer, or has gone away.
        on_late_reply: see `Channel.execute`.
        was_sent: libvirt has it.
    """

    __slots__ = ("arguments", "command", "future", "on_late_reply", "text", "was_sent")

    def __init__(
        self, command: Command, arguments: dict[str, Any], text: str, on_late_reply: OnLateReply | None = None
    ) -> None:
        self.command = command
        self.arguments = arguments
        self.text = text
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.on_late_reply = on_late_reply
        self.was_sent = False

    @property
    def seconds(self) -> int:
        """For libvirt, which counts in whole ones."""
        return math.ceil(self.command.timeout) + (LATE if self.on_late_reply else 0)


class _Lost(Exception):
    """The command may have been executed, and there is no reply."""


class LibvirtChannel:
    """A `Channel` to the agent of one domain. Must be made where an event loop runs, and closed.

    Args:
        libvirt: the domain's. Belongs to its maker.
        uuid: the domain's.
        guest: how messages name the guest, for example `VM 100`.
    """

    limits = LIMITS

    def __init__(self, libvirt: Libvirt, uuid: str, guest: str) -> None:
        self._libvirt = libvirt
        self._uuid = uuid
        self._guest = guest
        self._state = ChannelState.GONE
        self._why = "never asked"
        self._is_closing = self._is_closed = False
        self._waiting: deque[_Call] = deque()
        self._current: _Call | None = None
        self._runner: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None

    @property
    def state(self) -> ChannelState:
        """See `Channel.state`; until the first call it is not known, and said to be gone."""
        return self._state

    async def execute(
        self, command: Command, arguments: dict[str, Any] | None = None, *, on_late_reply: OnLateReply | None = None
    ) -> bytes:
        """See `Channel.execute`.

        Raises:
            GuestError: also for a command that libvirt does not carry; it was not sent then.
        """
        refuses = self._is_closed or (self._is_closing and not command.releases)
        if refuses or self._state is ChannelState.SILENT:
            raise AgentNotRunning(self._guest, STOPPING if refuses else self._why)
        if len(self._waiting) >= MAX_WAITING:
            raise AgentNotRunning(self._guest, f"{MAX_WAITING} calls wait for it")
        call = _Call(command, arguments or {}, self._text_of(command, arguments or {}), on_late_reply)
        self._waiting.append(call)
        if self._runner is None:
            self._runner = asyncio.get_running_loop().create_task(self._run(), name=f"call {self._guest}")
        try:
            async with asyncio.timeout(command.timeout):
                return await call.future
        except TimeoutError:
            if not call.was_sent:
                raise CommandTimeout(self._guest, command.name) from None
            self._set_state(ChannelState.SILENT, "no answer in time")
            if not command.answers:
                return b"null"  # it has done its work, as far as can be known
            raise CommandTimeout(self._guest, command.name) from None
        except asyncio.CancelledError:
            if on_late_reply and call.future.done() and not call.future.cancelled() and not call.future.exception():
                on_late_reply(Reply(value=msgspec.Raw(call.future.result())))  # it came at the very moment
            raise

    def notify(self, event: GuestEvent) -> None:
        """See `Channel.notify`."""
        if self._is_closed:
            return
        if event is GuestEvent.PORT_OPENED:
            self._probe()
        elif event in (GuestEvent.PORT_CLOSED, GuestEvent.RESET, GuestEvent.STOPPED, GuestEvent.SUSPENDED):
            call = self._current
            if call and not call.command.answers and call.was_sent and not call.future.done():
                call.future.set_result(b"null")
            if event is not GuestEvent.SUSPENDED:
                self._set_state(ChannelState.GONE, event.value)

    async def close(self) -> None:
        """See `Channel.close`.

        A guest that is just answering is waited for, a second at most, where there may be a handle in its answer, which is
        closed then.
        """
        try:
            self._is_closing = True
            self._refuse(lambda call: not call.command.releases)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWERS_WITHIN):
                    while self._runner and self._has_to_release:
                        await asyncio.wait([self._runner])
        finally:
            self._is_closed = True
            self._state = ChannelState.GONE
            tasks = [task for task in (self._runner, self._prober) if task]
            for task in tasks:
                task.cancel()
            self._refuse(lambda _: True)
            await asyncio.gather(*tasks, return_exceptions=True)

    def _refuse(self, is_meant: Callable[[_Call], bool]) -> None:
        """Ends such calls for their callers."""
        for call in (*([self._current] if self._current else []), *self._waiting):
            if is_meant(call) and not call.future.done():
                call.future.set_exception(AgentNotRunning(self._guest, STOPPING))

    @property
    def _has_to_release(self) -> bool:
        """True while something is to be given back, or an answer may say what."""
        if self._state is not ChannelState.UP:
            return False
        may_hold = self._current is not None and self._current.on_late_reply is not None
        return may_hold or any(call.command.releases for call in (*self._waiting, *filter(None, [self._current])))

    def _text_of(self, command: Command, arguments: dict[str, Any]) -> str:
        """The command as libvirt takes it; refused here where it would hang there, or its answer would do harm."""
        message = {"execute": command.name, "arguments": arguments} if arguments else {"execute": command.name}
        data = msgspec.json.encode(message)
        if LIMITS.command and len(data) > LIMITS.command:
            raise GuestError(
                f"{self._guest}: libvirt carries commands of {LIMITS.command} bytes at most, and this {command.name} has"
                f" {len(data)}"
            )
        if (count := arguments.get("count")) and isinstance(count, int) and count > LARGEST_READ:
            raise GuestError(f"{self._guest}: libvirt carries reads of {LARGEST_READ} bytes at most")
        return data.decode()

    # One call after the other

    async def _run(self) -> None:
        try:
            while self._waiting:
                call = self._waiting.popleft()
                if not call.future.done():
                    self._current = call
                    await self._carry(call)
        finally:
            if self._current and not self._current.future.done():
                self._current.future.set_exception(AgentNotRunning(self._guest, STOPPING))
            self._runner = self._current = None

    async def _carry(self, call: _Call) -> None:
        """Executes a call, and gives its caller the answer; one that has gone away gets it late."""
        value, failure = None, None
        try:
            value = await self._attempt(call)
        except GuestError as error:
            failure = error
        if call.future.done():
            if call.on_late_reply and value is not None:
                call.on_late_reply(Reply(value=msgspec.Raw(value)))
        elif failure:
            call.future.set_exception(failure)
        else:
            call.future.set_result(value or b"null")

    async def _attempt(self, call: _Call) -> bytes:
        for is_last in (False, True):
            try:
                return await self._once(call)
            except _Lost as error:
                if not call.command.answers and call.was_sent:
                    return b"null"
                if is_last or call.future.done() or (call.was_sent and not call.command.repeatable):
                    if not call.was_sent:
                        raise AgentNotRunning(self._guest, str(error)) from error
                    raise CommandFailed(self._guest, call.command.name, str(error)) from error
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, call: _Call) -> bytes:
        call.was_sent = False

        def work(connection: LibvirtConnection) -> str:
            domain = connection.domain(self._uuid)
            if not call.command.answers:
                # No answer may mean that it was never sent: libvirt's own sync had none. One to a ping tells.
                _agent_command(domain, '{"execute":"guest-ping"}', math.ceil(PING.timeout))
            call.was_sent = True
            # No list of mount points is all of them for libvirt, and none for the agent.
            if (native := NATIVE.get(call.command.name)) and call.arguments.get("mountpoints") != []:
                return f'{{"return": {native(domain, call.arguments)}}}'
            return _agent_command(domain, call.text, call.seconds)

        try:
            text = await self._libvirt.run_in_guest(work, is_proven=self._state is ChannelState.UP)
        except binding().libvirtError as error:
            raise self._translate(call, error) from error
        except UnicodeDecodeError as error:
            raise CommandFailed(self._guest, call.command.name, f"its answer is no text: {error.reason}") from error
        try:
            reply = decode_reply(text.encode("utf-8", "surrogateescape"))
        except ProtocolError as error:
            raise CommandFailed(self._guest, call.command.name, str(error)) from error
        self._set_state(ChannelState.UP, "")
        return b"null" if reply.value is msgspec.UNSET else bytes(reply.value)

    def _translate(self, call: _Call, error: Any) -> GuestError | _Lost:
        """What the binding's error means. Source: libvirt's qemu_agent.c and qemu_driver.c, and what was seen."""
        libvirt: Any = binding()
        code, text = error.get_error_code(), str(error.get_error_message() or error)
        # Those of the agent's own have names since 9.1; before, the text tells.
        timed_out = [getattr(libvirt, f"VIR_ERR_{name}", None) for name in TIMED_OUT]
        result: GuestError | _Lost
        if found := _agent_error.search(text):
            self._set_state(ChannelState.UP, "")
            kind = next((name for pattern, name in _classes if pattern.match(found["text"])), "GenericError")
            result = AgentError(kind, found["text"])
        elif code == libvirt.VIR_ERR_OPERATION_DENIED:
            result = GuestError(f"{self._guest}: {READ_ONLY}")
        elif code in timed_out or "not available for now" in text or "synchronization" in text:
            self._set_state(ChannelState.SILENT, text)
            result = CommandTimeout(self._guest, call.command.name) if call.command.answers else _Lost(text)
        elif "disappeared" in text or error.get_error_domain() == libvirt.VIR_FROM_RPC:
            self._set_state(ChannelState.GONE, text)
            result = _Lost(text)
        elif code == libvirt.VIR_ERR_AGENT_UNRESPONSIVE or code in _gone(libvirt) or not call.was_sent:
            self._set_state(ChannelState.GONE, text)
            result = AgentNotRunning(self._guest, text)
        else:
            result = CommandFailed(self._guest, call.command.name, text)
        return result

    # What is known

    def _set_state(self, state: ChannelState, why: str) -> None:
        if self._is_closed:
            return
        self._why = why
        if state is not self._state:
            self._state = state
            log.info("%s: its agent is %s%s", self._guest, state.value, f": {why}" if why else "")
        if state is ChannelState.SILENT:
            self._probe()

    def _probe(self) -> None:
        if self._prober is None and self._state is not ChannelState.UP:
            self._prober = asyncio.get_running_loop().create_task(self._until_up(), name=f"probe {self._guest}")

    async def _until_up(self) -> None:
        """Asks until the agent answers, or is gone: events tell when that ends."""
        pauses = Backoff(PROBE_FIRST, PROBE_AT_MOST)
        try:
            while True:
                runner = self._runner
                if runner is None:  # else an answer to what is on its way tells
                    async with self._libvirt.probes:
                        call = _Call(PING, {}, '{"execute":"guest-ping"}')
                        with contextlib.suppress(GuestError, _Lost):
                            await self._once(call)
                if self._state is not ChannelState.SILENT:
                    return
                await asyncio.sleep(pauses.next())
        finally:
            self._prober = None


def _gone(libvirt: Any) -> tuple[int, ...]:
    """Codes for a domain that is stopped, or not there, or without a port for an agent."""
    return libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED


def _agent_command(domain: Any, text: str, seconds: int) -> str:
    import libvirt_qemu  # noqa: PLC0415  # as `binding`

    return str(libvirt_qemu.qemuAgentCommand(domain, text, seconds, 0))
