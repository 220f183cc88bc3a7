"""This machine's VMs, without a server."""

import pytest

from guestwire.client.carriers.local import LocalCarrier
from guestwire.client.errors import ErrorContext
from guestwire.client.host_tasks import TaskFailed, wait_for_task
from guestwire.client.hosts import Host
from guestwire.inventory.found import FoundVm


class OneVm:
    """A source."""

    name = "test"

    def find(self) -> list[FoundVm]:
        return [FoundVm(key="a", name="a", source="test", vmid=100, agent="unix:/none/a.qga", running=True)]


async def test_a_task_that_fails_shows_the_end_of_its_log() -> None:
    async with Host(LocalCarrier("this machine", [OneVm()]), is_local=True) as host:
        node = (await host.raw("GET", "/nodes"))[0]["node"]
        upid = await host.raw("POST", f"/nodes/{node}/qemu/100/status/suspend")
        with pytest.raises(TaskFailed) as failed:
            await wait_for_task(host, node, upid, ErrorContext("here"), 10)

        assert failed.value.log[-1].startswith("TASK ERROR: VM 100: suspend needs QEMU's own socket")
        assert [task["upid"] for task in await host.raw("GET", f"/nodes/{node}/tasks")] == [upid]
