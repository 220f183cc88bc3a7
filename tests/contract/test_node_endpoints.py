"""The endpoints beside the agent's: the server, its node, and the VMs on it."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest

from guestwire import __version__
from guestwire.access import Subject
from guestwire.access.control import Access
from guestwire.agent.guest import GuestAgent
from guestwire.contract import HostFigures, VmState, validate
from guestwire.contract.registry import ENDPOINTS
from guestwire.errors import VmNotFound
from guestwire.stores import AclEntry, MemoryStore, Put, User


class TwoVms:
    """The contexts of endpoints, asked only for what is known without a guest."""

    node = "pve1"
    address = "127.0.0.1"

    def __init__(self, fingerprint: str | None = None) -> None:
        self.fingerprint = fingerprint
        self.access = Access(MemoryStore())
        self.subject = Subject("root@pam")

    async def agent(self, vmid: int) -> GuestAgent:
        raise VmNotFound(vmid, self.node)

    def may(self, path: str, any_of: Iterable[str]) -> bool:
        return self.access.may(self.subject, path, any_of)

    async def figures(self) -> HostFigures:
        return HostFigures(cpu=0.5, uptime=7)

    async def details(self, vmids: Sequence[int]) -> list[VmState]:
        found = {vm.vmid: msgspec.structs.replace(vm, qmpstatus=vm.status) for vm in await self.vms()}
        return [found[vmid] for vmid in vmids]

    async def vms(self) -> list[VmState]:
        return [VmState(vmid=100, status="running", name="web"), VmState(vmid=101, status="stopped", name="VM 101")]


async def get(path: str, context: TwoVms | None = None, **given: Any) -> Any:
    [endpoint] = [endpoint for endpoint in ENDPOINTS if (endpoint.method, endpoint.path) == ("GET", path)]
    result = await endpoint.function(context or TwoVms(), validate(endpoint.parameters, given))
    return msgspec.to_builtins(result)


async def test_the_root_names_what_clients_look_for() -> None:
    names = [one["subdir"] for one in await get("/")]

    assert {"version", "nodes", "access"} <= set(names)
    assert len(set(names)) == len(names)


async def test_the_version_is_one_that_clients_can_compare_and_says_who_answers() -> None:
    answer = await get("/version")

    assert re.fullmatch(r"\d+\.\d+", answer["version"])
    assert re.fullmatch(r"[0-9a-fA-F]{8,64}", answer["repoid"])
    assert answer["guestwire"] == __version__
    assert bytes.fromhex(answer["repoid"]).rstrip(b"\0").decode() == __version__


async def test_the_list_of_nodes_is_this_one() -> None:
    assert await get("/nodes", TwoVms("AA:BB")) == [
        {
            "node": "pve1",
            "id": "node/pve1",
            "type": "node",
            "status": "online",
            "level": "",
            "ssl_fingerprint": "AA:BB",
            "cpu": 0.5,
            "uptime": 7,
        }
    ]


async def test_without_tls_a_node_has_no_fingerprint() -> None:
    assert "ssl_fingerprint" not in (await get("/nodes"))[0]


FIGURES = dict.fromkeys(
    ("uptime", "cpu", "cpus", "mem", "memhost", "maxmem", "disk", "maxdisk", "netin", "netout"), 0
)  # fmt: skip


@pytest.mark.parametrize("given", [{}, {"full": "0"}])
async def test_vms_are_listed_with_a_name_each_and_figures_that_are_not_known_are_0(given: dict[str, Any]) -> None:
    assert await get("/nodes/{node}/qemu", node="pve1", **given) == [
        {"vmid": 100, "status": "running", "name": "web", **FIGURES},
        {"vmid": 101, "status": "stopped", "name": "VM 101", **FIGURES},
    ]


async def test_the_full_list_has_what_qemu_says() -> None:
    assert [vm["qmpstatus"] for vm in await get("/nodes/{node}/qemu", node="pve1", full="1")] == ["running", "stopped"]


async def test_vms_that_the_caller_may_not_see_are_not_listed() -> None:
    context, store = TwoVms(), MemoryStore()
    await store.change(0, [Put(User("ann@pve")), Put(AclEntry("/vms/101", "user", "ann@pve", "PVEAuditor"))])
    context.access, context.subject = Access(store), Subject("ann@pve")

    assert [vm["vmid"] for vm in await get("/nodes/{node}/qemu", context, node="pve1")] == [101]
