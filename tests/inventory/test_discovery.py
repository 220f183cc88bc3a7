"""VMs that no configuration names: QEMU's processes, folders of sockets, and ids that stay."""

import asyncio
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from calling import Client, agent, guestwire, site
from msgspec.structs import replace
from serving import Serving
from waiting import until

from guestwire.channels.agent_port import NO_CHANNEL, qemu_options
from guestwire.client import Host
from guestwire.client.carriers.local import LocalCarrier
from guestwire.client.diagnosis import examine
from guestwire.inventory import Inventory
from guestwire.inventory import discovery as discovery_module
from guestwire.inventory.config import VmConfig
from guestwire.inventory.discovery import Discovery
from guestwire.inventory.found import FoundVm
from guestwire.inventory.qemu_processes import QemuProcesses, found_in
from guestwire.inventory.socket_folders import SocketFolder
from guestwire.stores import MemoryStore
from guestwire.testing import FakeGuest, SandboxedAgent

OWN: Final = os.geteuid()
PORT: Final = "org.qemu.guest_agent.0"
UUID: Final = "3ed19d7d-734e-43c6-ad61-000000000000"


def words(agent: Path, *more: str) -> list[str]:
    return [
        "qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-uuid", UUID,
        "-chardev", f"socket,id=qga0,path={agent},server=on,wait=off", "-device", "virtio-serial",
        "-device", f"virtserialport,id=p0,chardev=qga0,name={PORT}", *more,
    ]  # fmt: skip


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Path]:
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / "web.qga")
    yield tmp_path / "web.qga"
    server.close()


async def test_a_command_line_says_name_uuid_and_sockets(socket: Path) -> None:
    for more in (
        ("-qmp", f"unix:{socket},server=on"),
        ("-chardev", f"socket,id=m,path={socket}", "-mon", "chardev=m,mode=control"),
    ):
        found = found_in(words(socket, *more), 7, OWN, Path("/"))

        assert found == FoundVm(
            key=UUID, name="web", source="QEMU process 7", agent=f"unix:{socket}", qmp=f"unix:{socket}", running=True
        )


async def test_a_command_line_may_have_json_commas_and_paths_of_its_own_folder(socket: Path) -> None:
    line = [
        "/usr/bin/kvm", "-name", "my,,vm", "-chardev", "socket,id=a,path=web.qga,server=on",
        "-device", f'{{"driver":"virtserialport","chardev":"a","name":"{PORT}"}}',
    ]  # fmt: skip

    found = found_in(line, 7, OWN, socket.parent)

    assert (found.agent, found.key, found.problem) == (f"unix:{socket}", str(socket), "")


@pytest.mark.parametrize(
    ("line", "problem", "hint"),
    [
        (["qemu-system-x86_64", "-name", "web"], NO_CHANNEL, f"name={PORT}"),
        (words(Path("/run/libvirt/qemu/channel/1-web/org.qemu.guest_agent.0")), "libvirt holds its agent's socket", "qemu:///system"),
        (words(Path("/var/run/qemu-server/100.qga"), "-id", "100"), "Proxmox VE's own service uses its agent's socket", "--host https://"),
        (words(Path("/none/web.qga")), "/none/web.qga: No such file or directory", "see where its QEMU was started"),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_said_with_what_helps(line: list[str], problem: str, hint: str) -> None:
    found = found_in(line, 7, OWN, Path("/"))

    assert found.problem == problem
    assert hint in found.hint
    assert found.agent is None


def test_a_socket_that_libvirt_passed_on_is_libvirts() -> None:
    line = [
        "qemu-system-x86_64",
        "-chardev",
        "socket,id=c,fd=27,server=on",
        "-device",
        f"virtserialport,chardev=c,name={PORT}",
    ]

    assert found_in(line, 7, OWN, Path("/")).problem == "libvirt holds its agent's socket"


async def test_a_vm_without_a_channel_is_listed_where_one_can_be_plugged_in_and_found_again(socket: Path) -> None:
    line = ["qemu-system-x86_64", "-name", "web", "-qmp", f"unix:{socket},server=on"]

    without = found_in(line, 7, OWN, Path("/"))
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), f"{socket}.qga")
    with_one = found_in(line, 7, OWN, Path("/"))
    server.close()

    assert (without.agent, without.qmp) == (None, f"unix:{socket}")
    assert (without.problem, without.hint) == (
        NO_CHANNEL, "give it one: guestwire channel add web"
    )  # fmt: skip
    assert with_one.key == without.key
    assert (with_one.agent, with_one.qmp, with_one.problem) == (f"unix:{socket}.qga", f"unix:{socket}", "")


