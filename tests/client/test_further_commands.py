"""The agent's commands that Proxmox VE lacks, over every way to a real agent: what they do, and what is said where they can't be had."""

import asyncio
import contextlib
import platform
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from calling import site, vm
from persons import SECRET, TOKEN, person, settling
from serving import Serving
from ways import Way, ca_of

from guestwire import connect
from guestwire.agent.commands import ABSENT, SINCE
from guestwire.client import CallFailed, Guest
from guestwire.client.advice import TOO_OLD
from guestwire.client.errors import AgentRefused, NoSuchEndpoint, PrivilegeMissing, WrongParameters
from guestwire.contract.endpoint import Origin
from guestwire.contract.guest_registry import GUEST_ENDPOINTS
from guestwire.contract.parameters import rules
from guestwire.contract.results import ProcessState
from guestwire.stores import Change, Put, Role
from guestwire.testing import CommandError, FakeGuest, SandboxedAgent

pytestmark = pytest.mark.agent

KEY, OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB one@here", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC two@there"

FURTHER = [one for one in GUEST_ENDPOINTS if one.origin is Origin.OWN and one.instead]


@contextlib.asynccontextmanager
async def has_it(way: Way, instead: str) -> AsyncIterator[None]:
    """The calls inside do what they should; or the host is Proxmox VE, and says what to do instead."""
    if not (way.server and way.server.limited):
        yield
        return
    with pytest.raises(NoSuchEndpoint) as missing:
        yield
    assert (
        missing.value.hint == f"Proxmox VE does not have it, but guestwire and an agent's own socket; there: {instead}"
    )


async def ended(guest: Guest, pid: int) -> ProcessState[str]:
    async with asyncio.timeout(20):
        while not (state := await guest.exec_status(pid)).exited:
            await asyncio.sleep(0.02)
    return state


# What is read


async def test_disks_are_those_of_the_kernel_with_their_counters(way: Way) -> None:
    def lines() -> dict[str, list[str]]:
        return {line.split()[2]: line.split() for line in Path("/proc/diskstats").read_text().splitlines()}

    async with has_it(way, "guestwire cat GUEST:/proc/diskstats"):
        before = lines()
        found = await way.guest.get_diskstats()
        after = lines()
        assert {name for name, words in before.items() if any(map(int, words[3:14]))} <= {one.name for one in found}
        for one in found:
            assert [str(one.major), str(one.minor)] == before[one.name][:2]
            assert int(before[one.name][3]) <= (one.stats.read_ios or 0) <= int(after[one.name][3])
            assert int(before[one.name][9]) <= (one.stats.write_sectors or 0) <= int(after[one.name][9])
    async with has_it(way, "guestwire exec GUEST -- lsblk"):
        named = {one.name.removeprefix("/dev/") for one in await way.guest.get_disks()}
        assert named <= {path.name for path in Path("/sys/class/block").iterdir()}


async def test_the_time_of_processors_is_the_kernels(way: Way) -> None:
    def idle() -> dict[int, int]:
        words = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        return {int(word[0][3:]): int(word[4]) * 10 for word in words if word[0][:3] == "cpu" and word[0] != "cpu"}

    async with has_it(way, "guestwire cat GUEST:/proc/stat"):
        before = idle()
        found = {one.cpu: one for one in await way.guest.get_cpustats()}
        after = idle()
        assert found.keys() == after.keys()
        assert all(before[cpu] <= one.idle <= after[cpu] for cpu, one in found.items())
        assert {one.type for one in found.values()} == {"linux"}


async def test_load_is_that_of_the_kernel_on_every_way_and_from_every_agent(way: Way) -> None:
    def average() -> float:
        return float(Path("/proc/loadavg").read_text().split()[2])

    before = average()
    found = await way.guest.load()

    assert sorted([before, found.load15m, average()])[1] == found.load15m


async def test_routes_are_read_on_every_way_and_from_every_agent(way: Way) -> None:
    """A sandbox has a loopback interface alone."""
    found = await way.guest.routes()

    assert {one.iface for one in found} <= {"lo"}
    assert all(one.version == 6 for one in found)


