"""The client for code without an event loop: `connect_sync`, and a class for each of the client's classes.

Every method is that of the same name of the other class, with its parameters, result, errors and documentation; it
waits.
"""

import atexit
from collections.abc import Iterator
from typing import Self

from guestwire.client.calls import Calls
from guestwire.client.errors import ErrorContext
from guestwire.client.folders import Folders
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host, connect
from guestwire.client.live_processes import InputStream, LiveProcess, OutputStream
from guestwire.client.processes import Processes
from guestwire.client.protocols import GuestInfo
from guestwire.client.streams import Mode, Stream
from guestwire.client.sync_endpoints import SyncEndpoints
from guestwire.client.sync_proxy import Portal, SyncProxy, blocking, entering, iterating
from guestwire.client.tcp_connections import TcpConnection
from guestwire.client.transfer.files import Files


class SyncFiles(SyncProxy[Files]):
    """As `Files`."""

    read = blocking(Files.read)
    stream = iterating(Files.stream)
    stream_checked = iterating(Files.stream_checked)
    sha256 = blocking(Files.sha256)
    stat = blocking(Files.stat)
    write = blocking(Files.write)
    upload = blocking(Files.upload)
    download = blocking(Files.download)
    remove = blocking(Files.remove)
    behind_links = blocking(Files.behind_links)


class SyncFolders(SyncProxy[Folders]):
    """As `Folders`."""

    listdir = blocking(Folders.listdir)
    walk = blocking(Folders.walk)
    is_folder = blocking(Folders.is_folder)
    makedirs = blocking(Folders.makedirs)
    upload = blocking(Folders.upload)
    download = blocking(Folders.download)


class SyncProcesses(SyncProxy[Processes]):
    """As `Processes`."""

    run = blocking(Processes.run)
    start = blocking(Processes.start)
    status = blocking(Processes.status)
    wait = blocking(Processes.wait)
    interrupt = blocking(Processes.interrupt)
    is_windows = blocking(Processes.is_windows)


class SyncStream(SyncProxy[Stream]):
    """As `Stream`."""

    read = blocking(Stream.read)
    write = blocking(Stream.write)
    seek = blocking(Stream.seek)

    @property
    def path(self) -> str:
        """See `Stream`."""
        return self._inner.path

    @property
    def mode(self) -> Mode:
        """See `Stream`."""
        return self._inner.mode

    def tell(self) -> int:
        """See `Stream.tell`."""
        return self._inner.tell()

    def __iter__(self) -> Iterator[bytes]:
        """All that is left, in chunks as they come; not lines."""
        return self._chunks_left()

    _chunks_left = iterating(Stream._chunks_left)  # noqa: SLF001  # `async for` over a stream calls it


class SyncInputStream(SyncProxy[InputStream]):
    """As `InputStream`."""

    write = blocking(InputStream.write)
    close = blocking(InputStream.close)


class SyncOutputStream(SyncProxy[OutputStream]):
    """As `OutputStream`."""

    read = blocking(OutputStream.read)
    readline = blocking(OutputStream.readline)

    def __iter__(self) -> Iterator[bytes]:
        """Its lines."""
        while line := self.readline():
            yield line


class SyncLiveProcess(SyncProxy[LiveProcess]):
    """As `LiveProcess`."""

    wait = blocking(LiveProcess.wait)
    resize = blocking(LiveProcess.resize)
    signal = blocking(LiveProcess.signal)
    leave = blocking(LiveProcess.leave)
    close = blocking(LiveProcess.close)

    @property
    def argv(self) -> tuple[str, ...]:
        """See `LiveProcess`."""
        return self._inner.argv

    @property
    def pid(self) -> int:
        """See `LiveProcess`."""
        return self._inner.pid

    @property
    def way(self) -> str:
        """See `LiveProcess.way`."""
        return self._inner.way

    @property
    def stdin(self) -> SyncInputStream:
        """See `LiveProcess`."""
        return SyncInputStream(self._inner.stdin, self._portal)

    @property
    def stdout(self) -> SyncOutputStream:
        """See `LiveProcess`."""
        return SyncOutputStream(self._inner.stdout, self._portal)

    @property
    def stderr(self) -> SyncOutputStream | None:
        """See `LiveProcess`."""
        inner = self._inner.stderr
        return None if inner is None else SyncOutputStream(inner, self._portal)


