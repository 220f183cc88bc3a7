"""Connects to a host: `connect` for code in an event loop, `connect_sync` for any other."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from guestwire.client.endpoints_sync import SyncEndpoints
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host
from guestwire.client.parts import GuestInfo
from guestwire.client.processes import Ended
from guestwire.client.settings import Settings, settings_for
from guestwire.client.targets import Unix, parse_target
from guestwire.errors import ConfigurationError

if TYPE_CHECKING:
    from guestwire.client.files import Progress

T = TypeVar("T")


async def connect(target: str | None = None, *, profile: str | None = None, **given: str | bool | None) -> Host:
    """Makes a host, which `async with` closes. Nothing is sent before the first call.

    Args:
        target: `https://host:8006` (Proxmox VE or guestwire) or `unix:/path/to.qga`; default: GUESTWIRE_HOST, or the profile's.
        profile: a table in `~/.config/guestwire/config.toml`.
        given: `token`, `token_file`, `user`, `password`, `ca`, `fingerprint`, `verify`; see `client.settings`.

    Raises:
        ConfigurationError: what is given can't be used.
    """
    return open_host(settings_for({"host": target, **given}, profile=profile))


def open_host(settings: Settings) -> Host:
    """The host that the settings name; to be called where an event loop runs.

    Raises:
        ConfigurationError: they name none, or something can't be used.
    """
    if not settings.host:
        raise ConfigurationError("no host; give --host, set GUESTWIRE_HOST, or write a profile")
    target = parse_target(settings.host)
    # Either takes a tenth of a second to load; nobody waits for both.
    if isinstance(target, Unix):
        from guestwire.client.carriers.direct import DirectCarrier  # noqa: PLC0415

        carrier = DirectCarrier(target)
        return Host(carrier, only_guest=carrier.guest)
    from guestwire.client.carriers.https import HttpsCarrier  # noqa: PLC0415

    return Host(HttpsCarrier(target, settings.credentials(), settings.trust()))


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="guestwire", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; interrupted, it is cancelled first."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Ends the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncGuest(SyncEndpoints):
    """A guest for code that does not run in an event loop: the same methods, each of which waits."""

    guest: Guest

    def run(self, argv: list[str], **options: Any) -> Ended:
        """See `Processes.run`."""
        return self.wait(self.guest.run(argv, **options))

    def wait_ready(self, timeout: float = 120.0) -> None:
        """See `Guest.wait_ready`."""
        self.wait(self.guest.wait_ready(timeout))

    def power_off(self, *, wait: float | None = None) -> None:
        """See `Guest.power_off`."""
        self.wait(self.guest.power_off(wait=wait))

    @contextmanager
    def frozen(self) -> Iterator[int]:
        """See `Guest.frozen`."""
        context = self.guest.frozen()
        count = self.wait(context.__aenter__())
        try:
            yield count
        finally:
            self.wait(context.__aexit__(None, None, None))

    def read_file(self, path: str) -> bytes:
        """See `Files.read`."""
        return self.wait(self.guest.files.read(path))

    def write_file(self, path: str, data: bytes) -> None:
        """See `Files.write`."""
        self.wait(self.guest.files.write(path, data))

    def copy_to(self, source: Path, path: str, *, progress: "Progress | None" = None) -> int:
        """See `Files.copy_to`."""
        return self.wait(self.guest.files.copy_to(source, path, progress=progress))

    def copy_from(self, path: str, target: Path, *, progress: "Progress | None" = None) -> int:
        """See `Files.copy_from`."""
        return self.wait(self.guest.files.copy_from(path, target, progress=progress))


class SyncHost:
    """A host for code that does not run in an event loop; `with` closes it."""

    def __init__(self, loop: _Loop, host: Host) -> None:
        self._loop = loop
        self._host = host

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends connections."""
        self._loop.wait(self._host.close())
        self._loop.close()

    def guests(self) -> list[GuestInfo]:
        """See `Host.guests`."""
        return self._loop.wait(self._host.guests())

    def guest(self, name: str | int) -> SyncGuest:
        """See `Host.guest`."""
        return SyncGuest(self._loop.wait(self._host.guest(name)), self._loop.wait)

    def raw(self, method: str, path: str, /, **parameters: Any) -> Any:
        """See `Host.raw`."""
        return self._loop.wait(self._host.raw(method, path, **parameters))


def connect_sync(target: str | None = None, *, profile: str | None = None, **given: str | bool | None) -> SyncHost:
    """As `connect`, for code that does not run in an event loop."""
    loop = _Loop()
    try:
        return SyncHost(loop, loop.wait(connect(target, profile=profile, **given)))
    except BaseException:
        loop.close()
        raise
