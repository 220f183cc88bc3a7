"""libvirt's domains as VMs: what a real daemon says of them, what they can be told, and what comes and goes."""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from calling import Client, site
from serving import Serving
from waiting import until

from devtools.libvirt_host import LibvirtHost
from guestwire.agent import commands as qga
from guestwire.channels import ChannelState
from guestwire.channels.agent_port import AGENT_PORT
from guestwire.client import connect
from guestwire.client.diagnosis import examine
from guestwire.client.errors import AgentUnavailable, CallFailed, NoSuchGuest, Unreachable
from guestwire.errors import GuestError
from guestwire.inventory import Inventory
from guestwire.inventory.libvirt_source import LONGEST_PAUSE, read_domain
from guestwire.inventory.power_actions import Power
from guestwire.inventory.vm import Vm
from guestwire.inventory.vm_ids import give_ids
from guestwire.stores import MemoryStore

if TYPE_CHECKING:
    from devtools.guests import GuestImage

needs_libvirt = pytest.mark.skipif(
    importlib.util.find_spec("libvirt") is None, reason="Python's libvirt binding is not installed"
)

FOLLOWS = LONGEST_PAUSE + 0.5
METADATA = '<description>shop</description><metadata><g:vm xmlns:g="urn:guestwire" tags="web Prod no/tag"/></metadata>'


def many(folder: Path, count: int) -> str:
    """The URI of libvirt's test driver with so many domains."""
    domains = (
        f"<domain type='test'><name>vm{number}</name><uuid>{number:08x}-0000-4000-8000-000000000000</uuid>"
        "<memory>131072</memory><vcpu>2</vcpu><os><type>hvm</type></os></domain>"
        for number in range(count)
    )
    path = folder / "many.xml"
    path.write_text(f"<node>{''.join(domains)}</node>")
    return f"test://{path}"


@contextlib.asynccontextmanager
async def following(*uris: str, store: MemoryStore | None = None) -> AsyncIterator[Inventory]:
    inventory = Inventory("pve1", store=store)
    await inventory.apply([], uris)
    try:
        yield inventory
    finally:
        await inventory.close()


def _name_of(pid: int) -> str:
    """What the process of a VM is called on its command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"guest=")[2].partition(b",")[0].decode()


def named(inventory: Inventory, name: str) -> Vm | None:
    return next((vm for vm in inventory.vms.values() if vm.config.name == name), None)


# Ids


async def test_an_id_stays_with_its_vm_whatever_comes_and_goes() -> None:
    store = MemoryStore()

    first = await give_ids(store, ["b", "a"], {100})
    assert first == {"b": 101, "a": 102}
    assert await give_ids(store, ["a", "c"], {100}) == {"a": 102, "c": 103}
    assert await give_ids(store, ["b"], {100}) == {"b": 101}
    assert await give_ids(store, ["b"], {100, 101}) == {"b": 104}  # its id was given to a VM of the configuration


async def test_without_a_store_ids_are_the_same_everywhere() -> None:
    ids = await give_ids(None, ["b", "a"], ())

    assert {uuid: (await give_ids(None, [uuid, "c"], ()))[uuid] for uuid in ids} == ids
    assert all(100_000_000 <= vmid <= 999_999_999 for vmid in ids.values())


# What is listed


@needs_libvirt
async def test_all_of_a_thousand_domains_are_listed(folder: Path) -> None:
    async with following(many(folder, 1000), store=MemoryStore()) as inventory:
        assert sorted(inventory.vms) == list(range(100, 1100))
        vm = named(inventory, "vm7")
        assert vm
        assert (vm.facts.cpus, vm.facts.memory, vm.known_state) == (2, 128 * 2**20, True)
        assert vm.agent is None


@needs_libvirt
async def test_a_client_needs_no_server(folder: Path) -> None:
    async with await connect(many(folder, 2)) as host:
        assert [(guest.name, guest.status) for guest in await host.guests()] == [("vm0", "running"), ("vm1", "running")]
        state = await (await host.guest("vm1")).vm_status()
        assert (state.status, state.cpus, state.maxmem) == ("running", 2, 128 * 2**20)
        with pytest.raises(NoSuchGuest, match="no such VM"):
            await host.guest("vm2")
        with pytest.raises(AgentUnavailable, match="No QEMU guest agent configured"):
            await (await host.guest("vm0")).ping()
        channel = (found := (await examine(host, "vm0")).help) and found.channel
        assert channel
        assert (channel.command, channel.qemu) == ("guestwire channel add vm0", ())
        xml = f"<domain><name>x</name><uuid>{uuid4()}</uuid><devices>{channel.libvirt}</devices></domain>"
        assert read_domain(xml, run_state="running").has_agent
    async with await connect(f"qemu:///system?socket={folder}/none") as host:
        with pytest.raises(Unreachable, match="Failed to connect socket"):
            await host.guests()


def test_a_domain_is_read_as_libvirt_writes_it() -> None:
    xml = f"""<domain><name>a b</name><uuid>0B9CF3A1-77aa-4c10-8a51-5f3a2b1c0d20</uuid>{METADATA}
