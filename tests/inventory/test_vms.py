"""The VMs of a node: what they are known to be, and that a reload takes nothing from a call in flight."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from guestwire.access import Subject
from guestwire.access.control import Access
from guestwire.agent.commands import PING
from guestwire.agent.results import Done
from guestwire.channels import ChannelState
from guestwire.contract import VmState
from guestwire.errors import AgentNotConfigured, AgentNotRunning, CommandFailed, VmNotFound, VmNotRunning
from guestwire.inventory import Inventory, Lease, VmConfig
from guestwire.inventory.vm import SLICE
from guestwire.stores import MemoryStore
from guestwire.testing import FakeGuest

NO_ACCESS: Final = Access(MemoryStore())
NOBODY: Final = Subject("")

SYNC: Final = "guest-sync-delimited"


@pytest.fixture
async def inventory() -> AsyncIterator[Inventory]:
    made = Inventory("pve1", fingerprint="AA:BB")
    yield made
    await made.close()


@contextlib.contextmanager
def lease(inventory: Inventory) -> Iterator[Lease]:
    """What one call does."""
    made = Lease(inventory, NO_ACCESS, NOBODY, "127.0.0.1")
    try:
        yield made
    finally:
        made.release()


async def ping(inventory: Inventory, vmid: int = 100) -> Done:
    with lease(inventory) as held:
        return await (await held.agent(vmid)).execute(PING)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # what is waited for happens elsewhere and tells nobody
            await asyncio.sleep(0.001)


def connections(guest: FakeGuest) -> int:
    """Each begins with a sync."""
    return sum(request["execute"] == SYNC for request in guest.received)


def tasks(prefix: str) -> list[str]:
    return sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(prefix))


def at(guest: FakeGuest, vmid: int = 100, name: str | None = None, *, running: bool | None = None) -> VmConfig:
    return VmConfig(vmid=vmid, name=name, agent=f"unix:{guest.path}", running=running)


# What is known


async def test_a_call_reaches_the_agent_of_its_vm(inventory: Inventory, guest: FakeGuest, folder: Path) -> None:
    async with FakeGuest(folder / "other.qga") as other:
        await inventory.apply([at(guest, 100), at(other, 101)])

        await ping(inventory, 101)

        assert (guest.names(), other.names()) == ([], ["guest-ping"])


async def test_an_unknown_vm_is_worded_as_a_missing_file(inventory: Inventory, guest: FakeGuest) -> None:
    await inventory.apply([at(guest)])

    with pytest.raises(VmNotFound) as refusal:
        await ping(inventory, 999)
    assert str(refusal.value) == "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"


@pytest.mark.parametrize("running", [None, True, False])
async def test_a_vm_without_agent_says_so_whether_it_runs_or_not(
    inventory: Inventory, running: bool | None
) -> None:  # a column of a table
    await inventory.apply([VmConfig(vmid=102, running=running)])

    with pytest.raises(AgentNotConfigured) as refusal:
        await ping(inventory, 102)
    assert str(refusal.value) == "No QEMU guest agent configured"


async def test_a_stopped_vm_says_so(inventory: Inventory, folder: Path) -> None:
    await inventory.apply([VmConfig(vmid=101, agent=f"unix:{folder}/none.qga")])

    with pytest.raises(VmNotRunning) as refusal:
        await ping(inventory, 101)
    assert str(refusal.value) == "VM 101 is not running"


async def test_a_running_vm_whose_agent_is_not_there_has_no_running_agent(inventory: Inventory, folder: Path) -> None:
    await inventory.apply([VmConfig(vmid=105, agent=f"unix:{folder}/none.qga", running=True)])

    with pytest.raises(AgentNotRunning) as refusal:
        await ping(inventory, 105)
    assert str(refusal.value) == "QEMU guest agent is not running"


async def is_running(inventory: Inventory, config: VmConfig) -> bool:
    await inventory.apply([config])
    return await inventory.vms[config.vmid].is_running()


@pytest.mark.parametrize("said", [True, False])
async def test_without_qmp_a_vm_runs_as_the_configuration_says(
    inventory: Inventory,
    guest: FakeGuest,
    said: bool,  # a column of a table
) -> None:
    assert await is_running(inventory, at(guest, running=said)) is said


async def test_where_nothing_is_said_a_vm_runs_when_its_agents_socket_is_there(
    inventory: Inventory, guest: FakeGuest
) -> None:
    assert await is_running(inventory, at(guest)) is True
    await guest.stop()
    assert await inventory.vms[100].is_running() is False
    await guest.start()
    assert await inventory.vms[100].is_running() is True


async def test_a_file_that_is_no_socket_is_no_running_vm(inventory: Inventory, folder: Path) -> None:
    (folder / "file").write_text("")

    assert await is_running(inventory, VmConfig(vmid=100, agent=f"unix:{folder}/file")) is False


async def test_a_vm_of_which_nothing_is_said_does_not_run(inventory: Inventory) -> None:
    assert await is_running(inventory, VmConfig(vmid=100)) is False


async def test_a_vm_that_is_said_to_be_stopped_is_not_asked(inventory: Inventory, guest: FakeGuest) -> None:
    await inventory.apply([at(guest, running=False)])

    with pytest.raises(VmNotRunning):
        await ping(inventory)
    assert guest.names() == []


GREETING: Final = {
    "QMP": {"version": {"qemu": {"major": 9, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}
}


async def answer_qmp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: object = None) -> None:
    """A QEMU with the same answer to every command, by default `{}`; clients send them without a newline."""
    writer.write(json.dumps(GREETING).encode() + b"\n")
    text = ""
    while data := await reader.read(65536):
        text += data.decode()
        with contextlib.suppress(json.JSONDecodeError):
            while text := text.lstrip():
                command, end = json.JSONDecoder().raw_decode(text)
                text = text[end:]
                identity = {"id": command["id"]} if "id" in command else {}
                writer.write(json.dumps({"return": answer or {}} | identity).encode() + b"\n")
    writer.close()


async def test_qmp_knows_better_than_configuration_and_sockets(
    inventory: Inventory, guest: FakeGuest, folder: Path
) -> None:
    config = VmConfig(vmid=100, agent=f"unix:{guest.path}", qmp=f"unix:{folder}/none.qmp", running=True)

    assert await is_running(inventory, config) is False


async def test_a_vm_runs_while_its_qmp_answers(inventory: Inventory, folder: Path) -> None:
    config = VmConfig(vmid=100, qmp=f"unix:{folder}/vm.qmp", running=False)
    server = await asyncio.start_unix_server(answer_qmp, folder / "vm.qmp")
    async with server:
        assert await is_running(inventory, config) is True
        await inventory.close()


@pytest.mark.parametrize(
    "answer",
    [
        5, "\ud800", [1], [None], [{"stats": None, "device": 7}], [{"inserted": [], "removable": "no"}], {"qemu": {"major": []}},
        {"status": "\ud800", "base-memory": "much", "qemu": 1, "UUID": ["\udcff"]}, {"base-memory": -1, "status": [], "UUID": "a b"},
        [{"device": "\ud800", "stats": {"rd_bytes": 2**80, "wr_bytes": "\ud800", "x": [[["\ud800"]]], "\ud800": 1}, "inserted": {"ro": False, "image": {"virtual-size": 2**80}}}],
    ],
)  # fmt: skip
async def test_a_qemu_that_answers_oddly_spoils_no_list(inventory: Inventory, folder: Path, answer: object) -> None:
    async def qemu(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_qmp(reader, writer, answer)

    async with await asyncio.start_unix_server(qemu, folder / "vm.qmp"):
        await inventory.apply(
            [VmConfig(vmid=100, qmp=f"unix:{folder}/vm.qmp"), VmConfig(vmid=101, name="web", running=True)]
        )
        with lease(inventory) as held:
            odd, other = await held.details([100, 101])
            definition = await held.definition(100)
        await inventory.close()

    msgspec.json.encode([odd, definition])
    assert (odd.status, odd.diskread, other.name) == ("running", 0, "web")


async def test_a_vm_that_has_gone_meanwhile_is_left_out_of_lists(inventory: Inventory) -> None:
    await inventory.apply([VmConfig(vmid=100, running=True)])

    with lease(inventory) as held:
        assert [vm.vmid for vm in await held.details([100, 101])] == [100]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_socket_that_may_not_be_looked_at_spoils_no_list(inventory: Inventory, folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    closed = f"unix:{folder}/closed/a"
    os.seteuid(65534)
    try:
        await inventory.apply([VmConfig(vmid=100, agent=closed), VmConfig(vmid=101, qmp=closed)])
        with lease(inventory) as held:
            assert [vm.status for vm in await held.vms()] == ["stopped", "stopped"]
    finally:
        os.seteuid(0)


async def test_vms_are_listed_by_id_with_what_is_known_of_them(inventory: Inventory, guest: FakeGuest) -> None:
    await inventory.apply([VmConfig(vmid=300, running=True), at(guest, 100, "web"), VmConfig(vmid=101, name="db")])

    assert await Lease(inventory, NO_ACCESS, NOBODY, "127.0.0.1").vms() == [
        VmState(vmid=100, status="running", name="web"),
        VmState(vmid=101, status="stopped", name="db"),
        VmState(vmid=300, status="running", name="VM 300"),
    ]


async def test_ten_thousand_vms_are_listed_and_made_while_the_loop_runs(inventory: Inventory) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    many = [VmConfig(vmid=100 + number, running=True) for number in range(10_000)]
    other = asyncio.create_task(others())
    try:
        for work in (
            inventory.apply(many),
            Lease(inventory, NO_ACCESS, NOBODY, "127.0.0.1").vms(),
            inventory.apply(many),
        ):
            before = turns
            await work
            assert turns - before >= len(many) // SLICE - 1
    finally:
        other.cancel()

    assert len(inventory.vms) == len(many)


async def test_no_vms_are_an_empty_list(inventory: Inventory) -> None:
    assert await Lease(inventory, NO_ACCESS, NOBODY, "127.0.0.1").vms() == []


async def test_a_lease_knows_the_node(inventory: Inventory) -> None:
    held = Lease(inventory, NO_ACCESS, NOBODY, "127.0.0.1")

    assert (held.node, held.fingerprint) == ("pve1", "AA:BB")


# Reload


async def test_a_vm_that_is_reached_as_before_keeps_its_connection(inventory: Inventory, guest: FakeGuest) -> None:
    await inventory.apply([at(guest)])
    await ping(inventory)
    vm = inventory.vms[100]

    await inventory.apply([at(guest)])
    await ping(inventory)

    assert inventory.vms[100] is vm
    assert guest.names() == ["guest-ping", "guest-ping"]
    assert connections(guest) == 1


async def test_a_reload_changes_name_and_state_without_a_new_connection(inventory: Inventory, guest: FakeGuest) -> None:
    await inventory.apply([at(guest, name="old")])
    await ping(inventory)

    await inventory.apply([at(guest, name="new", running=False)])

    assert await Lease(inventory, NO_ACCESS, NOBODY, "127.0.0.1").vms() == [
        VmState(vmid=100, status="stopped", name="new")
    ]
    with pytest.raises(VmNotRunning):
        await ping(inventory)
    await inventory.apply([at(guest)])
    await ping(inventory)
    assert connections(guest) == 1


async def test_a_vm_that_is_reached_another_way_gets_a_new_channel(
    inventory: Inventory, guest: FakeGuest, folder: Path
) -> None:
    async with FakeGuest(folder / "other.qga") as other:
        await inventory.apply([at(guest)])
        await ping(inventory)
        old = inventory.vms[100]

        await inventory.apply([at(other)])
        await ping(inventory)

        assert inventory.vms[100] is not old
        assert (guest.names(), other.names()) == (["guest-ping"], ["guest-ping"])
        await until(lambda: (guest.connections, other.connections) == (0, 1))


async def test_a_vm_that_is_removed_is_unknown_and_its_connection_ends(inventory: Inventory, guest: FakeGuest) -> None:
    await inventory.apply([at(guest), VmConfig(vmid=101)])
    await ping(inventory)

    await inventory.apply([VmConfig(vmid=101)])

    assert list(inventory.vms) == [101]
    with pytest.raises(VmNotFound):
        await ping(inventory)
    await until(lambda: not tasks("retire") and not tasks("watch"))


async def test_a_call_in_flight_ends_well_when_its_vm_is_removed(inventory: Inventory, guest: FakeGuest) -> None:
    guest.delay["guest-ping"] = 0.1
    await inventory.apply([at(guest)])
    call = asyncio.create_task(ping(inventory))
    await until(lambda: guest.names() == ["guest-ping"])

    await inventory.apply([])

    assert list(inventory.vms) == []
    assert await call == Done()
    await until(lambda: not tasks("retire") and not tasks("watch"))


async def test_a_lease_may_go_on_with_a_vm_that_was_removed_until_it_is_released(
    inventory: Inventory, guest: FakeGuest
) -> None:
    await inventory.apply([at(guest)])
    with lease(inventory) as held:
        agent = await held.agent(100)
        await inventory.apply([])

        assert await agent.execute(PING) == Done()
        assert await agent.execute(PING) == Done()
        assert tasks("retire") == ["retire VM 100"]
    await until(lambda: not tasks("retire"))
    assert agent.channel.state is ChannelState.GONE
    with pytest.raises(AgentNotRunning):
        await agent.execute(PING)


async def test_the_last_of_several_leases_ends_a_vm_that_was_removed(inventory: Inventory, guest: FakeGuest) -> None:
    await inventory.apply([at(guest)])
    with lease(inventory) as first:
        agent = await first.agent(100)
        with lease(inventory) as second:
            await second.agent(100)
            await second.agent(100)
            await inventory.apply([])
        assert await agent.execute(PING) == Done()
    await until(lambda: not tasks("retire"))


async def test_a_vm_that_comes_back_while_its_old_self_is_in_use_is_a_new_one(
    inventory: Inventory, guest: FakeGuest
) -> None:
    guest.concurrent = True
    await inventory.apply([at(guest)])
    with lease(inventory) as held:
        old = await held.agent(100)
        await inventory.apply([])
        await inventory.apply([at(guest)])

        await ping(inventory)
        assert await old.execute(PING) == Done()

    assert connections(guest) == 2


async def test_a_call_that_is_refused_holds_nothing(inventory: Inventory, folder: Path) -> None:
    await inventory.apply([VmConfig(vmid=101, agent=f"unix:{folder}/none.qga")])
    with pytest.raises(VmNotRunning):
        await ping(inventory, 101)

    await inventory.apply([])

    await until(lambda: not tasks("retire") and not tasks("watch"))


async def test_a_lease_may_be_released_again(inventory: Inventory, guest: FakeGuest) -> None:
    await inventory.apply([at(guest)])
    with lease(inventory) as other:
        agent = await other.agent(100)
        with lease(inventory) as held:
            await held.agent(100)
            held.release()
        await inventory.apply([])

        assert await agent.execute(PING) == Done()


# The end


async def test_closing_ends_every_channel_and_leaves_no_task(guest: FakeGuest, folder: Path) -> None:
    inventory = Inventory("pve1")
    await inventory.apply([at(guest), VmConfig(vmid=101, agent=f"unix:{folder}/none", qmp=f"unix:{folder}/none.qmp")])
    await ping(inventory)
    assert guest.connections == 1
    assert tasks("monitor") == ["monitor VM 101"]

    await inventory.close()

    assert tasks("monitor") + tasks("connect") == []
    await until(lambda: not guest.connections)


async def test_closing_ends_a_call_in_flight(guest: FakeGuest) -> None:
    guest.no_reply.add("guest-ping")
    inventory = Inventory("pve1")
    await inventory.apply([at(guest)])
    call = asyncio.create_task(ping(inventory))
    await until(lambda: guest.names() == ["guest-ping"])

    await inventory.close()

    with pytest.raises(CommandFailed, match=r"^VM 100 qga command 'guest-ping' failed - guestwire is stopping$"):
        await call


async def test_closing_does_not_wait_for_leases_on_removed_vms(guest: FakeGuest) -> None:
    inventory = Inventory("pve1")
    await inventory.apply([at(guest)])
    with lease(inventory) as held:
        await held.agent(100)
        await inventory.apply([])
        await until(lambda: tasks("retire") == ["retire VM 100"])
        await asyncio.sleep(0)

        await inventory.close()

        assert tasks("retire") + tasks("watch") == []


async def test_closing_right_after_a_vm_was_removed_leaves_no_task(guest: FakeGuest) -> None:
    inventory = Inventory("pve1")
    await inventory.apply([at(guest)])
    await ping(inventory)
    vm = inventory.vms[100]
    try:
        await inventory.apply([])
        await inventory.close()

        assert tasks("retire") + tasks("watch") == []
    finally:
        await vm.close()


async def test_a_vm_runs_at_whose_qmp_others_wait_already(inventory: Inventory, folder: Path) -> None:
    """QEMU's queue is short, and who gave up stays in it."""
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as gone:
        listening.bind(str(folder / "vm.qmp"))
        listening.listen(0)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10):
                waiting = gone.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)  # noqa: FBT003
                waiting.connect(str(folder / "vm.qmp"))
        gone.close()
        await inventory.apply([VmConfig(vmid=100, qmp=f"unix:{folder}/vm.qmp")])
        vm = inventory.vms[100]

        assert await vm.is_running()
        assert vm.known_state is True
        await inventory.close()


async def test_a_vm_runs_whose_qmp_another_client_holds(inventory: Inventory, folder: Path) -> None:
    """QEMU takes the next client when the one before has left: until then it says nothing to it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "vm.qmp"))
        listening.listen()
        await inventory.apply([VmConfig(vmid=100, qmp=f"unix:{folder}/vm.qmp")])

        assert await inventory.vms[100].is_running()
