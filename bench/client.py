"""The client: what its calls, copies and commands cost above the raw socket, over every way to a guest."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.agent_socket import PING, AgentSocket
from bench.errors import BenchError
from bench.results import CLIENT, CLIENT_VM, Row
from bench.service import Service, Vm, serve
from bench.timing import Effort, Samples, timed, timed_async
from devtools.guests import GuestImage, Machine
from guestwire.client import Guest, Host, connect
from guestwire.client.carriers.base import Carrier
from guestwire.client.carriers.https import HttpsCarrier
from guestwire.client.errors import ErrorContext
from guestwire.client.settings import Credentials, Https, Trust
from guestwire.contract.guest_events import Event
from guestwire.streams.remote_process import RemoteProcess
from guestwire.testing.sandbox import SandboxedAgent

MIB: Final = 1024 * 1024
VMID: Final = 100
PIECE: Final = 64 * 1024
COPIED: Final = 64 * MIB
COPIED_LIMITED: Final = 4 * MIB
RAW_PIECES: Final = (PIECE, 256 * 1024, MIB)

NEAR: Final = 1.2
"""Times the raw socket that a call over `unix:` may take."""

SHARE: Final = 0.5
"""Of the raw socket's rate that copying through guestwire must reach."""

SAME_CALLS: Final = 1.5
"""Times the same calls, one after the other, that copying with what Proxmox VE has may take."""

MORE_CALLS: Final = 2
COLD: Final = 150
"""Milliseconds."""


