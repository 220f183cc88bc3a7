"""A real guest agent, alone in a sandbox: no VM around it, and nothing of the host can be changed from inside.

Needs the programs qemu-ga and bwrap (Debian: qemu-guest-agent, bubblewrap).
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from guestwire.errors import GuestImageError

HARMFUL: Final = (
    "guest-shutdown",
    "guest-suspend-ram",
    "guest-suspend-disk",
    "guest-suspend-hybrid",
    "guest-set-time",
    "guest-set-vcpus",
    "guest-set-memory-blocks",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-freeze-list",
)
"""Commands that would reach the host's kernel; always disabled."""

START_TIMEOUT: Final = 10.0

MEMORY: Final = Path("/dev/shm")  # noqa: S108  # the file system in memory that every Linux has, not a file's name

SMALL: Final = 1024 * 1024
"""Bytes of the file system at /small: what happens when a disk is full can be seen there."""

_COPIED: Final = ("os-release", "ld.so.cache", "pam.d", "security", "login.defs", "nsswitch.conf")


def missing_programs() -> list[str]:
    """The programs that a sandbox needs and this host lacks."""
    return [program for program in ("qemu-ga", "bwrap") if not shutil.which(program, path=_path())]


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class SandboxedAgent:
    """`async with` starts it; it is started again when it ends, as it does when a client hangs up in mid-answer.

    Args:
        socket: where it listens; its folder must be there.
        name: its host name.
        blocked: commands that are disabled, beside the harmful ones.

    Attributes:
        home: on this machine, the folder that is its /root.
        etc: the same of its /etc; what it reads at its start there counts after `kill`.
    """

    def __init__(self, socket: Path, *, name: str = "guest", blocked: Iterable[str] = ()) -> None:
        self.socket = socket
        self._name = name
        self._blocked = ",".join((*HARMFUL, *blocked))
        self._folder = Path(tempfile.mkdtemp(prefix="gw-sandbox-"))
        self.home, self.etc = self._folder / "root", self._folder / "etc"
        # The agent writes its state, and waits until it is safe, each time it opens a file. In a guest that is below
        # /run, in memory; on a disk, opening would take longer than reading a megabyte.
        self._state = Path(tempfile.mkdtemp(prefix="gw-state-", dir=MEMORY if MEMORY.is_dir() else None))
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._furnish()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"keep {self._name}")
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not self.socket.is_socket():
                    if self._keeper.done():
                        await self._keeper
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.stop()
            raise GuestImageError(f"qemu-ga did not come up in a sandbox in {START_TIMEOUT:g} seconds") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def answers(self, within: float = START_TIMEOUT) -> bool:
        """Waits until it answers a client; false when it does not in time.

        It serves one at a time, and ends with one that hangs up in mid-answer.
        """
        try:
            async with asyncio.timeout(within):
                while not await self._answers():  # noqa: ASYNC110  # only asking tells
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def _answers(self) -> bool:
        number = secrets.randbelow(2**31)
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        try:
            writer.write(b'\xff{"execute":"guest-sync-delimited","arguments":{"id":%d}}\n' % number)
            await reader.readuntil(b'\xff{"return": %d}\n' % number)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return False
        finally:
            writer.close()
        return True

    async def stop(self) -> None:
        """Ends it, and removes its folder."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._state, ignore_errors=True)

    async def kill(self) -> None:
        """Ends the agent at once; it comes up again by itself."""
        if self._process and self._process.returncode is None:
            self._signal(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            async with asyncio.timeout(START_TIMEOUT):
                await self._process.wait()

    def pause(self) -> None:
        """Stops the agent where it is."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)

    def handles(self, below: str = "/root/") -> list[str]:
        """Paths that the agent has open now, of those that begin so; its home's."""
        found = []
        for pid in self._pids():
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.append(str(link.readlink()))
        return [path for path in found if path.startswith(below)]

    def bytes_read(self) -> int:
        """The number of bytes that the agent has read; it grows with every request that arrives."""
        facts = (line for pid in self._pids() for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        return sum(int(line.removeprefix("rchar: ")) for line in facts if line.startswith("rchar: "))

    def _signal(self, signum: signal.Signals) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def _pids(self) -> list[int]:
        """The agent's processes on the host: bwrap's descendants of that name."""
        if not self._process or self._process.returncode is not None:
            return []
        return [pid for pid in _descendants(self._process.pid) if _command(pid) == "qemu-ga"]

    async def _keep(self) -> None:
        while True:
            self.socket.unlink(missing_ok=True)
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL, env=os.environ | {"PATH": _path()},
            )  # fmt: skip
            await self._process.wait()
            await asyncio.sleep(0.1)

    def _command(self) -> list[str]:
        return [
            "bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--die-with-parent", "--hostname", self._name,
            "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/sbin", "/sbin",
            "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
            "--bind", str(self.etc), "/etc", "--bind", str(self.home), "/root", "--bind", str(self._state), "/state",
            "--bind", str(self.socket.parent), "/qga", "--ro-bind", "/sys", "/sys", "--proc", "/proc", "--dev", "/dev",
            "--tmpfs", "/tmp", "--tmpfs", "/run", "--size", str(SMALL), "--tmpfs", "/small", "--chdir", "/", "--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin",  # noqa: S108  # inside the sandbox
            "sh", "-c", 'trap "" PIPE; exec qemu-ga -m unix-listen -p "$0" -t /state -b "$1"', f"/qga/{self.socket.name}", self._blocked,
        ]  # fmt: skip

    def _furnish(self) -> None:
        for name in ("root", "etc"):
            (self._folder / name).mkdir(mode=0o755, exist_ok=True)
        self._folder.chmod(0o755)
        etc = self.etc
        for name in _COPIED:
            source = Path("/etc") / name
            if source.is_dir():
                shutil.copytree(source, etc / name, dirs_exist_ok=True, ignore_dangling_symlinks=True)
            elif source.exists():
                shutil.copyfile(source, etc / name)
        (etc / "hostname").write_text(f"{self._name}\n")
        (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nlabuser:x:1000:1000::/home/labuser:/bin/sh\n")
        (etc / "shadow").write_text("root:*:19000:0:99999:7:::\nlabuser:*:19000:0:99999:7:::\n")
        (etc / "group").write_text("root:x:0:\nlabuser:x:1000:\n")


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return [*children, *(grandchild for child in children for grandchild in _descendants(child))]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
