"""Every command of the API to agents of all ages and systems, through every face."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from calling import site, vm
from odd_agents import AGENTS
from reaching import environment, guestwire
from serving import Serving
from ways import options_for, over_https

from guestwire import Guest, connect
from guestwire.client.diagnosis import examine
from guestwire.client.errors import AgentRefused
from guestwire.contract import Effect
from guestwire.contract.endpoints.agent import COMMANDS
from guestwire.contract.guest_registry import GUEST_ENDPOINTS
from guestwire.testing import FakeGuest

FURTHER = ["get-disks", "get-diskstats", "get-cpustats", "get-load", "get-devices", "network-get-route"]
ASKING = [*(name for name in COMMANDS if not name.startswith(("shutdown", "suspend"))), *FURTHER]
VIEWS = [
    "info",
    "osinfo",
    "hostname",
    "time",
    "timezone",
    "users",
    "ip",
    "df",
    "vcpus",
    "memory",
    "disks",
    "diskstats",
    "cpustats",
    "load",
    "routes",
    "drivers",
    "freeze-status",
    "trim",
    "thaw",
]


LACKING = r"its agent does not know it|there is one since QEMU \d|no agent of this system"
"""Proxmox VE's commands are refused in the agent's words; of the further ones it is said why."""


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "odd"))) as server:
        yield server


@pytest.fixture(params=AGENTS)
async def fake(request: pytest.FixtureRequest, server: Serving) -> AsyncIterator[FakeGuest]:
    async with FakeGuest(server.folder / "100.qga", replies=dict(AGENTS[request.param])) as fake:
        yield fake


@pytest.fixture(params=["unix", "https"])
async def guest(request: pytest.FixtureRequest, server: Serving, fake: FakeGuest) -> AsyncIterator[Guest]:
    # The server holds its own guest's socket, and an agent takes one connection at a time.
    path = server.folder / "direct.qga"
    async with (
        FakeGuest(path, replies=fake.replies),
        await (connect(f"unix:{path}") if request.param == "unix" else over_https(server)) as host,
    ):
        guest = await host.guest(100)
        await guest.wait_ready(30)
        yield guest


def knows(fake: FakeGuest, name: str) -> bool:
    return f"guest-{name}" in {*fake.replies, "guest-ping", "guest-get-host-name"}


@pytest.mark.parametrize("name", ASKING)
async def test_python_has_a_typed_answer_or_says_that_the_agent_lacks_the_command(
    guest: Guest, fake: FakeGuest, name: str
) -> None:
    call = getattr(guest, name.replace("-", "_"))
    if not knows(fake, name):
        with pytest.raises(AgentRefused, match=LACKING) as refused:
            await call()
        assert refused.value.is_disabled
        return
    answer = await call()
    reply = fake.replies.get(f"guest-{name}")
    if isinstance(reply, dict | list):
        _assert_kept(msgspec.to_builtins(answer), reply)


def _assert_kept(answer: Any, reply: Any) -> None:
    """All that is in the answer is as the agent sent it."""
    if isinstance(answer, dict):
        for name, value in answer.items():
            if name in reply:
                _assert_kept(value, reply[name])
            else:
                assert value in ([], {}), f"{name} was made up"
    elif isinstance(answer, list):
        assert len(answer) == len(reply)
        for one, other in zip(answer, reply, strict=True):
            _assert_kept(one, other)
    else:
        assert answer == reply


async def test_filesystems_and_doctor_work_with_each(guest: Guest, fake: FakeGuest) -> None:
    steps = {step["step"]: step for step in (await examine(guest.host, "100")).steps}  # type: ignore[arg-type]

    assert steps["commands"]["result"] == "ok", steps
    if knows(fake, "get-fsinfo"):
        assert (await guest.filesystems()).total_bytes in (0, 2, 40 * 2**30)


@pytest.mark.parametrize("command", VIEWS)
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.usefixtures("fake")
async def test_the_command_line_shows_it(server: Serving, tmp_path: Path, command: str, as_json: bool) -> None:
    more = ["--json"] if as_json else []
    done = await guestwire(*options_for(server), command, "100", *more, env=environment(tmp_path))

    assert "Traceback" not in done.errors
    assert done.code in (0, 3), done
    if done.code:
        assert re.search(LACKING, done.line)
        assert "unexpected" not in done.line
    elif as_json:
        msgspec.json.decode(done.output)


def test_every_endpoint_that_only_asks_is_among_those() -> None:
    names = {one.name for one in GUEST_ENDPOINTS if one.effect is Effect.READS and one.name in COMMANDS}

    assert names <= set(ASKING)


@pytest.mark.parametrize(
    ("system", "disabled", "found"),
    [
        ("debian", ["guest-get-devices"], "all 1 of this system are enabled"),
        ("mswindows", ["guest-set-vcpus", "guest-get-load"], "disabled in the guest: guest-get-load"),
        ("freebsd", ["guest-fstrim", "guest-get-devices"], "all 1 of this system are enabled"),
        (None, ["guest-exec"], "disabled in the guest: guest-exec"),
    ],
)
async def test_doctor_warns_of_no_command_that_the_system_can_not_have(
    server: Serving, system: str | None, disabled: list[str], found: str
) -> None:
    listed = [{"name": name, "enabled": False} for name in disabled]
    replies: dict[str, Any] = {
        "guest-info": {"version": "8", "supported_commands": [{"name": "guest-ping", "enabled": True}, *listed]}
    }
    if system:
        replies["guest-get-osinfo"] = {"id": system}
    async with FakeGuest(server.folder / "100.qga", replies=replies), await over_https(server) as host:
        await (await host.guest(100)).wait_ready(30)
        *_, commands = (await examine(host, "100")).steps

    assert (commands["found"], commands["result"]) == (found, "ok" if "all" in found else "warning")


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**65, 10**400])
async def test_no_number_of_a_guest_breaks_what_calculates_with_it(tmp_path: Path, number: int) -> None:
    async with FakeGuest(tmp_path / "100.qga") as guest:
        guest.replies |= {
            "guest-get-fsinfo": [
                {"name": "vda", "mountpoint": "/", "type": "ext4", "disk": [], "total-bytes": 1, "used-bytes": number}
            ],
            "guest-get-time": number,
            "guest-get-users": [{"user": "ann", "login-time": number}],
            "guest-get-load": {"load1m": number, "load5m": number, "load15m": number},
            "guest-get-vcpus": [{"logical-id": number, "online": True}],
            "guest-get-diskstats": [
                {"name": "vda", "major": 1, "minor": 1, "stats": {"read-sectors": number, "total-ticks": number}}
            ],
            "guest-get-cpustats": [{"type": "linux", "cpu": 0, "user": number, "nice": 1, "system": 1, "idle": number}],
            "guest-get-devices": [{"driver-name": "a", "driver-date": number}],
            "guest-get-memory-block-info": {"size": number},
            "guest-get-memory-blocks": [{"phys-index": number, "online": True}],
            "guest-get-timezone": {"zone": "UTC", "offset": number},
        }
        for name in (
            "df",
            "time",
            "users",
            "load",
            "vcpus",
            "diskstats",
            "cpustats",
            "drivers",
            "memory",
            "timezone",
            "metrics",
        ):
            ended = await guestwire("--host", f"unix:{guest.path}", name, "x", env=environment(tmp_path))

            assert ended.code == (0 if abs(number) <= 2**64 else 3), (name, ended.errors)
            assert "Traceback" not in ended.errors
            assert len(ended.output) < 20_000