<memory unit='MiB'>64</memory><vcpu placement='static'>3</vcpu><os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
<devices><interface type='network'><mac address='52:54:00:aa:bb:cc'/><target dev='vnet3'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel></devices></domain>"""

    domain = read_domain(xml, run_state="running")

    assert (domain.uuid, domain.name, domain.description) == ("0b9cf3a1-77aa-4c10-8a51-5f3a2b1c0d20", "a b", "shop")
    assert (domain.has_agent, domain.agent_is_up, domain.tags) == (True, True, ("web", "prod", "no/tag"))
    assert (domain.facts.cpus, domain.facts.memory, domain.facts.machine) == (3, 64 * 2**20, "pc-i440fx-7.2")
    assert (domain.facts.mac_addresses, domain.facts.interfaces) == (("52:54:00:AA:BB:CC",), ("vnet3",))


async def answers(vm: Vm) -> bool:
    assert vm.agent
    with contextlib.suppress(GuestError):
        await vm.agent.execute(qga.PING)
        return True
    return False


@pytest.mark.agent
@pytest.mark.guest
@needs_libvirt
class TestRealDomains:
    async def test_domains_are_followed_as_they_come_change_and_go(
        self, libvirt_host: LibvirtHost, image: "GuestImage"
    ) -> None:
        async with following(libvirt_host.uri) as inventory:
            connection = await asyncio.to_thread(libvirt_host.connect)
            xml = libvirt_host.xml("comes", image.kernel, image.initramfs, more=METADATA)
            domain = await asyncio.to_thread(connection.defineXML, xml)
            await until(lambda: named(inventory, "comes") is not None, within=FOLLOWS)
            vm = named(inventory, "comes")
            assert vm
            assert vm.known_state is False
            assert vm.agent is not None
            assert (vm.config.description, vm.config.tags) == ("shop", ["web", "prod"])

            await asyncio.to_thread(domain.create)
            await until(lambda: vm.known_state is True, within=FOLLOWS)
            # Nobody calls it: the event of its port tells that there is an agent now.
            await until(lambda: vm.agent is not None and vm.agent.channel.state is ChannelState.UP, within=60)
            assert (await vm.agent.execute(qga.GET_HOST_NAME)).host_name == "guest"

            await asyncio.to_thread(domain.destroy)
            await until(lambda: vm.known_state is False, within=FOLLOWS)
            # Another event tells it, and may come later.
            await until(lambda: vm.agent is not None and vm.agent.channel.state is ChannelState.GONE, within=FOLLOWS)
            await asyncio.to_thread(domain.undefine)
            await until(lambda: named(inventory, "comes") is None, within=FOLLOWS)

    async def test_a_vm_is_told_what_to_do_by_libvirt(self, libvirt_host: LibvirtHost, image: "GuestImage") -> None:
        said: list[str] = []
        async with following(libvirt_host.uri) as inventory, libvirt_host.domain("power", image) as domain:
            await until(lambda: named(inventory, "power") is not None, within=FOLLOWS)
            vm = named(inventory, "power")
            assert vm
            assert vm.agent
            power = Power(vm, said.append)

            await power.suspend()
            assert (await asyncio.to_thread(domain.state))[0] == 3  # paused
            await power.resume()
            assert (await asyncio.to_thread(domain.state))[0] == 1
            with pytest.raises(GuestError, match="already running"):
                await power.start()
            async with asyncio.timeout(60):  # on a busy machine it is slow at waking
                while not await answers(vm):
                    await asyncio.sleep(0.1)
            await power.reboot(within=60)
            assert "the guest's agent is asked to reboot" in said
            await until(lambda: vm.agent is not None and vm.agent.channel.state is ChannelState.GONE, within=FOLLOWS)
            await until(lambda: vm.agent is not None and vm.agent.channel.state is ChannelState.UP, within=60)
            await power.shutdown(within=60)
            assert not await asyncio.to_thread(domain.isActive)
            await power.start(within=30)
            assert await asyncio.to_thread(domain.isActive)
            await power.reset()
            await power.stop()
            assert not await vm.is_running()
            with pytest.raises(GuestError, match="domain is not running"):
                await power.reset()

    @pytest.mark.parametrize("has_controller", [True, False])
    async def test_one_without_a_channel_is_given_one_as_doctor_says_for_good(
        self, libvirt_host: LibvirtHost, image: "GuestImage", *, has_controller: bool
    ) -> None:
        connection = await asyncio.to_thread(libvirt_host.connect)
        xml = libvirt_host.xml("bare", image.kernel, image.initramfs, channel=False)
        if has_controller:  # libvirt plugs none in
            xml = xml.replace("<rng", "<controller type='virtio-serial'/><rng", 1)
        domain = await asyncio.to_thread(connection.defineXML, xml)
        try:
            await asyncio.to_thread(domain.create)
            async with await connect(libvirt_host.uri) as host:
                found = await examine(host, "bare")
                (step,) = found.steps
                assert (step["step"], "guestwire channel add" in step["next"]) == ("agent", True)
                assert found.help
                assert found.help.channel
                assert found.help.channel.command == "guestwire channel add bare"
                guest = await host.guest("bare")

                added = await guest.agent_channel()

                assert (added.agent, added.now, added.permanent) == (libvirt_host.uri, has_controller, True)
                if not has_controller:
                    await guest.power("stop")
                    await guest.power("start")
                await guest.wait_ready(60)
                with pytest.raises(CallFailed, match="has a channel for a guest agent already"):
                    await guest.agent_channel()
            await asyncio.to_thread(domain.destroy)
            assert AGENT_PORT in await asyncio.to_thread(domain.XMLDesc)
            await asyncio.to_thread(connection.defineXML, xml)  # without one again, and stopped
            async with await connect(libvirt_host.uri) as host:
                added = await (await host.guest("bare")).agent_channel()
                assert (added.now, added.permanent) == (False, True)
            assert AGENT_PORT in await asyncio.to_thread(domain.XMLDesc)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(domain.destroy)
            await asyncio.to_thread(domain.undefine)

    @pytest.mark.usefixtures("libvirt_web")
    async def test_a_channel_is_refused_by_a_read_only_libvirt(self, libvirt_host: LibvirtHost) -> None:
        connection = await asyncio.to_thread(libvirt_host.connect)
        xml = "<domain type='qemu'><name>idle</name><memory>65536</memory><os><type>hvm</type></os></domain>"
        domain = await asyncio.to_thread(connection.defineXML, xml)
        try:
            async with await connect(libvirt_host.read_only_uri) as host:
                with pytest.raises(CallFailed, match="this connection to libvirt is read-only"):
                    await (await host.guest("idle")).agent_channel()
        finally:
            await asyncio.to_thread(domain.undefine)

    @pytest.mark.usefixtures("libvirt_web")
    async def test_a_server_serves_them_and_finds_them_again(self, libvirt_host: LibvirtHost) -> None:
        sources = f'[[source]]\nlibvirt = "{libvirt_host.uri}"\n'
        async with Serving.of(site(sources)) as server:
            client = Client(server)
            async with asyncio.timeout(20):  # libvirt says what QEMU's process has of this host when the VM is not busy
                while True:
                    found = (await client.get("/api2/json/nodes/pve1/qemu")).data
                    (listed,) = [vm for vm in found if vm["name"] == "web"]
                    if listed["memhost"] > 2**20:
                        break
                    await asyncio.sleep(0.2)
            assert (listed["status"], listed["cpus"], listed["maxmem"]) == ("running", 1, 256 * 2**20)
            path = f"/api2/json/nodes/pve1/qemu/{listed['vmid']}"
            state = (await client.get(f"{path}/status/current")).data
            assert (state["qmpstatus"], state["diskread"], state["maxmem"]) == ("running", 0, 256 * 2**20)
            assert 0 <= state["cpu"] < 2
            assert await asyncio.to_thread(_name_of, state["pid"]) == "web"
            assert 0 < state["uptime"] < 3600
            assert (await client.get(f"{path}/agent/get-host-name")).data["result"]["host-name"] == "web"
            started = (await client.post(f"{path}/agent/exec", command=["hostname"])).data["pid"]
            ended: dict[str, Any] = {}
            async with asyncio.timeout(20):
                while not ended.get("exited"):
                    ended = (await client.get(f"{path}/agent/exec-status", pid=started)).data
            assert ended["out-data"] == "web\n"

            await server.restart()
            again = [vm["vmid"] for vm in (await client.get("/api2/json/nodes/pve1/qemu")).data if vm["name"] == "web"]
            assert again == [listed["vmid"]]

    async def test_a_libvirt_that_is_started_again_is_found_again(self, folder: Path, image: "GuestImage") -> None:
        async with LibvirtHost(folder) as host, following(host.uri) as inventory:
            assert inventory.vms == {}
            await host.kill()
            await until(lambda: bool(inventory.sources[host.uri].problem), within=10)
            await host.start()
            connection = await asyncio.to_thread(host.connect)
            await asyncio.to_thread(connection.defineXML, host.xml("later", image.kernel, image.initramfs))
            await until(lambda: named(inventory, "later") is not None, within=10)

    async def test_a_libvirt_that_is_not_there_is_no_reason_to_wait(self, folder: Path) -> None:
        async with following(f"qemu:///system?socket={folder}/none") as inventory:
            assert inventory.vms == {}
            (source,) = inventory.sources.values()
            assert "Failed to connect socket" in source.problem
