"""The VMs behind the recorded cases: real agents in sandboxes, and scripted ones for what a real one must not be asked for.

100  real agent                       105  running, its socket is missing
101  stopped                          106  scripted: everything answers something
102  running, no agent configured     107  answers garbage
103  accepts, never answers           108  running, its socket is missing
104  real, nearly all disabled        109  a socket file, and nobody listens
"""

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from guestwire.testing import CLOSE, Exchange, FakeGuest, SandboxedAgent, faults
from guestwire.testing.fake import Action, CommandError

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
node = "pve1"
state_dir = "{folder}/state"

[[vm]]
vmid = 100
agent = "unix:{folder}/100.qga"
running = true

[[vm]]
vmid = 101
agent = "unix:{folder}/101.qga"
running = false

[[vm]]
vmid = 102
running = true
"""
OTHER_VM = """
[[vm]]
vmid = {vmid}
agent = "unix:{folder}/{vmid}.qga"
running = true
"""

DISABLED = (
    "guest-exec", "guest-exec-status", "guest-file-open", "guest-file-read", "guest-file-write", "guest-get-osinfo",
    "guest-network-get-interfaces", "guest-set-user-password", "guest-fstrim", "guest-fsfreeze-status", "guest-fsfreeze-thaw",
    "guest-get-users",
)  # fmt: skip


def config(folder: Path, port: int) -> str:
    """The configuration file of all of them."""
    others = "".join(OTHER_VM.format(vmid=vmid, folder=folder) for vmid in range(103, 110))
    return CONFIG.format(folder=folder, port=port) + others


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[None]:
    """Their agents, with sockets in `folder`."""
    real = SandboxedAgent(folder / "100.qga", name="guest100")
    blocked = SandboxedAgent(folder / "104.qga", name="guest104", blocked=DISABLED)
    silent = FakeGuest(folder / "103.qga", fault=faults.silent())
    garbage = FakeGuest(folder / "107.qga", fault=faults.garbage())
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(folder / "109.qga"))
        async with real, blocked, silent, garbage, scripted(folder / "106.qga"):
            furnish(real.home)
            yield


def furnish(home: Path) -> None:
    """The files that the cases read."""
    files = {
        "f1k": b"k" * 1024, "f1m": b"m" * 2**20, "f15m": b"n" * 15 * 2**20, "f16m": b"x" * 2**24, "f16m1": b"x" * (2**24 + 1),
        "f1m1": b"y" * (2**20 + 1), "bin4m": os.urandom(2**22), "bin256": bytes(range(256)), "surr.bin": b"\xed\xa0\x80\xff\xfe",
        "empty": b"", "utf8.txt": "héllo 世界 😀\n".encode(), "latin1.txt": b"caf\xe9\n", "nul.bin": b"a\0b",
        "lines.txt": b"line1\nline2\n", "nonl.txt": b"no newline at end",
    }  # fmt: skip
    (home / "adir" / "sub").mkdir(parents=True)
    for name, content in files.items():
        (home / name).write_bytes(content)


def scripted(path: Path) -> FakeGuest:
    """An agent that answers everything, and freezes nothing."""
    frozen: list[bool] = []

    def freeze(_: object) -> int:
        frozen.append(True)
        return 2

    def thaw(_: object) -> int:
        thawed = 2 if frozen else 0
        frozen.clear()
        return thawed

    replies: dict[str, Any] = {
        "guest-fsfreeze-status": lambda _: "frozen" if frozen else "thawed",
        "guest-fsfreeze-freeze": freeze,
        "guest-fsfreeze-thaw": thaw,
        "guest-fstrim": {"paths": [{"path": "/", "trimmed": 1048576, "minimum": 0}]},
        "guest-suspend-hybrid": failing("the guest does not support hybrid sleep"),
        "guest-set-user-password": {},
        "guest-get-host-name": {"host-name": "fäke中😀"},
        "guest-get-users": [{"user": "röot", "login-time": 1700000000.5}],
        "guest-get-time": 1790000000123456789,
        "guest-get-timezone": {"zone": "UTC", "offset": 0},
        "guest-get-vcpus": [],
        "guest-info": {"version": "9.9.9", "supported_commands": [{"name": "guest-ping", "enabled": True, "success-response": True}]},
        "guest-get-osinfo": None,
        "guest-file-open": 1000,
        "guest-file-read": failing("read failed: Input/output error"),
        "guest-file-write": failing("write failed: No space left on device"),
        "guest-file-close": {},
        "guest-exec": {"pid": 4242},
        "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": "AAEC/w==", "err-data": "ZXJy", "out-truncated": True, "err-truncated": False},
    }  # fmt: skip
    delay = {"guest-get-timezone": 8.0, "guest-shutdown": 0.2, "guest-suspend-disk": 0.2}
    return FakeGuest(path, fault=powers_off, echoes_ids=False, concurrent=True, replies=replies, delay=delay)


def failing(description: str) -> Callable[[object], Any]:
    """A reply that is an error."""

    def fail(_: object) -> Any:
        raise CommandError("GenericError", description)

    return fail


def powers_off(exchange: Exchange) -> Iterable[Action]:
    """Its port goes away with the VM."""
    return [CLOSE] if exchange.request["execute"] in ("guest-shutdown", "guest-suspend-disk") else exchange.honest