async def test_a_process_leads_to_no_socket_of_another_user(socket: Path) -> None:
    other = found_in(words(socket), 7, 65534, Path("/"))

    assert other.problem.startswith("it is of user ")
    assert other.agent is None


@pytest.mark.skipif(OWN != 0, reason="only root can give files away")
async def test_a_socket_that_is_not_of_its_qemu_is_left_alone(socket: Path) -> None:
    os.chown(socket, 65534, 65534)

    assert found_in(words(socket), 7, OWN, Path("/")).problem == f"{socket} is of another user than its QEMU"


@pytest.mark.parametrize(
    "line",
    [
        ["qemu-system-x86_64"],
        ["kvm", "-name"],
        ["kvm", "-device", "{", "-chardev", ",,,=", "-mon", ""],
        ["kvm", "-device", '{"a":' * 100_000],
    ],
)
def test_no_command_line_is_too_odd(line: list[str]) -> None:
    assert found_in(line, 7, OWN, Path("/")).problem == "it has no channel for a guest agent"


def test_a_path_that_is_none_is_said() -> None:
    line = words(Path("/x"), "-qmp", "unix:/x")
    line[line.index("-chardev") + 1] = '{"id":"qga0","path":"/\\u0000\\ud800"}'

    assert found_in(line, 7, OWN, Path("/")).problem.endswith(" is no path")


def test_a_name_is_text_whatever_bytes_it_has() -> None:
    found = found_in(["kvm", "-name", "w\udcff", "-uuid", "\udcff"], 7, OWN, Path("/"))

    assert (found.name, found.key) == ("w\\udcff", "\\udcff")


@pytest.mark.skipif(OWN != 0, reason="only root can begin as another user")
async def test_a_set_user_id_program_is_no_qemu_of_root_whatever_its_command_line_says() -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own are root's alone
    folder.chmod(0o755)
    shutil.copy("/bin/sleep", program := folder / "qemu-system-x86_64")
    for mode, user, is_found in ((0o755, None, True), (0o4755, 65534, False), (0o4755, None, False)):
        program.chmod(mode)
        process = await asyncio.create_subprocess_exec(program, "60", user=user)
        try:
            found = [vm for vm in QemuProcesses().find() if vm.source == f"QEMU process {process.pid}"]
            assert bool(found) is is_found
        finally:
            process.kill()
            await process.wait()
    shutil.rmtree(folder)


async def start_qemu(folder: Path, name: str) -> asyncio.subprocess.Process:
    """A VM without a system, with an agent's channel and nobody behind it."""
    process = await asyncio.create_subprocess_exec(
        "qemu-system-x86_64", "-name", name, "-uuid", UUID, "-machine", "pc", "-accel", "tcg", "-m", "64", "-nodefaults",
        "-display", "none", "-S", "-chardev", f"socket,id=a,path={folder}/{name}.qga,server=on,wait=off", "-device", "virtio-serial",
        "-device", f"virtserialport,chardev=a,name={PORT}", "-qmp", f"unix:{folder}/{name}.qmp,server=on,wait=off",
    )  # fmt: skip
    await until((folder / f"{name}.qmp").exists, 30)
    return process


@pytest.mark.slow
async def test_a_real_qemu_is_found_as_long_as_it_runs(tmp_path: Path) -> None:
    def found() -> dict[str, FoundVm]:
        return {vm.name: vm for vm in QemuProcesses().find()}

    qemu = await start_qemu(tmp_path, "found-here")
    try:
        vm = found()["found-here"]
        assert (vm.agent, vm.qmp, vm.key) == (
            f"unix:{tmp_path}/found-here.qga",
            f"unix:{tmp_path}/found-here.qmp",
            UUID,
        )
        listed = await guestwire("ls")
        assert "found-here" in listed.output
        shown = await guestwire("vm", "found-here")
        assert "prelaunch" in shown.output
        assert (await guestwire("ping", "no-such-vm")).code == 4
    finally:
        qemu.kill()
        await qemu.wait()
    assert "found-here" not in found()


def fitting(folder: Path, pattern: str = "*.qga") -> dict[str, FoundVm]:
    return {vm.name: vm for vm in SocketFolder(folder, pattern).find()}


async def test_a_folder_has_a_vm_for_each_socket_that_fits(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "file.qga").write_text("no socket")
    async with (
        FakeGuest(tmp_path / "web.qga"),
        FakeGuest(tmp_path / "103.qga"),
        FakeGuest(tmp_path / "deep" / "vm-agent.sock"),
    ):
        assert fitting(tmp_path).keys() == {"web", "103"}
        assert fitting(tmp_path)["103"].vmid == 103
        assert fitting(tmp_path, "*/*-agent.sock").keys() == {"vm"}
    assert fitting(tmp_path) == {}


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SocketFolder(tmp_path / "none", "*").find()


