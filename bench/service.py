"""The service under test: the command `guestwire serve`, in a process of its own, with its own certificate and token."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.https import NODE, Address

START_TIMEOUT: Final = 20.0
STOP_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Vm:
    """What the service shall serve."""

    vmid: int
    agent: Path
    qmp: Path | None = None

    def __str__(self) -> str:
        qmp = f'qmp = "unix:{self.qmp}"\n' if self.qmp else ""
        return f'[[vm]]\nvmid = {self.vmid}\nagent = "unix:{self.agent}"\n{qmp}'


@dataclass(slots=True)
class Service:
    """A service that runs; `log` is the file that it writes to, from all its starts."""

    address: Address
    log: Path
    command: Sequence[str]
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """Of the process, another one after each start."""
        return self.process.pid

    def memory(self, field: str) -> float:
        """See `memory_of`."""
        return memory_of(self.pid, field)

    async def restart(self, *, kill: bool = False, away: float = 0.0) -> None:
        """Ends it, as systemd does or at once, and starts it again `away` seconds later; returns when it listens."""
        if kill:
            self.process.kill()
        await _stop(self.process)
        await asyncio.sleep(away)
        self.process = await _start(self.command, self.log)
        await _wait(self.process, self.address.port, self.log)


def memory_of(pid: int, field: str) -> float:
    """`VmHWM` (the highest there was) or `VmRSS` (now) of a process in MB; 0 for one that is ending.

    Raises:
        OSError: there is no such process.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    return 0.0


def holdings_of(pid: int) -> dict[str, float]:
    """What a process holds now: `MB` of memory, and `fds`, the number of its descriptors.

    Raises:
        OSError: there is no such process.
    """
    return {"MB": memory_of(pid, "VmRSS"), "fds": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())}


@contextlib.asynccontextmanager
async def serve(folder: Path, vms: Sequence[Vm], *, limited: bool = False, more: str = "") -> AsyncIterator[Service]:
    """Starts the service, waits until it listens, and ends it; `limited` to what Proxmox VE has, `more` is configured."""
    port = free_port()
    state = folder / "state"
    config = folder / "guestwire.toml"
    server = f'[server]\nlisten = "127.0.0.1:{port}"\nnode = "{NODE}"\nstate_dir = "{state}"\n'
    config.write_text("\n".join((server, more, *map(str, vms))))
    module = ["guestwire.testing.limited"] if limited else ["guestwire", "serve", "--config"]
    command = [sys.executable, "-m", *module, str(config)]
    log = folder / "server.log"
    process = await _start(command, log)
    address = Address(port, "", state / "server.pem")
    service = Service(address, log, command, process)
    try:
        await _wait(process, port, log)
        service.address = replace(address, token=(state / "admin-token").read_text().strip())
        yield service
    finally:
        await _stop(service.process)


async def _start(command: Sequence[str], log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)


async def _wait(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)
    raise BenchError(f"the service did not start: {_end(log)}")


def _end(log: Path) -> str:
    return log.read_text()[-800:].strip()


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it may have been killed, and not yet been seen to end
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