async def test_an_agent_that_is_too_old_says_since_when_there_is_such_a_command(way: Way) -> None:
    for call, since in ((way.guest.get_load, "10.0"), (way.guest.network_get_route, "9.1 (in Windows 11.0)")):
        with pytest.raises((AgentRefused, NoSuchEndpoint)) as refused:
            await call()
        if isinstance(refused.value, AgentRefused):
            assert refused.value.is_too_old
            assert refused.value.description.endswith(f": there is one since QEMU {since}")
            assert refused.value.hint == TOO_OLD
        else:
            assert way.server
            assert way.server.limited


async def test_a_command_of_another_system_is_said_to_be_that(way: Way) -> None:
    async with has_it(way, "guestwire exec GUEST -- pnputil /enum-drivers"):
        with pytest.raises(AgentRefused) as refused:
            await way.guest.get_devices()
        system = platform.freedesktop_os_release()["ID"]
        assert refused.value.description == f"no agent of this system ({system}) has guest-get-devices"
        assert not refused.value.is_too_old


async def test_a_command_that_the_policy_forbids_is_told_from_one_that_is_too_new(folder: Path) -> None:
    blocked = ["guest-get-disks", "guest-ssh-get-authorized-keys"]
    async with (
        SandboxedAgent(folder / "a.qga", blocked=blocked) as agent,
        await connect(f"unix:{agent.socket}") as host,
    ):
        guest = await host.guest("any")
        for call in (
            guest.get_disks(),
            guest.ssh_get_authorized_keys("root"),
            guest.set_time(),
            guest.set_vcpus(online="0"),
        ):
            with pytest.raises(AgentRefused) as refused:
                await call
            assert "is switched off in the guest, by the policy of its agent (" in refused.value.description
            assert "take it out of qemu-ga's --block-rpcs" in refused.value.hint
            assert not refused.value.is_too_old


async def test_a_command_in_a_frozen_guest_is_said_to_wait_for_the_thaw(folder: Path) -> None:
    def refuse(_: object) -> Any:
        raise CommandError("CommandNotFound", "Command guest-get-disks has been disabled: the agent is in frozen state")

    listed = [{"name": "guest-get-disks", "enabled": False}]
    replies = {
        "guest-get-disks": refuse,
        "guest-fsfreeze-status": "frozen",
        "guest-info": {"version": "7.2.22", "supported_commands": listed},
    }
    async with FakeGuest(folder / "f.qga", replies=replies), await connect(f"unix:{folder}/f.qga") as host:
        with pytest.raises(AgentRefused, match="guestwire thaw GUEST"):
            await (await host.guest("any")).get_disks()


# Keys


async def test_keys_come_into_the_users_file_and_go(way: Way) -> None:
    file = way.agent.home / ".ssh" / "authorized_keys"
    file.unlink(missing_ok=True)
    if way.server and way.server.limited:
        async with has_it(way, "guestwire edit GUEST:/home/USER/.ssh/authorized_keys"):
            await way.guest.ssh_add_authorized_keys("root", [KEY])
        async with has_it(way, "guestwire cat GUEST:/home/USER/.ssh/authorized_keys"):
            await way.guest.ssh_get_authorized_keys("root")
        return
    with pytest.raises(AgentRefused, match="has no keys yet"):
        await way.guest.ssh_get_authorized_keys("root")
    await way.guest.ssh_add_authorized_keys("root", [KEY])
    await way.guest.ssh_add_authorized_keys("root", [KEY, OTHER])
    assert file.read_text().splitlines() == [KEY, OTHER]
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted((await way.guest.ssh_get_authorized_keys("root")).keys) == [KEY, OTHER]
    await way.guest.ssh_remove_authorized_keys("root", [KEY])
    assert file.read_text().strip() == OTHER
    await way.guest.ssh_add_authorized_keys("root", [KEY], reset=True)
    assert (await way.guest.ssh_get_authorized_keys("root")).keys == [KEY]
    for name, keys, says in (("nobodyhere", [KEY], "has such a user"), ("root", ["a\nb"], r"one line of a \.pub file")):
        with pytest.raises(AgentRefused, match=says):
            await way.guest.ssh_add_authorized_keys(name, keys)
    with pytest.raises(WrongParameters, match="NUL"):
        await way.guest.ssh_add_authorized_keys("root", ["a\0b"])


# Programs


