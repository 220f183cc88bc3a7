"""`python -m bench.soak SECONDS`: a service, real agents and faulty ones, and clients that check each answer; exits with 1 when one was wrong.

Faults come one at a time, with calm between them: an agent is killed or stopped, a fake one is slow or lies, the server
reads its configuration again or is started again. While a fault lasts, and until what it hit answers again, its calls
may fail with a passing error. Nothing else may: an answer is right, or there is none.
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.service import Service, Vm, holdings_of, serve
from guestwire.client import connect
from guestwire.client.errors import (
    CallFailed,
    CertificateNotTrusted,
    LoginFailed,
    NoSuchEndpoint,
    NoSuchGuest,
    PrivilegeMissing,
    WrongParameters,
)
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host
from guestwire.testing import FakeGuest, Fault, SandboxedAgent, faults
from guestwire.testing.fake import honest

REAL: Final = range(100, 103)
FAKE: Final = range(200, 203)
CLIENTS_EACH: Final = 2

BACK_WITHIN: Final = 60.0
"""Seconds from the end of a fault until an answer; a guest that broke the protocol is left alone for up to half of it."""

ANSWERED_WITHIN: Final = 120.0
"""Seconds for any of the calls, with all that it repeats."""

PAUSE: Final = (0.5, 2.0)
"""Seconds between two faults."""

RESTARTS_ARE_RARER: Final = 16

LARGEST: Final = 200_000
"""Bytes of a file."""

ALLOWED: Final = {
    "service MB": (1.5, 20.0), "service fds": (1.0, 20.0), "client MB": (1.5, 20.0), "client fds": (1.0, 20.0), "client tasks": (1.0, 10.0),
}  # fmt: skip
"""What a figure may be at the end: a factor of what it was at first, and some more."""

NEVER_PASSING: Final = (
    CertificateNotTrusted, LoginFailed, NoSuchEndpoint, NoSuchGuest, PrivilegeMissing, WrongParameters,
)  # fmt: skip

LIES: Final[dict[str, Callable[[], Fault]]] = {
    "silent": faults.silent,
    "hangs": faults.hangs,
    "garbage": faults.garbage,
    "floods": lambda: faults.floods(b"{}\n" * 1000, 300),
    "nests": lambda: faults.nests(100_000),
    "wrong ids": faults.wrong_ids,
    "half a line": faults.half_line,
    "closes at a byte": lambda: faults.closes_at(5),
    "closes on a sync": faults.closes_on_sync,
    "twice": faults.twice,
}


@dataclass(slots=True)
class Outcome:
    """What became of the calls; `wrong` has a line for each that should not be."""

    answers: Counter[str] = field(default_factory=Counter)
    passing: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    sizes: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """The service's process, and what it and this one held, at each report."""

    def growth(self) -> list[str]:
        """A line for each figure that grew, for each process of the service.

        Compared are its last report and the one after a third of its time: results of processes are kept for ten minutes.
        """
        found = []
        for pid, group in itertools.groupby(self.sizes, key=lambda size: size[0]):
            reports = [held for _, held in group]
            first, last = reports[len(reports) // 3], reports[-1]
            limits = {name: first[name] * factor + more for name, (factor, more) in ALLOWED.items()}
            found += [
                f"{name} grew from {first[name]:.0f} to {last[name]:.0f} (service {pid})"
                for name, limit in limits.items()
                if last[name] > limit
            ]
        return found


class Disturbances:
    """Which guests a fault is at work on, and which calls may fail therefore."""

    def __init__(self) -> None:
        self._active: Counter[int] = Counter()
        self._ended: dict[int, float] = {}

    @contextlib.contextmanager
    def of(self, *vmids: int) -> Iterator[None]:
        """A fault, from its beginning until its guests answer again."""
        self._active.update(vmids)
        try:
            yield
        finally:
            self._active.subtract(vmids)
            self._ended.update(dict.fromkeys(vmids, time.monotonic()))

    def reach(self, vmid: int, began: float) -> bool:
        """True if one was at work on the guest at any time since `began`."""
        return self._active[vmid] > 0 or self._ended.get(vmid, -1.0) >= began


class Soak:
    """Clients and faults on one service.

    Args:
        service: serves all the guests.
        agents: the real ones, by the number of their VM.
        fakes: the others.
        seed: of faults and contents.
    """

    def __init__(
        self, service: Service, agents: dict[int, SandboxedAgent], fakes: dict[int, FakeGuest], seed: int
    ) -> None:
        self.outcome = Outcome()
        self._service = service
        self._agents = agents
        self._fakes = fakes
        self._random = random.Random(seed)
        self._disturbances = Disturbances()
        self._end = asyncio.Event()

    async def run(self, seconds: float, every: float) -> None:
        """Runs so long, with a report `every` so many seconds."""
        async with opened(self._service) as host, asyncio.TaskGroup() as group:
            for vmid in (*REAL, *FAKE):
                for number in range(CLIENTS_EACH):
                    group.create_task(self._client(await host.guest(vmid), number), name=f"client {vmid} {number}")
            group.create_task(self._report(every), name="report")
            group.create_task(self._disturb(host), name="faults")
            await asyncio.sleep(seconds)
            self._end.set()
        self._measure()

    # Clients

    async def _client(self, guest: Guest, number: int) -> None:
        chance = random.Random(self._random.random())
        is_real = guest.vm.vmid in self._agents
        written = Written(f"/root/soak-{number}", [b""])
        if is_real:
            (self._agents[guest.vm.vmid].home / f"soak-{number}").touch()
        actions: dict[str, Callable[[], Coroutine[Any, Any, str]]] = {
            "ping": lambda: check_ping(guest),
            "host name": lambda: check_host_name(guest),
        }
        if is_real:
            actions |= {
                "exec": lambda: check_exec(guest, chance.randbytes(8).hex()),
                "file": lambda: check_file(guest, written, chance.randbytes(chance.randrange(LARGEST))),
                "freeze status": lambda: check_freeze_status(guest),
            }
        while not self._end.is_set():
            name = chance.choice([*actions])
            await self._check(guest.vm.vmid, name, actions[name]())
            await asyncio.sleep(chance.random() * 0.05)

    async def _check(self, vmid: int, name: str, action: Awaitable[str]) -> None:
        """Counts an answer, or an error that a fault explains; all else is wrong."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                difference = await action
        except CallFailed as error:
            if isinstance(error, NEVER_PASSING) or not self._disturbances.reach(vmid, began):
                self._wrong(f"VM {vmid}, {name}: {type(error).__name__} without a reason: {error}")
            else:
                self.outcome.passing[type(error).__name__] += 1
        except TimeoutError:
            self._wrong(f"VM {vmid}, {name}: no end within {ANSWERED_WITHIN:g} seconds")
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            self._wrong(f"VM {vmid}, {name}: {error!r}")
        else:
            self.outcome.answers[name] += 1
            if difference:
                self._wrong(f"VM {vmid}, {name}: {difference}")

    def _wrong(self, text: str) -> None:
        self.outcome.wrong.append(text)
        print(f"wrong: {text}", file=sys.stderr, flush=True)

    # Faults

    async def _disturb(self, host: Host) -> None:
        restarts = [self._restart_server, self._kill_server]
        others = [self._kill, self._stop, self._slow, self._lie, self._reload]
        # Each kind once; then restarts are few, so that there is something to see of what a service holds in the long run.
        first = self._random.sample([*others, *restarts], len(others) + len(restarts))
        while not self._end.is_set():
            await (first.pop() if first else self._random.choice(restarts + others * RESTARTS_ARE_RARER))(host)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._random.uniform(*PAUSE)):
                    await self._end.wait()

    async def _kill(self, host: Host) -> None:
        vmid = self._random.choice([*self._agents])
        async with self._fault("agent killed", host, vmid):
            await self._agents[vmid].kill()

    async def _stop(self, host: Host) -> None:
        vmid = self._random.choice([*self._agents])
        async with self._fault("agent stopped", host, vmid):
            self._agents[vmid].pause()
            try:
                await asyncio.sleep(self._random.uniform(0.1, 8))
            finally:
                self._agents[vmid].resume()

    async def _slow(self, host: Host) -> None:
        vmid = self._random.choice([*self._fakes])
        guest = self._fakes[vmid]
        async with self._fault("agent slow", host, vmid):
            guest.delay = dict.fromkeys(("guest-ping", "guest-get-host-name"), self._random.uniform(0.5, 6))
            await asyncio.sleep(5)
            guest.delay = {}

    async def _lie(self, host: Host) -> None:
        vmid, lie = self._random.choice([*self._fakes]), self._random.choice([*LIES])
        async with self._fault(f"agent lies: {lie}", host, vmid):
            self._fakes[vmid].fault = LIES[lie]()
            await asyncio.sleep(self._random.uniform(0.1, 3))
            self._fakes[vmid].fault = honest
            await self._fakes[vmid].kill()  # what it still floods with is no answer of an honest agent

    async def _reload(self, host: Host) -> None:  # noqa: ARG002  # all kinds alike
        """Disturbs nothing, so that no error is explained by it."""
        self.outcome.faults["server reloaded"] += 1
        self._service.process.send_signal(signal.SIGHUP)

    async def _restart_server(self, host: Host, *, kill: bool = False) -> None:
        async with self._fault(f"server {'killed' if kill else 'restarted'}", host, *self._agents, *self._fakes):
            self._measure()
            await self._service.restart(kill=kill)
        self._measure()

    async def _kill_server(self, host: Host) -> None:
        await self._restart_server(host, kill=True)

    @contextlib.asynccontextmanager
    async def _fault(self, kind: str, host: Host, *vmids: int) -> AsyncIterator[None]:
        self.outcome.faults[kind] += 1
        with self._disturbances.of(*vmids):
            yield
            await asyncio.gather(*(self._back(host, vmid, kind) for vmid in vmids))

    async def _back(self, host: Host, vmid: int, kind: str) -> None:
        try:
            await (await host.guest(vmid)).wait_ready(BACK_WITHIN)
        except CallFailed as error:
            self._wrong(f"after '{kind}': {error}")

    # Reports

    async def _report(self, every: float) -> None:
        while not self._end.is_set():
            self._measure()
            print(self.line(), flush=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._end.wait()

    def _measure(self) -> None:
        for fake in self._fakes.values():
            fake.received.clear()  # they keep every request
        with contextlib.suppress(OSError):  # the service may be between two starts
            pid = self._service.pid
            held = {
                "service": holdings_of(pid),
                "client": holdings_of(os.getpid()) | {"tasks": len(asyncio.all_tasks())},
            }
            self.outcome.sizes.append(
                (pid, {f"{who} {name}": value for who, values in held.items() for name, value in values.items()})
            )

    def line(self) -> str:
        """All of it so far, in one line."""
        outcome = self.outcome
        sizes = ", ".join(
            f"{name} {value:.0f}" for name, value in (outcome.sizes[-1][1] if outcome.sizes else {}).items()
        )
        return (
            f"{time.strftime('%H:%M:%S')} answers {outcome.answers.total()}, passing errors {outcome.passing.total()}, "
            f"faults {outcome.faults.total()}, wrong {len(outcome.wrong)}; {sizes}"
        )


# Actions: each returns what is wrong with its answer, "" for nothing


@dataclass(slots=True)
class Written:
    """A file, and what may be in it: after a write that failed, its new content or the one before."""

    path: str
    may_hold: list[bytes]


async def check_ping(guest: Guest) -> str:
    await guest.ping()
    return ""


async def check_host_name(guest: Guest) -> str:
    name = (await guest.get_host_name()).host_name
    return "" if name == f"guest{guest.vm.vmid}" else f"the name of another guest: {name}"


async def check_exec(guest: Guest, text: str) -> str:
    done = await guest.run(["sh", "-c", f"echo {text}; echo {text} >&2; exit 7"])
    return "" if (done.output, done.errors, done.code) == (f"{text}\n", f"{text}\n", 7) else f"{done} for {text}"


async def check_file(guest: Guest, written: Written, data: bytes) -> str:
    found = await guest.read_file(written.path)
    if found not in written.may_hold:
        return f"{written.path} holds {len(found)} bytes that were never written to it"
    written.may_hold.append(data)
    await guest.write_file(written.path, data)
    written.may_hold = [data]
    found = await guest.read_file(written.path)
    return "" if found == data else f"{written.path} holds {len(found)} bytes, {len(data)} others were written"


async def check_freeze_status(guest: Guest) -> str:
    status = await guest.fsfreeze_status()
    return "" if status == "thawed" else status


# The whole


@contextlib.asynccontextmanager
async def opened(service: Service) -> AsyncIterator[Host]:
    address = service.address
    async with await connect(
        f"https://127.0.0.1:{address.port}", token=address.token, ca=str(address.certificate)
    ) as host:
        yield host


async def soak(seconds: float, *, seed: int, every: float = 60.0) -> Outcome:
    """Starts all that is needed, runs, and leaves nothing behind."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-soak-")))
        agents = {vmid: SandboxedAgent(folder / f"{vmid}.qga", name=f"guest{vmid}") for vmid in REAL}
        fakes = {
            vmid: FakeGuest(folder / f"{vmid}.qga", replies={"guest-get-host-name": {"host-name": f"guest{vmid}"}})
            for vmid in FAKE
        }
        for agent in agents.values():
            await stack.enter_async_context(agent)
        for fake in fakes.values():
            await stack.enter_async_context(fake)
        service = await stack.enter_async_context(
            serve(folder, [Vm(vmid, folder / f"{vmid}.qga") for vmid in (*REAL, *FAKE)])
        )
        run = Soak(service, agents, fakes, seed)
        await run.run(seconds, every)
        log = service.log.read_text()
        run.outcome.wrong += [
            f"in the log: {word}" for word in ("Traceback", "unexpected error", "internal error") if word in log
        ]
        print(run.line())
        return run.outcome


def main() -> int:
    """Runs, prints all, and says whether it was good."""
    seconds, seed = (float(word) for word in [*sys.argv[1:], "3600", "1"][:2])
    outcome = asyncio.run(soak(seconds, seed=int(seed)))
    for name in ("answers", "passing", "faults"):
        print(f"{name}: {dict(getattr(outcome, name).most_common())}")
    problems = [*outcome.wrong, *outcome.growth()]
    print(f"{len(problems)} problems", *problems, sep="\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
