"""`python -m bench.whole [--mib N] [--vm-mib N] [--kills N] [--only …]`: large files both ways, over every way to a guest, whole, fast enough, and in little memory.

The raw socket reads and writes by handle, without checking anything. Each copy is a process of its own, `guestwire cp`: what it costs to start and to
check is part of its time. Then it is killed at random moments, and started again. With `--only vm` the agent is in a real VM, and nothing is killed.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.table import Table

from bench.agent_socket import AgentSocket
from bench.errors import BenchError
from bench.service import Service, Vm, memory_of, serve
from devtools.guests import Machine, accelerator, build, default_cache
from guestwire.testing.sandbox import SandboxedAgent

MIB: Final = 1024 * 1024
VMID: Final = 100
RAW_PIECES: Final = (64 * 1024, 256 * 1024, MIB)
RAW_MIB: Final = 64
VM_RAW_MIB: Final = 16
OLD: Final = b"old"
LOOK_EVERY: Final = 0.02
"""Seconds between two looks at a process's memory."""

TO: Final = "to the guest"
FROM: Final = "from the guest"
WAYS: Final = ("unix", "guestwire", "limited")
VM: Final = "vm"


@dataclass(frozen=True, slots=True)
class Way:
    """To one agent: what stands before the command, and the service between."""

    name: str
    options: list[str]
    service: Service | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandboxed(Way):
    """To an agent whose files can be seen from here."""

    agent: SandboxedAgent


@dataclass(frozen=True, slots=True)
class Copy:
    """What one copy took."""

    seconds: float
    memory: float


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.whole", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument(
        "--limited-mib", type=int, default=64, help="and with what Proxmox VE has, where each 64 KiB is a process"
    )
    parser.add_argument("--kills", type=int, default=20, help="times that each copy is killed")
    parser.add_argument("--kill-mib", type=int, default=128, help="size of the file that is copied when it is killed")
    parser.add_argument("--vm-mib", type=int, default=64, help="size of the file, with a real VM")
    parser.add_argument("--only", choices=(*WAYS, VM), action="append", help="only this way")
    asyncio.run(_measure(parser.parse_args()))


async def _measure(options: argparse.Namespace) -> None:
    table = Table(
        "way", "direction", "MiB", "MB/s", "raw socket, MB/s", "ratio", "client, MB", "service, MB", "killed and whole"
    )
    with tempfile.TemporaryDirectory(prefix="gw-bench-") as name:
        folder = Path(name)
        _write_random(folder / "raw", RAW_MIB)
        async with SandboxedAgent(folder / "raw.qga") as raw:
            for way in options.only or (*WAYS, VM):
                if way == VM:
                    await _in_vm(table, folder, options)
                    continue
                async with _way(way, folder) as reached:
                    await asyncio.to_thread(_rows, table, reached, raw, options)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@contextlib.asynccontextmanager
async def _way(name: str, above: Path) -> AsyncIterator[Sandboxed]:
    folder = above / name
    folder.mkdir()
    async with SandboxedAgent(folder / "web.qga", name="web") as agent:
        if name == "unix":
            yield Sandboxed(name, _to_socket(agent.socket), agent=agent)
            return
        async with serve(folder, [Vm(VMID, agent.socket)], limited=name == "limited") as service:
            yield Sandboxed(name, _to_service(service, folder), service, agent=agent)


def _to_socket(socket: Path) -> list[str]:
    return ["--host", f"unix:{socket}"]


def _to_service(service: Service, folder: Path) -> list[str]:
    (folder / "token").write_text(service.address.token)
    (folder / "token").chmod(0o600)
    target = ["--host", f"https://127.0.0.1:{service.address.port}", "--token-file", str(folder / "token")]
    return [*target, "--ca", str(service.address.certificate)]


async def _in_vm(table: Table, above: Path, options: argparse.Namespace) -> None:
    """The same with a real VM, whose files are kept in its memory."""
    folder = above / VM
    folder.mkdir()
    image = await asyncio.to_thread(build, default_cache())
    async with Machine(image, folder, vmid=VMID, accel=await accelerator(image)) as machine:
        await machine.wait_for_agent()
        _write_random(folder / "raw", VM_RAW_MIB)
        rates = await asyncio.to_thread(_raw_rates, machine.agent_socket, folder / "raw")
        for name in WAYS:
            await machine.shell("rm -f /root/raw /root/copied")  # two of them are more than it has room for
            async with contextlib.AsyncExitStack() as stack:
                way = Way(f"{name}, VM", _to_socket(machine.agent_socket))
                if name != "unix":
                    vm = Vm(VMID, machine.agent_socket, machine.qmp_socket)
                    service = await stack.enter_async_context(serve(folder, [vm], limited=name == "limited"))
                    way = Way(f"{name}, VM", _to_service(service, folder), service)
                await asyncio.to_thread(_both_ways, table, way, folder, rates, options.vm_mib)


