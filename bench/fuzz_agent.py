"""Replies of agents at random: `python -m bench.fuzz_agent 100000`.

Fake guests answer each command of the API honestly, but for a few replies, which are changed: bytes, shapes of JSON,
ids, errors, sizes, syncs, silence, pieces, ends. The calls come from the client on the agent's own socket, and from a
server. Each call must end in time, with a value of the right type or an error of ours; and the next honest call, on a
new connection at the latest, has its right answer.
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.fuzz_server import UNEXPECTED, in_memory, mutate
from bench.service import holdings_of
from guestwire.access.authentication import secret_hash
from guestwire.access.control import Access
from guestwire.access.engine import SUPERUSER
from guestwire.client import connect
from guestwire.client.errors import CallFailed
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host
from guestwire.contract import Endpoint
from guestwire.contract.guest_registry import GUEST_ENDPOINTS
from guestwire.contract.results import client_result
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.inventory import Inventory
from guestwire.inventory.config import VmConfig
from guestwire.server import Gateway
from guestwire.server.connection_limits import ConnectionLimits
from guestwire.server.listener import MAX_CONNECTIONS
from guestwire.stores import MemoryStore, Token, User
from guestwire.testing import FakeGuest
from guestwire.testing.fake import CLOSE, Action, Exchange

WORKERS: Final = 120
"""Guests at once: many calls wait for a time-out."""

PATIENCE: Final = 0.05
"""Seconds after which the caller goes away: a changed reply is often none, and the command's time is not over for long."""

PATIENT: Final = 0.003
"""How often the caller stays to the end, where the command's own time is short enough."""

SHORT: Final = 20.0
"""Seconds of a command's time that a patient caller has."""

IN_TIME: Final = 30.0

SECRET: Final = "0e6f0e1c-8b50-4d0a-a6a4-0a1c5e0a7b33"
NODE: Final = "bench"
FIRST_VMID: Final = 100

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "agent": {"command": "get-osinfo"},
    "exec": {"command": ["true"]},
    "exec-status": {"pid": 1},
    "file-read": {"file": "/known"},
    "file-write": {"file": "/new", "content": "x" * 100},
    "file-piece": {"file": "/known", "at": 0, "content": "aGVsbG8="},
    "set-user-password": {"username": "root", "password": "secret"},
    "exec-capture": {"command": ["true"], "capture": "merged"},
    "file-append": {"file": "/known", "content": "x" * 100},
    "ssh-get-authorized-keys": {"username": "root"},
    "ssh-add-authorized-keys": {"username": "root", "keys": ["ssh-ed25519 AAAA"]},
    "ssh-remove-authorized-keys": {"username": "root", "keys": ["ssh-ed25519 AAAA"]},
    "set-vcpus": {"online": "0-3"},
    "set-memory-blocks": {"online": "0"},
}