async def test_a_program_has_the_environment_that_it_was_given_and_no_other(way: Way) -> None:
    async with has_it(way, "guestwire exec --env NAME=VALUE GUEST -- PROGRAM"):
        command = ["/usr/bin/env"]
        pid = (await way.guest.exec_capture(command, env=["A=b c=d", "E="])).pid
        lines = (await ended(way.guest, pid)).out_data.splitlines()  # type: ignore[union-attr]  # it writes some
        assert {"A=b c=d", "E="} <= set(lines)
        # libvirt's is started by a shell, which sets its own.
        assert {line.partition("=")[0] for line in lines} - {"A", "E"} <= {"PWD", "SHLVL", "_", "OLDPWD"}
        pid = (await way.guest.exec_capture(command, input_data="x")).pid
        assert "PATH=" in ((await ended(way.guest, pid)).out_data or "")
        with pytest.raises(WrongParameters, match="NAME=VALUE"):
            await way.guest.exec_capture(command, env=["=x"])
        with pytest.raises(WrongParameters, match="there is no program"):
            await way.guest.exec_capture([])


async def test_outputs_are_kept_apart_or_not_at_all_or_as_one_where_the_agent_can(way: Way) -> None:
    async with has_it(way, "guestwire exec --env NAME=VALUE GUEST -- PROGRAM"):
        script = ["sh", "-c", "echo one; echo two >&2; echo three; exit 4"]
        for capture, out, err in (("separated", "one\nthree\n", "two\n"), ("none", None, None)):
            state = await ended(way.guest, (await way.guest.exec_capture(script, capture=capture)).pid)
            assert (state.exitcode, state.out_data, state.err_data) == (4, out, err)
        if "libvirt" in way.options[1]:  # there a shell does it
            state = await ended(way.guest, (await way.guest.exec_capture(script, capture="merged")).pid)
            assert (state.out_data, state.err_data) == ("one\ntwo\nthree\n", None)
            return
        with pytest.raises(AgentRefused, match=r"can't merge outputs: one can since QEMU 8\.0") as refused:
            await way.guest.exec_capture(script, capture="merged")
        assert refused.value.is_too_old


# Files


async def test_a_file_is_added_to_and_made_where_there_is_none(way: Way) -> None:
    async with has_it(way, "guestwire exec -i GUEST -- tee -a FILE"):
        (way.agent.home / "log").unlink(missing_ok=True)
        await way.guest.file_append("/root/log", "one\n")
        await way.guest.file_append("/root/log", "5LiW", encode=False)
        await way.guest.file_append("/root/log", "")
        assert (way.agent.home / "log").read_bytes() == b"one\n" + "世".encode()
        assert way.agent.handles() == []
        with pytest.raises(CallFailed, match="No space left on device; make room"):
            await way.guest.file_append("/dev/full", "x")
        with pytest.raises(WrongParameters, match="not base64"):
            await way.guest.file_append("/root/log", "no base64!", encode=False)


# Who may, and what is refused before the guest is asked


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, "online: one of online and offline must have numbers"),
        ({"online": "1-0"}, "online: 1-0: a range begins with its smaller number"),
        ({"online": "0-99999"}, "online: more than 4096 numbers"),
        ({"online": "0,1", "offline": "1-2"}, "offline: 1 is to be online, too"),
        ({"online": "-1"}, "'-1' is no number and no range"),
        ({"offline": "1..2"}, "'1..2' is no number and no range"),
        ({"offline": "1;2"}, ""),
    ],
)
async def test_numbers_that_are_none_are_refused(folder: Path, given: dict[str, str], wrong: str) -> None:
    replies = {"guest-set-vcpus": lambda arguments: len(arguments["vcpus"]), "guest-set-memory-blocks": []}
    async with FakeGuest(folder / "f.qga", replies=replies) as fake, await connect(f"unix:{folder}/f.qga") as host:
        guest = await host.guest("any")
        if not wrong:  # a list as Proxmox VE takes them
            assert await guest.set_vcpus(**given) == 2
            return
        for call in (guest.set_vcpus, guest.set_memory_blocks):
            with pytest.raises(WrongParameters) as refused:
                await call(**given)
            assert wrong in str(refused.value)
        assert fake.names() == []