@dataclass
class Recorder:
    """A carrier that keeps what it carried."""

    carrier: Carrier
    calls: list[tuple[str, str, Mapping[str, Any], Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """See `Carrier.name`."""
        return self.carrier.name

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        context: ErrorContext,
        *,
        repeatable: bool = False,
        as_bytes: bool = False,
    ) -> Any:
        """See `Carrier.call`."""
        result = await self.carrier.call(method, path, parameters, context, repeatable=repeatable, as_bytes=as_bytes)
        self.calls.append((method, path, parameters, result))
        return result

    def events(self, path: str, context: ErrorContext) -> AsyncGenerator[Event | None, None]:
        """See `Carrier.events`."""
        return self.carrier.events(path, context)

    async def start(
        self, path: str, parameters: Mapping[str, Any], secrets: Mapping[str, Any], context: ErrorContext
    ) -> RemoteProcess:
        """See `Carrier.start`."""
        return await self.carrier.start(path, parameters, secrets, context)

    @property
    def may_have_ports(self) -> bool:
        """See `Carrier.may_have_ports`."""
        return self.carrier.may_have_ports

    def another(self) -> Carrier | None:
        """See `Carrier.another`."""
        return self.carrier.another()

    async def close(self) -> None:
        """See `Carrier.close`."""
        await self.carrier.close()


@dataclass(frozen=True, slots=True)
class Lab:
    """Two real agents that are alike: one is asked over its socket, the other by the client."""

    folder: Path
    raw: AgentSocket
    agent: SandboxedAgent
    effort: Effort


async def measure(effort: Effort) -> list[Row]:
    """Starts agents and services, measures, and leaves nothing behind."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        raw, agent = await _agents(stack, folder)
        lab = Lab(folder, stack.enter_context(AgentSocket(raw.socket)), agent, effort)
        rows = [*await _over_unix(lab), *await _commands_cold(lab)]
        async with serve(folder, [Vm(VMID, agent.socket)]) as service:
            rows += [*await _over_https(lab, service), await _https_cold(lab, service)]
        async with serve(folder, [Vm(VMID, agent.socket)], limited=True) as service:
            rows += await _limited(lab, service)
        return rows


async def measure_in_vm(image: GuestImage, accelerator: str, effort: Effort) -> list[Row]:
    """The same ping where there is a VM around the agent."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        machine = await stack.enter_async_context(Machine(image, folder, vmid=VMID, accel=accelerator))
        other = await stack.enter_async_context(Machine(image, folder, vmid=VMID + 1, accel=accelerator))
        await asyncio.gather(machine.wait_for_agent(), other.wait_for_agent())
        raw = stack.enter_context(AgentSocket(other.agent_socket))
        host = await stack.enter_async_context(await connect(f"unix:{machine.agent_socket}"))
        guest = await host.guest(VMID)
        return [await _compared(CLIENT_VM, "unix: ping", effort, lambda: raw.call(PING), guest.ping)]


async def _agents(stack: contextlib.AsyncExitStack, folder: Path) -> tuple[SandboxedAgent, SandboxedAgent]:
    raw, agent = SandboxedAgent(folder / "raw.qga"), SandboxedAgent(folder / "web.qga")
    for one in (raw, agent):
        await stack.enter_async_context(one)
        (one.home / "piece").write_bytes(os.urandom(PIECE))
        (one.home / "large").write_bytes(os.urandom(COPIED))
    return raw, agent


# Over an agent's own socket


async def _over_unix(lab: Lab) -> list[Row]:
    async with await connect(f"unix:{lab.agent.socket}") as host:
        guest = await host.guest(VMID)
        return [
            await _compared(CLIENT, "unix: ping", lab.effort, lambda: lab.raw.call(PING), guest.ping),
            await _compared(
                CLIENT,
                "unix: a file of 64 KiB",
                lab.effort,
                lambda: lab.raw.read_file("/root/piece", PIECE + 1),
                lambda: guest.read_file("/root/piece"),
            ),
            await _in_pieces(lab, guest),
            *await _ran(lab, "unix:", guest),
        ]


async def _compared(
    place: str, name: str, effort: Effort, raw: Callable[[], object], call: Callable[[], Awaitable[object]]
) -> Row:
    direct, called = [], []
    for number in range(effort.rounds + 1):
        pair = timed(effort.calls, raw), await timed_async(effort.calls, call)
        if number:
            direct += pair[0]
            called += pair[1]
    one, other = Samples(direct).median, Samples(called).median
    return Row(place, f"{name}, median", "ms", one, other, f"at most {NEAR} x raw", other <= NEAR * one)


async def _in_pieces(lab: Lab, guest: Guest) -> Row:
    async def read() -> None:
        async for _ in guest.files.stream("/root/large"):
            pass

    raw = _rate(COPIED, timed(lab.effort.reads, lambda: lab.raw.read_file("/root/large", PIECE)))
    found = _rate(COPIED, await timed_async(lab.effort.reads, read))
    return Row(
        CLIENT,
        "unix: reading, raw in pieces of 64 KiB",
        "MB/s",
        raw,
        found,
        f"raw / {NEAR} at least",
        found >= raw / NEAR,
    )


def _rate(size: int, milliseconds: list[float]) -> float:
    return size / 1e3 / Samples(milliseconds).median


async def _ran(lab: Lab, name: str, guest: Guest) -> list[Row]:
    def raw() -> None:
        pid = lab.raw.ask("guest-exec", {"path": "true"}, dict)["pid"]
        while not lab.raw.ask("guest-exec-status", {"pid": pid}, dict)["exited"]:
            pass

    times = max(lab.effort.calls // 10, 10)
    direct, found = Samples(timed(times, raw)), Samples(await timed_async(times, lambda: guest.run(["true"])))
    return [Row(CLIENT, f"{name} run true, median", "ms", direct.median, found.median)]


# Over HTTPS


async def _over_https(lab: Lab, service: Service) -> list[Row]:
    recorder = _recorder(service)
    async with Host(recorder) as host:
        guest = await host.guest(VMID)
        rows = [*await _ran(lab, "guestwire:", guest), await _calls_of_true(recorder, host)]
        source = lab.folder / "source"
        source.write_bytes(os.urandom(COPIED))
        content = source.read_bytes()
        read = _best(lambda piece: lab.raw.read_file("/root/large", piece))
        written = _best(lambda piece: lab.raw.write_file("/root/raw", content, piece))
        to = await timed_async(lab.effort.reads, lambda: guest.upload(source, "/root/copied"))
        back = await timed_async(lab.effort.reads, lambda: guest.download("/root/large", lab.folder / "back"))
        return [
            *rows,
            _share("to", written, _rate(COPIED, to)),
            _share("from", read, _rate(COPIED, back)),
        ]


def _best(copy: Callable[[int], object]) -> float:
    """The raw socket's rate with the pieces that are fastest."""
    return max(_rate(COPIED, timed(2, partial(copy, piece))) for piece in RAW_PIECES)


def _share(direction: str, raw: float, found: float) -> Row:
    target = f"at least {SHARE:g} x raw"
    return Row(
        CLIENT, f"guestwire: copying {direction} the guest, checked", "MB/s", raw, found, target, found >= SHARE * raw
    )


async def _calls_of_true(recorder: Recorder, host: Host) -> Row:
    """By the VM's id; a call each of guest-exec and guest-exec-status is what the agent needs."""
    needed, counts = 2, []
    for _ in range(20):
        recorder.calls.clear()
        host._nodes.clear()  # noqa: SLF001  # as in a command of its own
        await (await host.guest(VMID)).run(["true"])
        counts.append(float(len(recorder.calls)))
    most = Samples(counts).median
    return Row(
        CLIENT,
        "guestwire: round trips of exec true",
        "",
        needed,
        most,
        f"at most {MORE_CALLS} more",
        most <= needed + MORE_CALLS,
    )


def _recorder(service: Service) -> Recorder:
    target = Https("https", "127.0.0.1", service.address.port)
    return Recorder(
        HttpsCarrier(target, Credentials(token=service.address.token), Trust(ca=service.address.certificate))
    )


# With what Proxmox VE has


async def _limited(lab: Lab, service: Service) -> list[Row]:
    recorder = _recorder(service)
    source = lab.folder / "limited"
    source.write_bytes(os.urandom(COPIED_LIMITED))
    async with Host(recorder) as host:
        guest = await host.guest(VMID)
        return [
            await _same_calls(recorder, "to", lambda: guest.upload(source, "/root/limited")),
            await _same_calls(recorder, "from", lambda: guest.download("/root/limited", lab.folder / "back")),
        ]


async def _same_calls(recorder: Recorder, direction: str, copy: Callable[[], Awaitable[object]]) -> Row:
    await copy()
    recorder.calls.clear()
    (took,) = await timed_async(1, copy)
    calls = list(recorder.calls)
    (alone,) = await timed_async(1, lambda: _again(recorder.carrier, calls))
    name = f"limited: 4 MiB {direction} the guest, {len(calls)} calls (raw: the same calls, one after the other)"
    return Row(CLIENT, name, "ms", alone, took, f"at most {SAME_CALLS} x the calls", took <= SAME_CALLS * alone)


async def _again(carrier: Carrier, calls: list[tuple[str, str, Mapping[str, Any], Any]]) -> None:
    """Makes the same calls; a process that is asked for is the one that was started now."""
    pids: dict[int, int] = {}
    for method, path, given, before in calls:
        asked = {**given, "pid": pids.get(given["pid"], 0)} if "pid" in given else given
        with contextlib.suppress(Exception):
            found = await carrier.call(method, path, asked, ErrorContext("bench"))
            if path.endswith("/exec"):
                pids[before["pid"]] = found["pid"]


# Commands


async def _commands_cold(lab: Lab) -> list[Row]:
    """The socket serves one at a time: no service may have it."""
    words = ["--host", f"unix:{lab.agent.socket}", "ping", "web"]
    return [await _cold(lab, "--help", ["--help"], COLD), await _cold(lab, "--host unix:… ping", words, COLD)]


async def _https_cold(lab: Lab, service: Service) -> Row:
    token = lab.folder / "token"
    token.write_text(service.address.token)
    token.chmod(0o600)
    target = ["--host", f"https://127.0.0.1:{service.address.port}", "--ca", str(service.address.certificate)]
    return await _cold(lab, "--host https:… ping", [*target, "--token-file", str(token), "ping", str(VMID)])


async def _cold(lab: Lab, name: str, words: list[str], most: int | None = None) -> Row:
    found = await asyncio.to_thread(_started, lab, name, words)
    target = f"under {most} ms" if most else ""
    return Row(
        CLIENT, f"guestwire {name}, cold start, median", "ms", None, found, target, found < most if most else None
    )


def _started(lab: Lab, name: str, words: list[str]) -> float:
    """Compiled files are there, as where guestwire is installed; the first run makes them."""
    kept = {word: value for word, value in os.environ.items() if not word.startswith(("PYTHON", "GUESTWIRE"))}
    environment = {**kept, "PYTHONPYCACHEPREFIX": str(lab.folder / "compiled")}
    program = Path(sys.executable).with_name("guestwire")

    def run() -> None:
        done = subprocess.run([program, *words], capture_output=True, env=environment, check=False, text=True)
        if done.returncode:
            raise BenchError(f"guestwire {name}: {done.stderr.strip()}")

    timed(2, run)
    return Samples(timed(4 * lab.effort.rounds, run)).median