HONEST: Final[dict[str, Any]] = {
    "guest-info": {"version": "10.0.1", "supported_commands": [{"name": "guest-ping", "enabled": True, "success-response": True}]},
    "guest-get-osinfo": {"id": "debian", "kernel-release": "6.12", "pretty-name": "Debian", "version-id": "13"},
    "guest-get-time": 1_790_000_000_000_000_000,
    "guest-get-timezone": {"zone": "UTC", "offset": 0},
    "guest-get-users": [{"user": "root", "login-time": 1.5}],
    "guest-get-vcpus": [{"logical-id": 0, "online": True, "can-offline": False}],
    "guest-get-fsinfo": [
        {
            "name": "vda1", "mountpoint": "/", "type": "ext4", "used-bytes": 1, "total-bytes": 2,
            "disk": [{"bus-type": "virtio", "bus": 0, "target": 0, "unit": 0, "dev": "/dev/vda1"}],
        }
    ],
    "guest-get-memory-blocks": [{"phys-index": 0, "online": True}],
    "guest-get-memory-block-info": {"size": 134_217_728},
    "guest-network-get-interfaces": [
        {"name": "eth0", "hardware-address": "52:54:00:00:00:01", "ip-addresses": [{"ip-address": "10.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]}
    ],
    "guest-fsfreeze-status": "thawed",
    "guest-fsfreeze-freeze": 1,
    "guest-fsfreeze-thaw": 1,
    "guest-fstrim": {"paths": [{"path": "/", "trimmed": 1, "minimum": 0}]},
    "guest-set-user-password": {},
    "guest-get-disks": [
        {"name": "/dev/vda", "partition": False, "dependencies": [], "address": {"bus-type": "virtio", "bus": 0, "target": 0, "unit": 0}},
    ],
    "guest-get-diskstats": [{"name": "vda", "major": 254, "minor": 0, "stats": {"read-ios": 1, "write-sectors": 2}}],
    "guest-get-cpustats": [{"type": "linux", "cpu": 0, "user": 1, "nice": 0, "system": 2, "idle": 3}],
    "guest-get-load": {"load1m": 0.5, "load5m": 0, "load15m": 1},
    "guest-get-devices": [{"driver-name": "VirtIO", "driver-date": 1, "id": {"type": "pci", "vendor-id": 1, "device-id": 2}}],
    "guest-network-get-route": [{"iface": "eth0", "destination": "0.0.0.0", "metric": 0, "gateway": "10.0.2.2", "mask": "0.0.0.0", "version": 4}],
    "guest-ssh-get-authorized-keys": {"keys": ["ssh-ed25519 AAAA"]},
    "guest-ssh-add-authorized-keys": {},
    "guest-ssh-remove-authorized-keys": {},
    "guest-set-time": {},
    "guest-set-vcpus": 4,
    "guest-set-memory-blocks": [{"phys-index": 0, "response": "success"}],
    "guest-file-flush": {},
    "guest-exec": {"pid": 1},
    "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": base64.b64encode(b"out\n").decode(), "err-data": ""},
}  # fmt: skip

SCALARS: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, 2**200, 1.5, -0.0, 1e308, "", "x", "0", "-1", "é", "\u202e", "\x1b[31m", "\x00", "\ud800",
    "ff", "====", "aGk=", "x" * 5000, [], {}, [[]], [{}], {"": None}, {"return": 1}, {"error": {}}, [1, "a", None], {"pid": "1"}, {"count": -1, "buf-b64": "!"},
)  # fmt: skip


class Liar:
    """A `Fault`: changes the next `left` replies, and is honest otherwise; `lies` counts what it did."""

    def __init__(self, chance: random.Random) -> None:
        self.left = 0
        self.lies: Counter[str] = Counter()
        self._chance = chance
        self._kinds: dict[str, Callable[[Exchange, bytes], Sequence[Action]]] = {
            "bytes": self._bytes,
            "shape": self._shape,
            "id": self._id,
            "error": self._error,
            "size": self._size,
            "more": self._more,
            "mark": self._mark,
            "pieces": self._pieces,
            "end": self._end,
            "silence": lambda _exchange, _honest: [],
        }
        self._weights = (20, 40, 8, 10, 1, 6, 4, 6, 4, 1)

    def __call__(self, exchange: Exchange) -> Iterable[Action]:
        """See `Fault`."""
        if not self.left:
            return exchange.honest
        self.left -= 1
        (kind,) = self._chance.choices([*self._kinds], self._weights)
        self.lies[kind] += 1
        honest = exchange.reply or b'{"return": {}, "id": %d}\n' % int(exchange.request.get("id", 0))
        return self._kinds[kind](exchange, honest)

    def _bytes(self, _exchange: Exchange, honest: bytes) -> Sequence[Action]:
        data = bytearray(honest)
        for _ in range(self._chance.choice((1, 1, 2, 5))):
            mutate(self._chance, data)
        return [bytes(data) + self._chance.choice((b"", b"\n"))]

    def _shape(self, _exchange: Exchange, honest: bytes) -> Sequence[Action]:
        reply = _decoded(honest)
        for _ in range(self._chance.choice((1, 1, 2))):
            reply["return"] = self._changed(reply.get("return"))
        return [_encoded(reply, honest)]

    def _changed(self, value: Any) -> Any:
        """The value, or what is in it, replaced, left out, or called something else."""
        chance = self._chance
        if not value or not isinstance(value, dict | list) or chance.random() < 0.2:
            return chance.choice(SCALARS)
        if isinstance(value, list):
            at = chance.randrange(len(value))
            return chance.choice(
                (
                    value * 50,
                    [*value, chance.choice(SCALARS)],
                    [*value[:at], self._changed(value[at]), *value[at + 1 :]],
                )
            )
        name = chance.choice([*value])
        rest = {other: one for other, one in value.items() if other != name}
        return chance.choice(
            (
                rest,
                rest | {chance.choice(("", "x", name.upper())): value[name]},
                value | {name: self._changed(value[name])},
            )
        )

    def _id(self, exchange: Exchange, honest: bytes) -> Sequence[Action]:
        reply = _decoded(honest)
        number = exchange.request.get("id", 0)
        reply["id"] = self._chance.choice(
            (number + 1, number - 1, str(number), float(number), None, True, [number], {}, -number, 2**64, 2**200)
        )
        if self._chance.random() < 0.2:
            del reply["id"]
        return [_encoded(reply, honest)]

    def _error(self, exchange: Exchange, honest: bytes) -> Sequence[Action]:
        chance = self._chance
        error = {
            "class": chance.choice(("GenericError", "CommandNotFound", *SCALARS)),
            "desc": chance.choice(("no such thing", "'\"", *SCALARS)),
        }
        reply: dict[str, Any] = {
            "error": error if chance.random() < 0.8 else self._changed(error),
            "id": exchange.request.get("id"),
        }
        if chance.random() < 0.1:
            reply["return"] = {}
        return [_encoded(reply, honest)]

    def _size(self, _exchange: Exchange, honest: bytes) -> Sequence[Action]:
        reply = _decoded(honest)
        size = self._chance.choice((100_000, 1_000_000, 5_000_000))
        reply["return"] = self._chance.choice(
            ({"x": "y" * size}, ["y"] * (size // 5), {"exited": True, "out-data": "QUFB" * (size // 4)})
        )
        return [_encoded(reply, honest)]

    def _more(self, _exchange: Exchange, honest: bytes) -> Sequence[Action]:
        other = self._chance.choice(
            (
                honest,
                b"\n",
                b"{}\n",
                b"\xff\n",
                b"[]\n",
                b"null\n",
                b'{"event": "x"}\n',
                b'{"return": {}}\n',
                self._chance.randbytes(50),
            )
        )
        return self._chance.choice(([other, honest], [honest, other], [other, honest, other]))

    def _mark(self, _exchange: Exchange, honest: bytes) -> Sequence[Action]:
        """The 0xFF before a sync's answer: too many, none, or elsewhere."""
        return [
            self._chance.choice(
                (
                    b"\xff" + honest,
                    honest.lstrip(b"\xff"),
                    b"\xff\xff\xff\n" + honest,
                    honest[:5] + b"\xff" + honest[5:],
                    honest + b"\xff",
                )
            )
        ]

    def _pieces(self, _exchange: Exchange, honest: bytes) -> Sequence[Action]:
        return [honest[at : at + 1] for at in range(min(len(honest), 300))] + [honest[300:]]

    def _end(self, _exchange: Exchange, honest: bytes) -> Sequence[Action]:
        return [honest[: self._chance.randrange(len(honest) + 1)], CLOSE]


def _decoded(honest: bytes) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(honest.lstrip(b"\xff"))
    return reply


def _encoded(reply: dict[str, Any], honest: bytes) -> bytes:
    return (b"\xff" if honest.startswith(b"\xff") else b"") + json.dumps(reply).encode() + b"\n"


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    calls: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    lies: Counter[str] = field(default_factory=Counter)
    finds: list[str] = field(default_factory=list)
    sizes: list[dict[str, float]] = field(default_factory=list)

    def find(self, text: str) -> None:
        """Something that should not be; it is printed at once, for a run may take long."""
        self.finds.append(text)
        print(f"---- {text}", file=sys.stderr, flush=True)

    def measure(self) -> None:
        """Notes what this process holds, which must not grow with the number of replies."""
        self.sizes.append(holdings_of(os.getpid()) | {"tasks": len(asyncio.all_tasks())})

    def check_growth(self) -> None:
        """What is held at the end is what was held when the first tenth had been played."""
        first, last = self.sizes[len(self.sizes) // 10], self.sizes[-1]
        allowed = {"MB": first["MB"] * 1.3 + 20, "fds": first["fds"] * 1.3 + 20, "tasks": first["tasks"] * 1.3 + 20}
        for name, value in last.items():
            if value > allowed[name]:
                self.find(f"{name} grew from {first[name]:.0f} to {value:.0f}")

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {value:.0f}" for name, value in (self.sizes[-1] if self.sizes else {}).items())
        return f"{self.calls} calls, {self.lies.total()} changed replies; {sizes}; {len(self.finds)} finds"


class _Caller:
    """Makes calls to one guest, one way. `honest` raises an error of ours where the guest is not reached."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    async def call(self, chance: random.Random) -> tuple[str, float, Awaitable[None]]:
        """The name of a call, the seconds that it may take, and the call, which checks its answer."""
        raise NotImplementedError

    async def honest(self) -> str:
        """The guest's host name."""
        raise NotImplementedError

    async def renew(self) -> None:
        """Begins with a new connection."""
        raise NotImplementedError


class _SocketCaller(_Caller):
    """The client on the agent's own socket: endpoints, files and processes."""

    def __init__(self, outcome: Outcome, path: Path) -> None:
        super().__init__(outcome)
        self._target = f"unix:{path}"
        self._host: Host | None = None

    async def _guest(self) -> Guest:
        if self._host is None:
            self._host = await connect(self._target)
        return await self._host.guest(100)

    async def call(self, chance: random.Random) -> tuple[str, float, Awaitable[None]]:
        guest = await self._guest()
        if chance.random() < 0.75:
            endpoint = chance.choice(ENDPOINTS)
            return endpoint.name, endpoint.timeout, self._endpoint(guest, endpoint)
        whole: dict[str, Callable[[], Awaitable[Any]]] = {
            "read_file": lambda: guest.read_file("/known"),
            "write_file": lambda: guest.write_file("/new", b"new"),
            "run": lambda: guest.run(["true"], timeout=10),
            "filesystems": guest.filesystems,
            "is_windows": guest.is_windows,
            "freeze": lambda: _frozen(guest),
        }
        name = chance.choice([*whole])
        return name, IN_TIME * 10, self._any(whole[name])

    @staticmethod
    async def _any(action: Callable[[], Awaitable[Any]]) -> None:
        await action()

    async def _endpoint(self, guest: Guest, endpoint: Endpoint) -> None:
        value = await guest.call_endpoint(endpoint, PARAMETERS.get(endpoint.name))
        kind = client_result(endpoint.returns)
        if kind is None:
            assert value is None, value
        elif kind is not Any:
            msgspec.convert(msgspec.to_builtins(value), kind)

    async def honest(self) -> str:
        return (await (await self._guest()).get_host_name()).host_name

    async def renew(self) -> None:
        if self._host:
            await self._host.close()
        self._host = None


async def _frozen(guest: Guest) -> None:
    async with guest.freeze():
        pass


class _ServerCaller(_Caller):
    """A server in this process."""

    def __init__(self, outcome: Outcome, server: "_Server", vmid: int) -> None:
        super().__init__(outcome)
        self._server = server
        self._vmid = vmid

    async def call(self, chance: random.Random) -> tuple[str, float, Awaitable[None]]:
        endpoint = chance.choice(ENDPOINTS)
        return f"server {endpoint.name}", endpoint.timeout, self._endpoint(endpoint)

    async def _endpoint(self, endpoint: Endpoint) -> None:
        answer = await self._request(endpoint)
        assert "data" in answer

    async def _request(self, endpoint: Endpoint) -> dict[str, Any]:
        path = endpoint.path.format(node=NODE, vmid=self._vmid)
        body = json.dumps(PARAMETERS.get(endpoint.name, {})).encode() if endpoint.method == "POST" else b""
        query = (
            "?" + "&".join(f"{name}={value}" for name, value in PARAMETERS.get(endpoint.name, {}).items())
            if not body
            else ""
        )
        lines = [
            f"{endpoint.method} /api2/json{path}{query} HTTP/1.1",
            f"Authorization: PVEAPIToken={SUPERUSER}!x={SECRET}",
        ]
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
        async with in_memory(self._server.gateway, self._server.limits) as connection:
            connection.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            answer = await connection.answer()
        assert answer, "the connection ended without an answer"
        assert answer.status in {200, 500, 595, 596, 599}, answer
        assert not any(word.encode() in answer.raw for word in UNEXPECTED), answer
        decoded: dict[str, Any] = json.loads(answer.body)
        if answer.status != 200:
            raise CallFailedAtServer(answer.status, decoded["message"])
        return decoded

    async def honest(self) -> str:
        result = (await self._request(HOST_NAME))["data"]["result"]
        if "host-name" not in result:
            raise CallFailedAtServer(200, result)
        return str(result["host-name"])

    async def renew(self) -> None:
        await self._server.renew(self._vmid)


class CallFailedAtServer(Exception):
    """The server answered with an error."""


ENDPOINTS: Final = [
    endpoint
    for endpoint in GUEST_ENDPOINTS
    if "/agent" in endpoint.path or endpoint.name == "file-piece" or endpoint.instead
]
HOST_NAME: Final = next(endpoint for endpoint in ENDPOINTS if endpoint.name == "get-host-name")


class _Server:
    """A gateway with a VM for each guest."""

    def __init__(self, paths: dict[int, Path]) -> None:
        store = MemoryStore(
            [User(SUPERUSER), Token(SUPERUSER, "x", secret_hash(SECRET), privsep=False)], audit_rows=100
        )
        self._configs = {vmid: VmConfig(vmid, agent=f"unix:{path}", running=True) for vmid, path in paths.items()}
        self._inventory = Inventory(NODE)
        self._writer = AuditWriter(store)
        self.gateway = Gateway(self._inventory, Access(store), AuditRecorder(self._writer))
        self.limits = ConnectionLimits(MAX_CONNECTIONS, ())

    async def start(self) -> None:
        """Serves all."""
        await self._inventory.apply(self._configs.values())

    async def renew(self, vmid: int) -> None:
        """Takes the VM away, and puts it there again."""
        await self._inventory.apply(config for config in self._configs.values() if config.vmid != vmid)
        await self._inventory.apply(self._configs.values())

    async def close(self) -> None:
        await self._inventory.close()
        await self._writer.close()


async def _play(caller: _Caller, guest: FakeGuest, liar: Liar, chance: random.Random, count: int) -> None:
    outcome = caller.outcome
    for _ in range(count):
        if chance.random() < 0.2:
            await caller.renew()  # so that syncs are lied about, too
        name, seconds, call = await caller.call(chance)
        is_patient = seconds <= SHORT and chance.random() < PATIENT
        liar.left = chance.choice((1, 1, 1, 2, 4))
        end = await _end_of(call, seconds + SHORT if is_patient else PATIENCE)
        liar.left = 0
        guest.received.clear()
        outcome.calls += 1
        if end == "given up" and is_patient:
            outcome.find(f"{name} took longer than {seconds:g} seconds")
        if end not in EXPECTED:
            outcome.find(f"{name}: {end}")
        outcome.ends[end if end in EXPECTED else "find"] += 1
        await _play_honest(caller, guest, name)


EXPECTED: Final = frozenset({"value", "error", "given up"})


async def _end_of(call: Awaitable[None], seconds: float) -> str:
    """How a call ended; the trace of an exception that is not ours."""
    try:
        async with asyncio.timeout(seconds):
            await call
    except (CallFailed, CallFailedAtServer):
        return "error"
    except TimeoutError:
        return "given up"
    except Exception:  # noqa: BLE001  # that is what is looked for
        return traceback.format_exc()
    return "value"


async def _play_honest(caller: _Caller, guest: FakeGuest, after: str) -> None:
    """A guest that is honest again is answered for at once, or on a new connection, for its own was left alone."""
    for is_new in (False, True):
        try:
            async with asyncio.timeout(IN_TIME):
                if is_new:
                    await caller.renew()
                name = await caller.honest()
        except (CallFailed, CallFailedAtServer) as error:
            if is_new:
                caller.outcome.find(f"after {after}, on a new connection: {error!r}")
        except Exception:  # noqa: BLE001  # as above
            caller.outcome.find(f"after {after}: {traceback.format_exc()}")
            return
        else:
            if name != guest.path.stem:
                caller.outcome.find(f"after {after}: {name!r} instead of {guest.path.stem!r}")
            return


async def fuzz(count: int, seed: int, *, workers: int = WORKERS, every: int = 15_000) -> Outcome:
    """Makes `count` calls, to guests of which half are behind a server."""
    outcome, problems = Outcome(), _Problems()
    root = logging.getLogger()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-fuzz-")))
        root.addHandler(problems)
        stack.callback(root.removeHandler, problems)
        guests = []
        for number in range(workers):
            liar = Liar(random.Random(seed * workers + number))
            path = folder / f"guest{number}"
            guest = FakeGuest(path, fault=liar, files={"/known": bytearray(b"known\n" * 2000)})
            guest.replies = HONEST | {"guest-get-host-name": {"host-name": path.stem}}
            guests.append((await stack.enter_async_context(guest), liar, random.Random(-1 - seed * workers - number)))
        behind = {FIRST_VMID + number: guest.path for number, (guest, _, _) in enumerate(guests) if number % 2}
        server = _Server(behind)
        stack.push_async_callback(server.close)
        await server.start()
        callers: list[_Caller] = [
            _ServerCaller(outcome, server, FIRST_VMID + number) if number % 2 else _SocketCaller(outcome, guest.path)
            for number, (guest, _, _) in enumerate(guests)
        ]
        for caller in callers[::2]:
            stack.push_async_callback(caller.renew)
        while outcome.calls < count:
            each = min(every, count - outcome.calls) // workers + 1
            await asyncio.gather(*(_play(caller, *guest, each) for caller, guest in zip(callers, guests, strict=True)))
            outcome.lies = sum((liar.lies for _, liar, _ in guests), Counter())
            for text in problems.texts:
                outcome.find(f"log: {text}")
            problems.texts.clear()
            outcome.measure()
            if count > every:
                print(outcome, file=sys.stderr, flush=True)
        outcome.check_growth()
    return outcome


class _Problems(logging.Handler):
    """What is logged of exceptions that nothing has caught."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


def main() -> int:
    """Plays, prints, and says whether nothing was found."""
    count, seed = (int(word) for word in (*sys.argv[1:], "10000", "1")[:2])
    outcome = asyncio.run(fuzz(count, seed))
    print(outcome, dict(outcome.ends), dict(outcome.lies), sep="\n")
    return bool(outcome.finds)


if __name__ == "__main__":
    sys.exit(main())