def vm(key: str, vmid: int | None = None) -> FoundVm:
    return FoundVm(key=key, name=key, source="test", vmid=vmid, agent=f"unix:/run/{key}")


class Place:
    """A source that the test fills."""

    def __init__(self, *vms: FoundVm, name: str = "the test") -> None:
        self.name = name
        self.vms: list[FoundVm] = list(vms)
        self.error: Exception | None = None

    def find(self) -> list[FoundVm]:
        if self.error:
            raise self.error
        return self.vms


@pytest.fixture
async def inventory() -> AsyncIterator[Inventory]:
    made = Inventory("pve1")
    yield made
    await made.close()


async def ids(inventory: Inventory, store: MemoryStore | None, *vms: FoundVm, taken: int = 0) -> dict[str | None, int]:
    named = [VmConfig(vmid=taken, name="named")] if taken else []
    await Discovery(inventory, [Place(*vms)], store, named).look()
    return {one.config.name: vmid for vmid, one in inventory.vms.items() if one.config.name != "named"}


async def test_ids_are_given_once_and_kept_with_the_store(inventory: Inventory) -> None:
    store = MemoryStore()

    assert await ids(inventory, store, vm("b"), vm("a"), vm("c", 105), taken=100) == {"c": 105, "a": 101, "b": 102}
    assert await ids(inventory, store, vm("d"), vm("b"), taken=100) == {"b": 102, "d": 103}


async def test_an_id_that_the_configuration_takes_is_given_up(inventory: Inventory) -> None:
    store = MemoryStore()
    assert await ids(inventory, store, vm("a")) == {"a": 100}

    assert await ids(inventory, store, vm("a"), vm("b", 200), taken=100) == {"b": 200, "a": 101}


async def test_without_a_store_an_id_follows_from_the_vm_alone(inventory: Inventory) -> None:
    alone = await ids(inventory, None, vm("a"))
    beside = await ids(inventory, None, vm("b"), vm("a"), vm("c", 105))

    assert alone["a"] == beside["a"] > 10**8
    assert beside["c"] == 105


async def test_what_the_configuration_names_counts_before_what_is_found(inventory: Inventory) -> None:
    named = VmConfig(vmid=100, name="mine", agent="unix:/run/a")
    place = Place(vm("a"), vm("b"), FoundVm(key="x", name="x", source="test", problem="no channel", hint="give it one"))
    discovery = Discovery(inventory, [place, Place(vm("b", 777))], MemoryStore(), [named])

    await discovery.look()

    assert {vmid: one.config.name for vmid, one in inventory.vms.items()} == {100: "mine", 101: "b"}
    assert [one.name for one in discovery.unusable] == ["x"]


async def test_doctor_says_why_a_vm_that_was_found_can_not_be_used() -> None:
    words = ["qemu-system-x86_64", "-name", "bare"]
    bare = found_in(words, 7, OWN, Path("/"))
    carrier = LocalCarrier("this machine", [Place(bare, replace(bare, key="y", name="held", problem="it is held"))])
    async with Host(carrier, machine=carrier, is_local=True) as host:
        found, held = await examine(host, "bare"), await examine(host, "held")

    assert [(step["step"], step["found"], step["next"]) for step in found.steps] == [("vm", NO_CHANNEL, bare.hint)]
    assert found.help
    assert found.help.channel
    assert found.help.channel.qemu == qemu_options("PATH")
    assert all(option in bare.hint for option in found.help.channel.qemu)
    assert (held.steps[-1]["found"], held.help) == ("it is held", None)


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (OSError(24, "Too many open files"), {"a", "b", "c"}),
        (RecursionError(), {"a", "b", "c"}),
        (FileNotFoundError(2, "No such file or directory"), {"b", "c"}),
    ],
)
async def test_a_source_that_fails_hides_no_other_and_loses_its_vms_only_when_it_is_gone(
    inventory: Inventory, error: Exception, left: set[str]
) -> None:
    one, other = Place(vm("a"), name="one"), Place(vm("b"))
    discovery = Discovery(inventory, [one, other], MemoryStore())
    await discovery.look()
    kept = inventory.vms[101]

    one.error = error
    other.vms.append(vm("c"))
    await discovery.look()

    assert inventory.vms[101] is kept
    assert {entry.config.name for entry in inventory.vms.values()} == left


