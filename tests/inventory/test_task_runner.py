"""Tasks of a node: their ends, their order, and what they leave behind; and power actions on one VM."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from waiting import until

from guestwire.access import Subject
from guestwire.contract.upid import Upid
from guestwire.errors import GuestError
from guestwire.inventory import Inventory, VmConfig, task_runner
from guestwire.inventory.config import PowerConfig
from guestwire.inventory.power_actions import Power
from guestwire.inventory.task_runner import MAX_STATUS, MOST_RUNNING, Say, Tasks
from guestwire.stores import MemoryStore, Put, StoredTask

BOSS = Subject("boss@pve")


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks("pve1", MemoryStore())
    yield made
    await made.close()


async def endless(_say: Say) -> None:
    await asyncio.Event().wait()


async def ended(tasks: Tasks, upid: str) -> StoredTask:
    await until(lambda: tasks.known[upid].status != "")
    return tasks.known[upid]


async def test_a_task_is_known_and_can_be_ended_from_its_id_on(tasks: Tasks) -> None:
    upid = await tasks.begin("qmstart", 100, BOSS, endless)
    assert tasks.known[upid].status == ""
    await asyncio.sleep(0)

    await tasks.cancel(upid)

    assert tasks.known[upid].status == "received interrupt"


async def test_what_a_guest_says_makes_no_long_status(tasks: Tasks) -> None:
    async def fails(_say: Say) -> None:
        raise GuestError("no \n" * 1_000_000)

    found = await ended(tasks, await tasks.begin("qmstop", 100, BOSS, fails))

    assert found.status.startswith("no no no")
    assert len(found.status) == MAX_STATUS


async def test_no_more_run_than_a_host_can_bear(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "CLOSING", 0)
    for _ in range(MOST_RUNNING):
        await tasks.begin("qmshutdown", 100, BOSS, endless)

    with pytest.raises(GuestError, match=f"{MOST_RUNNING} tasks run already"):
        await tasks.begin("qmshutdown", 100, BOSS, endless)
    await tasks.close()


async def test_the_oldest_is_first_whatever_process_began_it() -> None:
    store = MemoryStore()
    upids = [
        str(Upid("pve1", pid, 1, start, "qmstart", "100", "boss@pve")) for pid, start in ((7, 30), (8, 10), (9, 20))
    ]
    await store.change(store.snapshot.version, [Put(StoredTask(upid, "OK", 40)) for upid in upids])

    assert list(Tasks("pve1", store).known) == [upids[1], upids[2], upids[0]]


async def test_of_two_that_start_a_vm_at_once_one_does(tmp_path: Path) -> None:
    socket = tmp_path / "a.qga"
    script = f"echo start >> {tmp_path}/starts; sleep 0.3; exec python3 -c \"import socket as s; s.socket(s.AF_UNIX).bind('{socket}')\""
    config = VmConfig(vmid=100, agent=f"unix:{socket}", power=PowerConfig(start=["sh", "-c", script]))
    inventory = Inventory("pve1")
    await inventory.apply([config])
    vm = inventory.vms[100]
    try:
        both = await asyncio.gather(*(Power(vm, lambda _: None).start() for _ in range(2)), return_exceptions=True)
    finally:
        await inventory.close()

    assert [str(one) for one in both] == ["None", "VM 100 already running"]
    assert (tmp_path / "starts").read_text() == "start\n"