async def test_processors_that_fail_are_told_with_the_reason_and_those_before_them(folder: Path) -> None:
    def set_vcpus(arguments: dict[str, Any]) -> int:
        numbers = [one["logical-id"] for one in arguments["vcpus"]]
        if numbers[0] == 2:
            raise CommandError("GenericError", "logical processor #2 can't be offlined")
        return numbers.index(2) if 2 in numbers else len(numbers)

    async with (
        FakeGuest(folder / "f.qga", replies={"guest-set-vcpus": set_vcpus}) as fake,
        await connect(f"unix:{folder}/f.qga") as host,
    ):
        guest = await host.guest("any")
        assert await guest.set_vcpus(online="0-1", offline="3") == 3
        with pytest.raises(AgentRefused, match=r"#2 can't be offlined \(2 processors were set before\)"):
            await guest.set_vcpus(offline="0-3")
        fake.replies["guest-set-vcpus"] = 9
        with pytest.raises(CallFailed, match="9 processors set of 1"):
            await guest.set_vcpus(offline="0")


ROLES = {"Looks": "VM.GuestAgent.Audit", "Trims": "VM.GuestAgent.FileSystemMgmt", "Powers": "VM.PowerMgmt", "Writes": "VM.GuestAgent.FileWrite"}  # fmt: skip
GIVEN: dict[str, dict[str, Any]] = {
    "ssh-get-authorized-keys": {"username": "root"},
    "ssh-add-authorized-keys": {"username": "root", "keys": [KEY]},
    "ssh-remove-authorized-keys": {"username": "root", "keys": [KEY]},
    "set-vcpus": {"online": "0"},
    "set-memory-blocks": {"online": "0"},
    "exec-capture": {"command": ["true"]},
    "file-append": {"file": "/f", "content": "x"},
}
REPLIES: dict[str, Any] = {
    "guest-get-disks": [], "guest-get-diskstats": [], "guest-get-cpustats": [], "guest-get-devices": [], "guest-network-get-route": [],
    "guest-get-load": {"load1m": 0, "load5m": 0.5, "load15m": 1}, "guest-ssh-get-authorized-keys": {"keys": []},
    "guest-ssh-add-authorized-keys": {}, "guest-ssh-remove-authorized-keys": {}, "guest-set-time": {}, "guest-set-vcpus": 1,
    "guest-set-memory-blocks": [{"phys-index": 0, "response": "success"}], "guest-exec": {"pid": 1}, "guest-fstrim": {"paths": []},
    "guest-file-flush": {}, "guest-shutdown": None,
}  # fmt: skip
ALLOWED = {
    "Looks": {"get-disks", "get-diskstats", "get-cpustats", "get-load", "network-get-route", "get-devices", "ssh-get-authorized-keys"},
    "Trims": {"fstrim-minimum"},
    "Powers": {"shutdown-mode"},
    "Writes": {"file-append"},
}  # fmt: skip


async def test_each_privilege_allows_its_own_commands_and_all_is_needed_for_the_rest() -> None:
    roles: list[Change] = [Put(Role(name, frozenset({privilege, "VM.Audit"}))) for name, privilege in ROLES.items()]
    roles.append(Put(Role("All", frozenset({"VM.GuestAgent.Unrestricted", "VM.Audit"}))))
    people = [person(f"{name.lower()}@pve", ("/vms", name)) for name in (*ROLES, "All")]
    async with (
        Serving.of(site(vm(100, "web")), prepare=settling(roles, *people)) as server,
        FakeGuest(server.folder / "100.qga", replies=REPLIES, files={"/f": bytearray()}, no_reply=set()),
    ):
        for name in (*ROLES, "All"):
            token = f"{name.lower()}@pve!{TOKEN}={SECRET}"
            async with await connect(f"https://127.0.0.1:{server.port}", token=token, ca=ca_of(server)) as host:
                guest = await host.guest(100)
                did = set()
                for one in FURTHER:
                    with contextlib.suppress(PrivilegeMissing):
                        await guest.call_endpoint(one, GIVEN.get(one.name))
                        did.add(one.name)
            assert did == ALLOWED.get(name, {one.name for one in FURTHER}), name


def test_each_further_endpoint_says_what_helps_where_it_is_not_and_names_only_what_the_table_has() -> None:
    own = [one for one in GUEST_ENDPOINTS if one.origin is Origin.OWN and one.is_about_guest]

    assert {one.name for one in own} - {one.name for one in FURTHER} == {
        "fsfreeze-with-lease",
        "file-list",
        "file-piece",
    }
    assert all("guestwire " in one.instead for one in FURTHER)
    assert len(SINCE) == 44
    assert frozenset().union(*ABSENT.values()) <= SINCE.keys()
    assert all(rules(one.parameters) for one in FURTHER)