async def test_a_source_that_hangs_delays_no_other_and_is_asked_once(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_module, "FIND_WITHIN", 0.2)
    answers, asked = threading.Event(), []

    class Hanging(Place):
        def find(self) -> list[FoundVm]:
            asked.append(self)
            answers.wait()
            return super().find()

    discovery = Discovery(inventory, [Hanging(vm("a"), name="hangs"), Place(vm("b"))], MemoryStore())
    try:
        for _ in range(3):
            await discovery.look()
        assert [one.config.name for one in inventory.vms.values()] == ["b"]
    finally:
        answers.set()

    async with asyncio.timeout(10):
        while len(inventory.vms) < 2:
            await discovery.look()
    assert len(asked) == 1


async def test_a_vm_that_two_find_is_there_once_by_whatever_name_of_its_folder(
    inventory: Inventory, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var-run").symlink_to(tmp_path / "run")
    named = VmConfig(vmid=100, name="named", agent=f"unix:{tmp_path}/var-run/a.qga")
    found = [
        FoundVm(key=f"{tmp_path}/run/{one}", name=one, source="", agent=f"unix:{tmp_path}/run/{one}.qga")
        for one in "ab"
    ]
    again = FoundVm(key=UUID, name="again", source="", agent=f"unix:{tmp_path}/var-run/b.qga")

    await Discovery(inventory, [Place(*found), Place(again, name="other")], MemoryStore(), [named]).look()

    assert [one.config.name for one in inventory.vms.values()] == ["named", "b"]


async def test_a_process_that_can_not_be_used_hides_no_vm_whose_uuid_it_names(inventory: Inventory) -> None:
    false = FoundVm(key="a", name="false", source="test", problem="it is of user mallory")

    await Discovery(inventory, [Place(false, vm("a"))], MemoryStore()).look()

    assert [one.config.name for one in inventory.vms.values()] == ["a"]


async def test_what_can_not_be_used_is_logged_once_on_one_line(
    inventory: Inventory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    problem = FoundVm(key="x", name="x", source="test", problem="it is\nof user x", hint="name\n/x")
    discovery = Discovery(inventory, [Place(problem)], MemoryStore())

    await discovery.look()
    await discovery.look()

    assert [record.getMessage() for record in caplog.records if "can't be used" in record.getMessage()] == [
        "'x' (test) can't be used: 'it is\\nof user x'; 'name\\n/x'"
    ]


def folder_site(state: str = "") -> Callable[[Path, int], str]:
    def config(folder: Path, port: int) -> str:
        (folder / "vms").mkdir(exist_ok=True)
        return site(server=state)(folder, port) + f'[[source]]\nfolder = "{folder}/vms"\n'

    return config


async def names(client: Client) -> dict[str, int]:
    listed: list[dict[str, Any]] = (await client.get("/api2/json/nodes/pve1/qemu")).data
    return {one["name"]: one["vmid"] for one in listed}


@pytest.mark.agent
async def test_a_server_follows_a_folder_and_ids_outlive_it() -> None:
    async with Serving.of(folder_site(), killed=True) as server:
        client = Client(server)
        assert await names(client) == {}
        async with SandboxedAgent(server.folder / "vms" / "web.qga"), FakeGuest(server.folder / "vms" / "db.qga"):
            async with asyncio.timeout(10):
                while (given := await names(client)).keys() != {"web", "db"}:
                    await asyncio.sleep(0.05)
            assert (await client.post(agent("ping", vmid=given["web"]))).data == {"result": {}}
            await server.restart()
            client = Client(server)
            assert await names(client) == given
        (server.folder / "vms" / "web.qga").unlink(missing_ok=True)  # one that was killed leaves it
        async with asyncio.timeout(10):
            while await names(client):
                await asyncio.sleep(0.05)
        server.signal(signal.SIGTERM)
        await server.process.wait()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[source]]\n", "a source is one of qemu = true, folder"),
        ('[[source]]\nqemu = true\nfolder = "/a"\n', "a source is one of qemu = true, folder"),
        ('[[source]]\nfolder = "a"\n', "'a' is not an absolute path"),
        ('[[source]]\nfolder = "/a"\npattern = "../*"\n', "'../*' is no pattern below the folder"),
        ("[[source]]\nqemu = false\n", "qemu"),
    ],
)
async def test_a_source_that_means_nothing_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "guestwire.toml").write_text(text)

    ended = await guestwire("serve", "--check", "--config", str(tmp_path / "guestwire.toml"))

    assert ended.code == 78
    assert said in ended.errors