def _both_ways(table: Table, way: Way, folder: Path, rates: dict[str, float], mib: int) -> None:
    source, back, guest = folder / "source", folder / "back", f"{VMID}:/root/copied"
    _write_random(source, mib)
    back.unlink(missing_ok=True)
    for direction, words in ((TO, (str(source), guest)), (FROM, (guest, str(back)))):
        _add_row(table, way, direction, mib, _copied(way, words), rates[direction])
    _compare(source, back)


def _rows(table: Table, way: Sandboxed, raw: SandboxedAgent, options: argparse.Namespace) -> None:
    mib = min(options.mib, options.limited_mib) if way.name == "limited" else options.mib
    folder = way.agent.socket.parent
    source, back, guest = folder / "source", folder / "back", f"{VMID}:/root/copied"
    _write_random(source, mib)
    rates = _raw_rates(raw.socket, raw.socket.parent / "raw")
    for direction, words, target in (
        (TO, (str(source), guest), way.agent.home / "copied"),
        (FROM, (guest, str(back)), back),
    ):
        copy = _copied(way, words)
        _compare(source, target)
        kills = _killed(way, direction, options) if options.kills else ""
        _add_row(table, way, direction, mib, copy, rates[direction], kills)


def _add_row(table: Table, way: Way, direction: str, mib: int, copy: Copy, rate: float, kills: str = "") -> None:  # noqa: PLR0917  # its columns
    service = f"{way.service.memory('VmHWM'):.0f}" if way.service else ""
    found = mib * MIB / 1e6 / copy.seconds
    table.add_row(
        way.name, direction, str(mib), f"{found:.3g}", f"{rate:.3g}", f"{found / rate:.2f}", f"{copy.memory:.0f}", service, kills
    )  # fmt: skip


def _compare(one: Path, other: Path) -> None:
    if subprocess.run(["cmp", "--silent", one, other], check=False).returncode:
        raise BenchError(f"{other} is not the same as {one}")


def _write_random(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))


def _raw_rates(socket: Path, file: Path) -> dict[str, float]:
    return {direction: _raw_rate(socket, file.read_bytes(), direction) for direction in (TO, FROM)}


def _raw_rate(socket: Path, content: bytes, direction: str) -> float:
    """MB a second on the agent's own socket, with the pieces that are fastest."""
    seconds = []
    with AgentSocket(socket) as raw:
        for piece in RAW_PIECES:
            began = time.perf_counter()
            if direction == TO:
                raw.write_file("/root/raw", content, piece)
            else:
                raw.read_file("/root/raw", piece)
            seconds.append(time.perf_counter() - began)
    return len(content) / 1e6 / min(seconds)


def _copied(way: Way, words: Sequence[str]) -> Copy:
    _say(f"{way.name}: cp {' '.join(words)}")
    began, memory = time.perf_counter(), 0.0
    process = _cp(way, words)
    while process.poll() is None:
        memory = max(memory, memory_of(process.pid, "VmHWM"))
        time.sleep(LOOK_EVERY)
    if process.returncode:
        raise BenchError(f"guestwire cp ended with {process.returncode}")
    return Copy(time.perf_counter() - began, memory)


def _cp(way: Way, words: Sequence[str], stderr: IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "guestwire", *way.options, "cp", *words]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)


def _killed(way: Sandboxed, direction: str, options: argparse.Namespace) -> str:
    """Kills copies at random moments, each of which goes on with what the one before left; the old file is whole all the time."""
    folder, home = way.agent.socket.parent, way.agent.home
    source = folder / "killed-source" if direction == TO else home / "killed-source"
    target = home / "killed" if direction == TO else folder / "killed"
    words = (str(source), f"{VMID}:/root/killed") if direction == TO else (f"{VMID}:/root/killed-source", str(target))
    _write_random(source, options.kill_mib if way.name != "limited" else min(16, options.kill_mib))
    longest = _copied(way, words).seconds
    kills = resumed = 0
    while kills < options.kills:
        target.write_bytes(OLD)
        killed, went_on = _kill(way, words, random.uniform(0.1, longest))
        kills, resumed = kills + killed, resumed + went_on
        if killed and target.read_bytes() != OLD:  # killed at the very end, with the new one in its place
            _compare(source, target)
    _copied(way, words)
    _compare(source, target)
    if left := [path for place in (folder, home) for path in place.glob(".guestwire-*")]:
        raise BenchError(f"{way.name}, {direction}: left over: {left}")
    return f"{kills} kills, {resumed} went on"


def _kill(way: Way, words: Sequence[str], after: float) -> tuple[bool, bool]:
    """Whether it was killed before its end, and whether it had gone on with what was there."""
    with tempfile.TemporaryFile() as said:
        process = _cp(way, words, said)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        process.kill()
        code = process.wait()
        said.seek(0)
        return code == -signal.SIGKILL, b"goes on" in said.read()


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
