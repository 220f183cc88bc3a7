"""Ports of our own in a domain of libvirt's, whose other side is a stream of libvirt's own (`virDomainOpenChannel`).

The socket behind a port is the daemon's and QEMU's, which a user of the group libvirt may not open, and which another
machine can't: the stream goes wherever the connection does.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from guestwire.channels.agent_port import LIBVIRT_CHANNEL
from guestwire.channels.libvirt import READ_ONLY, Libvirt, LibvirtConnection, binding
from guestwire.channels.port_keeper import LIBVIRT, Place, channels_of, detach
from guestwire.errors import GuestError

T = TypeVar("T")

CALL_WITHIN: Final = 10.0

PIECE: Final = 64 * 1024
"""Bytes that a stream takes or gives at once."""

NOT_NOW: Final = -2
"""What the binding gives instead of bytes, or of their number."""

MOST_HELD: Final = 8 * 1024 * 1024
"""Bytes that wait for this side. libvirt's client reads whatever comes, so that a guest that floods is cut off here."""


class LibvirtPorts:
    """See `OwnPorts`.

    Args:
        libvirt: the domain's. Belongs to its maker.
        uuid: the domain's.
        guest: how messages name the guest, for example `VM 100`.
    """

    needs_acknowledgement = True
    is_reached = True  # libvirt says when it is asked
    resets = 0

    def __init__(self, libvirt: Libvirt, uuid: str, guest: str) -> None:
        self.place = Place(LIBVIRT, libvirt.uri, uuid)
        self._libvirt = libvirt
        self._uuid = uuid
        self._guest = guest

    async def plug_in(self, name: str) -> None:
        """See `OwnPorts.plug_in`."""
        live = binding().VIR_DOMAIN_AFFECT_LIVE
        await self._call(
            lambda connection: self._domain(connection).attachDeviceFlags(LIBVIRT_CHANNEL.format(name=name), live)
        )

    async def unplug(self, name: str) -> None:
        """See `OwnPorts.unplug`."""
        live = binding().VIR_DOMAIN_AFFECT_LIVE
        await self._call(lambda connection: detach(self._domain(connection), name, live))

    async def names(self) -> list[str]:
        """See `OwnPorts.names`."""
        return await self._call(lambda connection: list(channels_of(self._domain(connection))))

    async def is_free(self, name: str) -> bool:
        """See `OwnPorts.is_free`. libvirt does not say who holds one: it refuses a second connection."""
        try:
            (await self.connect(name)).close()
        except GuestError:
            return False
        return True

    async def connect(self, name: str) -> socket.socket:
        """See `OwnPorts.connect`. The stream has a connection to libvirt of its own: what it carries is in nobody's way."""

        def work(_: LibvirtConnection) -> socket.socket:
            connection = LibvirtConnection(self._libvirt.uri)
            stream = connection.open().newStream(binding().VIR_STREAM_NONBLOCK)
            connection.domain(self._uuid).openChannel(name, stream, 0)
            ours, end = socket.socketpair()
            ours.setblocking(False)  # noqa: FBT003
            _StreamPump(connection, stream, end).start()
            return ours

        return await self._call(work, on_late_result=socket.socket.close)

    def _domain(self, connection: LibvirtConnection) -> Any:
        return connection.domain(self._uuid)

    async def _call(
        self, work: Callable[[LibvirtConnection], T], *, on_late_result: Callable[[T], None] | None = None
    ) -> T:
        libvirt: Any = binding()
        try:
            async with asyncio.timeout(CALL_WITHIN):
                return await self._libvirt.run_in_guest(work, on_late_result=on_late_result)
        except TimeoutError:
            raise GuestError(f"{self._guest}: libvirt did not answer in {CALL_WITHIN:g} seconds") from None
        except libvirt.libvirtError as error:
            is_denied = error.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED
            raise GuestError(f"{self._guest}: {READ_ONLY if is_denied else error.get_error_message()}") from error


