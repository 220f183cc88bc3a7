"""One small guest in QEMU: boots it, wakes it, looks into it without its agent, and leaves nothing behind."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

from devtools.guests.image import GuestImage
from guestwire.channels.port_keeper import PERIPHERAL, PREFIX
from guestwire.errors import GuestImageError

EMULATION: Final = "tcg"
KVM: Final = "kvm"

MAX_SOCKET_PATH: Final = 107
DATA_DISK: Final = 64 * 1024 * 1024
SWAP_DISK: Final = 512 * 1024 * 1024
TOOL_TIMEOUT: Final = 30.0
READY: Final = b'{"execute":"guest-sync-delimited","arguments":{"id":%d}}\n'


class Machine:
    """A VM of our own. `async with` starts it and stops it; its disks stay in `folder` between starts.

    Args:
        image: what to boot.
        folder: for disks, sockets and logs; its path must be short, for sockets' names are.
        vmid: names the sockets.
        accel: `tcg` or `kvm`; `accelerator` tells what boots on this host.
        has_channel: with the port of the guest's agent.
        forward: ports of this machine, each with the guest's that it leads to.
    """

    def __init__(
        self,
        image: GuestImage,
        folder: Path,
        *,
        vmid: int = 100,
        accel: str = EMULATION,
        has_channel: bool = True,
        forward: Mapping[int, int] | None = None,
    ) -> None:
        self.vmid = vmid
        self.agent_socket = folder / f"{vmid}.qga"
        self.qmp_socket = folder / f"{vmid}.qmp"
        self.serial_log = folder / f"{vmid}.log"
        self._image = image
        self._folder = folder
        self._accel = accel
        self._has_channel = has_channel
        self.own_qmp_socket = folder / f"{vmid}.own"
        self._shell_socket = folder / f"{vmid}.tty"
        self._data = folder / f"{vmid}.data"
        self._swap = folder / f"{vmid}.swap"
        self._forward = forward or {}
        self._process: asyncio.subprocess.Process | None = None
        self._shell_lock = asyncio.Lock()
        if len(str(self._shell_socket).encode()) > MAX_SOCKET_PATH:
            raise GuestImageError(f"{folder}: the path is too long for sockets, {MAX_SOCKET_PATH} bytes at most")

    @property
    def running(self) -> bool:
        """True if QEMU runs."""
        return self._process is not None and self._process.returncode is None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, within: float = 20.0) -> None:
        """Starts QEMU; `wait_for_agent` waits for the guest, where nobody else is connected to its agent.

        Raises:
            GuestImageError: QEMU does not come up within that many seconds.
        """
        if self.running:
            raise GuestImageError(f"VM {self.vmid} runs already")
        await self._make_disks()
        for path in (self.agent_socket, self.qmp_socket, self.own_qmp_socket, self._shell_socket):
            path.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", *self.command(),
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await self._wait(self._monitor_answers, within, "no answer from QEMU")
        except BaseException:
            await self.stop()
            raise

    def command(self) -> list[str]:
        """QEMU's command line."""

        def server(path: Path) -> str:
            return f"path={path},server=on,wait=off"

        return [
            "qemu-system-x86_64", "-name", f"guestwire-{self.vmid}", "-machine", "pc", "-accel", self._accel,
            "-m", f"{512 if self._image.disk else 320},slots=2,maxmem=2G", "-smp", "2,maxcpus=4", "-nodefaults", "-no-user-config", "-display", "none",
            "-global", "PIIX4_PM.disable_s3=0", "-global", "PIIX4_PM.disable_s4=0",
            "-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs),
            "-append", "console=ttyS0 quiet panic=-1",
            "-drive", f"file={self._data},if=none,id=data,format=raw,discard=unmap", "-device", "virtio-blk-pci,drive=data",
            "-drive", f"file={self._swap},if=none,id=swap,format=raw,discard=unmap", "-device", "virtio-blk-pci,drive=swap",
            *self._root_disk(),
            *self._network(),
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,{server(self.agent_socket)}",
            *(["-device", "virtserialport,id=agent-port,chardev=agent,name=org.qemu.guest_agent.0"] if self._has_channel else []),
            "-device", "virtio-rng-pci",
            "-chardev", f"socket,id=qmp,{server(self.qmp_socket)}", "-mon", "chardev=qmp,mode=control",
            "-chardev", f"socket,id=own,{server(self.own_qmp_socket)}", "-mon", "chardev=own,mode=control",
            "-serial", f"file:{self.serial_log}", "-chardev", f"socket,id=shell,{server(self._shell_socket)}", "-serial", "chardev:shell",
        ]  # fmt: skip

    def _root_disk(self) -> list[str]:
        if not self._image.disk:
            return []
        drive = f"file={self._image.disk},if=none,id=root,format=raw,snapshot=on"
        return ["-drive", drive, "-device", "virtio-blk-pci,drive=root,serial=root"]

    def _network(self) -> list[str]:
        """A guest with a disk of its own has a network card only where ports are forwarded to it."""
        if self._image.disk and not self._forward:
            return []
        forward = "".join(f",hostfwd=tcp:127.0.0.1:{own}-:{port}" for own, port in self._forward.items())
        return ["-netdev", f"user,id=net,restrict=on{forward}", "-device", "virtio-net-pci,netdev=net,romfile="]

    async def wait_for_agent(self, within: float = 60.0) -> None:
        """Waits until the agent answers a sync, on a connection of its own that is closed again.

        Raises:
            GuestImageError: it does not within that many seconds.
        """
        await self._wait(self._agent_answers, within, "no answer from its agent")

    async def _wait(self, answers: Callable[[], Awaitable[bool]], within: float, problem: str) -> None:
        try:
            async with asyncio.timeout(within):
                while not await answers():
                    if not self.running:
                        raise GuestImageError(f"VM {self.vmid}: QEMU has ended: {await self._last_words()}")
                    await asyncio.sleep(0.05)  # its socket is not there yet
        except TimeoutError:
            raise GuestImageError(f"VM {self.vmid}: {problem} in {within:g} seconds; {self._log_end()}") from None

    async def wake(self, within: float = 30.0) -> None:
        """Wakes a guest that is suspended to RAM; waits until it is.

        Raises:
            GuestImageError: QEMU did not take it in time.
        """
        async with self._monitor() as monitor, asyncio.timeout(within):
            await _until_suspended(monitor)
            await monitor.execute("system_wakeup")

    async def reset(self) -> None:
        """Presses the reset button."""
        async with self._monitor() as monitor:
            await monitor.execute("system_reset")

    async def plugged_in(self) -> list[str]:
        """What guestwire has plugged into it, as QEMU itself says: the ids of chardevs and of devices."""
        async with self._monitor() as monitor:
            chardevs: Any = await monitor.execute("query-chardev")
            devices: Any = await monitor.execute("qom-list", {"path": PERIPHERAL})
        found = [str(one["label"]) for one in chardevs] + [str(one["name"]) for one in devices]
        return [name for name in found if name.startswith(PREFIX)]

    @contextlib.asynccontextmanager
    async def with_disk(self, name: str, port: int) -> AsyncIterator[None]:
        """Plugs a disk in that is served over NBD on this machine; it is pulled out at the end, when nothing may use it any more.

        Raises:
            GuestImageError: it can't be had, or is still there a while later.
        """
        server = {"type": "inet", "host": "127.0.0.1", "port": str(port)}
        device = {"driver": "virtio-blk-pci", "drive": name, "id": name, "serial": name}
        async with self._monitor() as monitor:
            await monitor.execute("blockdev-add", {"driver": "nbd", "node-name": name, "server": server})
            await monitor.execute("device_add", device)
        yield
        async with self._monitor() as monitor, asyncio.timeout(30):
            with monitor.listener("DEVICE_DELETED") as events:
                await monitor.execute("device_del", {"id": name})
                while cast("dict[str, Any]", (await events.get())["data"]).get("device") != name:
                    pass
            await monitor.execute("blockdev-del", {"node-name": name})

    async def wait_exit(self, within: float = 60.0) -> None:
        """Waits until QEMU has ended by itself.

        Raises:
            GuestImageError: it has not within that many seconds.
        """
        if self._process:
            try:
                async with asyncio.timeout(within):
                    await self._process.wait()
            except TimeoutError:
                raise GuestImageError(
                    f"VM {self.vmid} still runs after {within:g} seconds; {self._log_end()}"
                ) from None

    async def stop(self) -> None:
        """Ends QEMU, the hard way if it must be."""
        if not self._process:
            return
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if self.running:
                self._process.send_signal(signum)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await self._process.wait()
        self._process = None

    async def shell(self, command: str, within: float = 60.0) -> str:
        """Runs a shell command in the guest without its agent, over the second serial line; returns what it wrote.

        Raises:
            GuestImageError: it failed, or did not end in time.
        """
        mark = secrets.token_hex(8)
        async with self._shell_lock:
            try:
                async with asyncio.timeout(within):
                    output, status = await self._on_console(command, mark)
            except TimeoutError:
                raise GuestImageError(f"VM {self.vmid}: no end of `{command}` in {within:g} seconds") from None
        if status:
            raise GuestImageError(f"VM {self.vmid}: `{command}` ended with {status}: {output[-500:]}")
        return output

    async def _on_console(self, command: str, mark: str) -> tuple[str, int]:
        reader, writer = await asyncio.open_unix_connection(self._shell_socket, limit=2**20)
        try:
            await _greet(reader, writer)
            half, rest = mark[:8], mark[8:]
            writer.write(f"( {command}\n) 2>&1; s=$?; echo; echo {half}''{rest} $s\n".encode())
            seen = await reader.readuntil(f"\n{mark} ".encode())
            status = int(await reader.readline())
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        text = seen.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix(f"\n{mark} ").removesuffix("\n")
        return _without_prompt(text), status

    async def pause_agent(self) -> None:
        """Stops the guest's agent where it is."""
        await self.shell("kill -STOP $(pidof qemu-ga)")

    async def resume_agent(self) -> None:
        """Lets it go on."""
        await self.shell("kill -CONT $(pidof qemu-ga)")

    @contextlib.asynccontextmanager
    async def _monitor(self) -> AsyncIterator[QMPClient]:
        client = QMPClient(f"VM {self.vmid}")
        try:
            async with asyncio.timeout(10):
                await client.connect(str(self.own_qmp_socket))
            yield client
        except (ConnectError, ExecuteError, TimeoutError) as error:
            raise GuestImageError(f"VM {self.vmid}: QMP: {error!r}") from error
        finally:
            with contextlib.suppress(QMPError, EOFError, OSError):
                await client.disconnect()

    async def _monitor_answers(self) -> bool:
        with contextlib.suppress(GuestImageError):
            async with self._monitor():
                return True
        return False

    async def _agent_answers(self) -> bool:
        number = secrets.randbelow(2**31)
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_unix_connection(self.agent_socket)
                try:
                    writer.write(b"\xff" + READY % number)
                    await reader.readuntil(b'\xff{"return": %d' % number)
                    await reader.readline()
                    return True
                finally:
                    writer.close()
        return False

    async def _make_disks(self) -> None:
        if not self._data.exists():
            await self._make_disk(self._data, DATA_DISK, "mkfs.ext4", "-q", "-F", "-L", "data")
        if not self._swap.exists():
            await self._make_disk(self._swap, SWAP_DISK, "mkswap")

    async def _make_disk(self, path: Path, size: int, *tool: str) -> None:
        unfinished = path.with_suffix(".new")
        with unfinished.open("wb") as file:
            os.ftruncate(file.fileno(), size)
        await _run(*tool, str(unfinished))
        unfinished.rename(path)

    async def _last_words(self) -> str:
        stderr = self._process.stderr if self._process else None
        return (await stderr.read(2000)).decode("utf-8", "replace").strip() if stderr else self._log_end()

    def _log_end(self) -> str:
        text = self.serial_log.read_text("utf-8", "replace") if self.serial_log.exists() else ""
        return f"the end of its serial log: {text[-400:].strip() or '(nothing)'}"