class SyncTcpConnection(SyncProxy[TcpConnection]):
    """As `TcpConnection`."""

    read = blocking(TcpConnection.read)
    write = blocking(TcpConnection.write)
    write_eof = blocking(TcpConnection.write_eof)
    close = blocking(TcpConnection.close)

    @property
    def host(self) -> str:
        """See `TcpConnection`."""
        return self._inner.host

    @property
    def port(self) -> int:
        """See `TcpConnection`."""
        return self._inner.port

    @property
    def can_write_eof(self) -> bool:
        """See `TcpConnection`."""
        return self._inner.can_write_eof

    @property
    def way(self) -> str:
        """See `TcpConnection.way`."""
        return self._inner.way


class SyncGuest(SyncEndpoints[Guest]):
    """As `Guest`."""

    raw = blocking(Calls.raw)
    run = blocking(Guest.run)
    is_windows = blocking(Guest.is_windows)
    read_file = blocking(Guest.read_file)
    write_file = blocking(Guest.write_file)
    open = entering(Guest.open, SyncStream)
    upload = blocking(Guest.upload)
    download = blocking(Guest.download)
    osinfo = blocking(Guest.osinfo)
    interfaces = blocking(Guest.interfaces)
    filesystems = blocking(Guest.filesystems)
    load = blocking(Guest.load)
    routes = blocking(Guest.routes)
    set_user_password = blocking(Guest.set_user_password)
    wait_ready = blocking(Guest.wait_ready)
    start = entering(Guest.start, SyncLiveProcess)
    connect_tcp = entering(Guest.connect_tcp, SyncTcpConnection)
    freeze = entering(Guest.freeze, lambda count, _: count)
    shutdown = blocking(Guest.shutdown)
    reboot = blocking(Guest.reboot)
    power = blocking(Guest.power)

    @property
    def vm(self) -> GuestInfo:
        """See `Guest`."""
        return self._inner.vm

    @property
    def context(self) -> ErrorContext:
        """See `Guest`."""
        return self._inner.context

    @property
    def processes(self) -> SyncProcesses:
        """See `Guest.processes`."""
        return SyncProcesses(self._inner.processes, self._portal)

    @property
    def files(self) -> SyncFiles:
        """See `Guest.files`."""
        return SyncFiles(self._inner.files, self._portal)

    @property
    def folders(self) -> SyncFolders:
        """See `Guest.folders`."""
        return SyncFolders(self._inner.folders, self._portal)


class SyncHost(SyncProxy[Host]):
    """As `Host`. `with` closes it, and the end of Python. Any thread may use it."""

    def __init__(self, inner: Host, portal: Portal) -> None:
        super().__init__(inner, portal)
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self._inner.name

    @property
    def is_local(self) -> bool:
        """See `Host.is_local`."""
        return self._inner.is_local

    guests = blocking(Host.guests)
    look = blocking(Host.look)
    events = iterating(Host.events)
    unusable = blocking(Host.unusable)
    version = blocking(Host.version)
    may_have_ports = blocking(Host.may_have_ports)
    is_guestwire = blocking(Host.is_guestwire)
    may_run = blocking(Host.may_run)
    raw = blocking(Host.raw)

    def guest(self, name: str | int) -> SyncGuest:
        """See `Host.guest`."""
        return SyncGuest(self._portal.wait(lambda: self._inner.guest(name)), self._portal)

    def close(self) -> None:
        """Ends connections, and calls that are under way in other threads.

        Raises:
            HostClosed: it is called from within a call of this very host.
        """
        self._portal.close(self._inner.close)
        atexit.unregister(self.close)


def connect_sync(target: str | None = None, *, profile: str | None = None, **options: str | bool | None) -> SyncHost:
    """As `connect`, for code that does not run in an event loop."""
    portal = Portal()
    try:
        return SyncHost(portal.wait(lambda: connect(target, profile=profile, **options)), portal)
    except BaseException:
        portal.close()
        raise