class _StreamPump:
    """Carries bytes between a stream of libvirt's and a socket, in the thread of libvirt's events, until one of them ends.

    So that the event loop has a socket as any other: what it sends waits in the socket while the stream takes no more,
    and what comes waits here.
    """

    def __init__(self, connection: LibvirtConnection, stream: Any, end: socket.socket) -> None:
        self._libvirt: Any = binding()
        self._connection = connection
        self._stream = stream
        self._socket = end
        self._socket.setblocking(False)  # noqa: FBT003
        self._to_stream = b""
        self._to_socket = bytearray()
        self._watch = -1
        self._is_over = False
        self._lock = threading.RLock()

    def start(self) -> None:
        """Returns at once."""
        libvirt = self._libvirt
        with self._lock:  # an event may come before both are known
            self._stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE, self._on_stream, None)
            self._watch = libvirt.virEventAddHandle(
                self._socket.fileno(), libvirt.VIR_EVENT_HANDLE_READABLE, self._on_socket, None
            )

    def _on_stream(self, _stream: Any, events: int, _opaque: Any) -> None:
        readable = self._libvirt.VIR_STREAM_EVENT_READABLE
        writable = self._libvirt.VIR_STREAM_EVENT_WRITABLE

        def work() -> None:
            if events & readable:
                while (data := self._stream.recv(PIECE)) != NOT_NOW:
                    if not data:
                        raise ConnectionError
                    self._to_socket += data
            if events & writable:
                self._feed_stream()
            self._feed_socket()
            if events & ~(readable | writable):  # an error, or the other side has hung up
                raise ConnectionError

        self._unless_over(work)

    def _on_socket(self, _watch: int, _fd: int, events: int, _opaque: Any) -> None:
        writable = self._libvirt.VIR_EVENT_HANDLE_WRITABLE

        def work() -> None:
            if events & writable:
                self._feed_socket()
            if events & ~writable and not self._to_stream:
                with contextlib.suppress(BlockingIOError):
                    self._to_stream = self._socket.recv(PIECE)
                    if not self._to_stream:
                        raise ConnectionError
                self._feed_stream()

        self._unless_over(work)

    def _unless_over(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._is_over:
                return
            try:
                work()
                self._heed()
            except (OSError, self._libvirt.libvirtError):
                self._end()

    def _feed_stream(self) -> None:
        while self._to_stream and (taken := self._stream.send(self._to_stream)) >= 0:
            self._to_stream = self._to_stream[taken:]

    def _feed_socket(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._to_socket:
                del self._to_socket[: self._socket.send(self._to_socket)]
        if len(self._to_socket) > MOST_HELD:
            raise ConnectionError

    def _heed(self) -> None:
        """Waits for what is wanted next, and no more: an event that nobody heeds comes again and again."""
        libvirt = self._libvirt
        wanted = libvirt.VIR_STREAM_EVENT_READABLE
        self._stream.eventUpdateCallback(wanted | (libvirt.VIR_STREAM_EVENT_WRITABLE if self._to_stream else 0))
        wanted = 0 if self._to_stream else libvirt.VIR_EVENT_HANDLE_READABLE
        wanted |= libvirt.VIR_EVENT_HANDLE_WRITABLE if self._to_socket else 0
        libvirt.virEventUpdateHandle(self._watch, wanted)

    def _end(self) -> None:
        self._is_over = True
        self._libvirt.virEventRemoveHandle(self._watch)
        with contextlib.suppress(self._libvirt.libvirtError):
            self._stream.eventRemoveCallback()
        self._socket.close()
        # It waits for the daemon's answer, which comes through the thread that this runs in.
        threading.Thread(target=self._abort, name="libvirt stream", daemon=True).start()

    def _abort(self) -> None:
        with contextlib.suppress(self._libvirt.libvirtError):
            self._stream.abort()
        self._connection.close()