async def _until_suspended(monitor: QMPClient) -> None:
    with monitor.listener("SUSPEND") as events:
        status = cast("dict[str, Any]", await monitor.execute("query-status"))
        if status["status"] != "suspended":
            await events.get()


async def _run(*command: str) -> None:
    """Runs a tool that makes a disk; those of the system's administrator are found, too."""
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise GuestImageError(f"the program {command[0]} is missing; `./dev setup` installs what is needed") from error
    async with asyncio.timeout(TOOL_TIMEOUT):
        _, stderr = await process.communicate()
    if process.returncode:
        raise GuestImageError(f"{command[0]} failed: {stderr.decode('utf-8', 'replace').strip()}")


def _without_prompt(text: str) -> str:
    """The shell's own prompts stand at the beginning of lines that it read."""
    return "\n".join(
        line.removeprefix("~ # ").removeprefix("/ # ").removeprefix("> ") for line in text.split("\n")
    ).strip("\n")


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Waits for the shell on a serial line. What was written before it was there is lost, so it is greeted until it answers."""
    while True:
        # The mark is written in two halves, so that the echo of this line is not taken for it.
        half, rest = secrets.token_hex(4), secrets.token_hex(4)
        writer.write(f"\nstty -echo; echo {half}''{rest}\n".encode())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                await reader.readuntil(f"{half}{rest}\r\n".encode())
                return
