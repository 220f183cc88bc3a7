"""Starting and ending VMs over the API: with real QEMU, and tasks that say how each ended."""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from access_calls import As
from calling import Answer, Ended, guestwire, site
from happenings import followed
from persons import authorization, person, settling
from serving import Serving
from ways import over_https

from guestwire.contract.upid import Upid
from guestwire.stores import AclEntry, Change, Put, Role

if TYPE_CHECKING:
    from devtools.guests import GuestImage, Machine

NODE: Final = "/api2/json/nodes/pve1"
VM: Final = f"{NODE}/qemu/100"
ENDS_WITHIN: Final = 30.0
BOOTS_WITHIN: Final = 60.0

QEMU: Final = (
    "qemu-system-x86_64", "-name", "bare", "-machine", "pc", "-accel", "tcg", "-m", "64", "-smp", "2", "-nodefaults",
    "-display", "none", "-daemonize", "-drive", "driver=null-co,read-zeroes=on,size=1M,if=virtio,id=drive-virtio0",
)  # fmt: skip
"""A VM without a system: it heeds no power button."""


def config(folder: Path, port: int) -> str:
    qmp = f"{folder}/100.qmp"
    start = json.dumps([*QEMU, "-qmp", f"unix:{qmp},server=on,wait=off", "-pidfile", f"{folder}/100.pid"])
    slow = json.dumps(["sh", "-c", f"echo begins; touch {folder}/begun; exec sleep 600"])
    return f"""
[server]
listen = "127.0.0.1:{port}"
node = "pve1"
state_dir = "{folder}/state"

[[vm]]
vmid = 100
name = "bare"
qmp = "unix:{qmp}"
description = "no system\\nat all"
tags = ["lab", "web"]
power = {{ start = {start} }}

[[vm]]
vmid = 101
running = false
power = {{ start = ["sh", "-c", "echo no room >&2; exit 3"] }}

[[vm]]
vmid = 102
running = true

[[vm]]
vmid = 103
running = false
power = {{ start = {slow} }}

[[vm]]
vmid = 104
running = false
power = {{ start = ["/no/such/program"] }}
"""


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    people: list[list[Change]] = [
        [Put(Role("OnlyPower", frozenset({"VM.PowerMgmt"})))],
        person("boss@pve", ("/", "Administrator")),
        person("power@pve", ("/vms", "OnlyPower")),
        person("looker@pve", ("/vms", "PVEAuditor")),
        [Put(AclEntry("/vms/100", "user", "power@pve", "PVEAuditor"))],
    ]
    async with Serving.of(config, prepare=settling(*people)) as server:
        yield server
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # no test has left it running
            os.kill(int((server.folder / "100.pid").read_text()), signal.SIGKILL)


@pytest.fixture
def boss(server: Serving) -> As:
    return As(server)


async def status_of(client: As, upid: str) -> Answer:
    return await client.call("GET", f"{NODE}/tasks/{upid}/status")


async def ended(client: As, answer: Answer) -> tuple[str, list[str]]:
    """How the task of an answer ended, and its log."""
    assert answer.status == 200, answer.reason
    upid = answer.data
    async with asyncio.timeout(ENDS_WITHIN):
        while (found := (await status_of(client, upid)).data)["status"] == "running":
            await asyncio.sleep(0.05)
    lines = (await client.call("GET", f"{NODE}/tasks/{upid}/log", limit=0)).data
    assert [line["n"] for line in lines] == list(range(1, len(lines) + 1))
    return found["exitstatus"], [line["t"] for line in lines]


async def power(client: As, action: str, vmid: int = 100, **parameters: object) -> tuple[str, list[str]]:
    return await ended(client, await client.call("POST", f"{NODE}/qemu/{vmid}/status/{action}", **parameters))


async def current(client: As) -> dict[str, Any]:
    return dict((await client.call("GET", f"{VM}/status/current")).data)


async def running(client: As) -> dict[str, Any]:
    if (await current(client))["status"] != "running":
        assert (await power(client, "start"))[0] == "OK"
    return await current(client)


@pytest.mark.slow
async def test_a_vm_is_started_paused_reset_and_stopped(boss: As) -> None:
    assert (await current(boss))["qmpstatus"] == "stopped"

    assert (await power(boss, "start"))[0] == "OK"
    state = await current(boss)
    assert (state["status"], state["qmpstatus"]) == ("running", "running")
    assert await power(boss, "start") == ("VM 100 already running", ["TASK ERROR: VM 100 already running"])
    assert await power(boss, "suspend") == ("OK", ["QEMU is told: stop", "TASK OK"])
    async with asyncio.timeout(ENDS_WITHIN):
        while (await current(boss))["qmpstatus"] != "paused":
            await asyncio.sleep(0.05)
    assert (await power(boss, "resume"))[0] == "OK"
    assert (await power(boss, "reset"))[0] == "OK"
    assert (await power(boss, "stop"))[0] == "OK"
    assert (await current(boss))["status"] == "stopped"


@pytest.mark.slow
async def test_all_that_is_done_to_a_vm_is_an_event(server: Serving, boss: As) -> None:
    async with await over_https(server) as host, followed(host) as happenings:
        for action, kind in (
            ("start", "guest-started"), ("suspend", "guest-paused"), ("resume", "guest-resumed"), ("reset", "guest-reset"),
            ("stop", "guest-stopped"),
        ):  # fmt: skip
            assert (await power(boss, action))[0] == "OK"
            event = await happenings.wait_for(kind)
            assert (event.vmid, event.name, event.node) == (100, "bare", "pve1")
    assert await power(boss, "stop") == ("OK", ["VM 100 is not running", "TASK OK"])
    assert (await power(boss, "shutdown"))[0] == "OK"
    for action in ("reboot", "reset", "suspend", "resume"):
        answer = await boss.call("POST", f"{VM}/status/{action}")
        assert (answer.status, answer.reason) == (500, "VM 100 not running")


FIGURES: Final = {
    "agent", "cpu", "cpus", "disk", "diskread", "diskwrite", "blockstat", "ha", "maxdisk", "maxmem", "mem", "memhost", "name",
    "netin", "netout", "pid", "qmpstatus", "running-machine", "running-qemu", "status", "tags", "uptime", "vmid",
    *(f"pressure{name}{kind}" for name in ("cpu", "io", "memory") for kind in ("some", "full")),
}  # fmt: skip
"""Of a VM of Proxmox VE that runs; `proxmox-support` is its own QEMU's."""


@pytest.mark.slow
async def test_the_figures_of_a_vm_are_those_of_qemu_and_its_process(boss: As, server: Serving) -> None:
    state = await running(boss)
    pid = int((server.folder / "100.pid").read_text())
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

    assert state.keys() == FIGURES - {"agent"}
    assert (state["pid"], state["cpus"], state["maxmem"], state["maxdisk"]) == (pid, 2, 64 * 2**20, 2**20)
    assert state["memhost"] == pytest.approx(resident, rel=0.5)
    assert state["mem"] <= state["maxmem"]
    assert 0 <= state["cpu"] <= 2
    assert state["blockstat"].keys() == {"virtio0"}
    assert state["running-machine"].startswith("pc-")
    [listed] = [vm for vm in (await boss.call("GET", f"{NODE}/qemu")).data if vm["vmid"] == 100]
    assert (listed["pid"], listed["maxmem"], listed["tags"]) == (pid, 64 * 2**20, "lab;web")
    found = (await boss.call("GET", "/api2/json/cluster/resources", type="vm")).data
    [resource] = [vm for vm in found if vm["vmid"] == 100]
    assert (resource["maxcpu"], resource["maxdisk"], resource["id"]) == (2, 2**20, "qemu/100")
    config = (await boss.call("GET", f"{VM}/config")).data
    assert (config["cores"], config["memory"], config["description"]) == (2, "64", "no system\nat all")
    assert "agent" not in config


@pytest.mark.slow
async def test_what_a_vm_was_is_known_after_its_end(boss: As) -> None:
    await running(boss)

    await power(boss, "stop")

    state = await current(boss)
    assert (state["cpus"], state["maxmem"], state["uptime"]) == (2, 64 * 2**20, 0)
    assert "pid" not in state


@pytest.mark.slow
async def test_a_guest_that_heeds_no_power_button_is_stopped_where_that_is_wanted(boss: As) -> None:
    await running(boss)

    assert (await power(boss, "shutdown", timeout=1))[0] == "VM 100: shutdown failed - got timeout"
    status, lines = await power(boss, "shutdown", timeout=1, forceStop=1)

    assert status == "OK"
    assert "VM 100: shutdown failed - got timeout; it is stopped now" in lines
    assert (await current(boss))["status"] == "stopped"


@pytest.mark.parametrize(
    ("action", "vmid", "status", "lines"),
    [
        ("start", 101, "sh failed with exit code 3", ["runs sh", "no room"]),
        ("start", 104, "/no/such/program: No such file or directory", ["runs /no/such/program"]),
        ("start", 999, "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist", []),
        ("stop", 102, "VM 102: stop needs QEMU's own socket or a command; name qmp under [[vm]], or stop under [vm.power]", []),
        ("suspend", 102, "VM 102: suspend needs QEMU's own socket or a command; name qmp under [[vm]], or suspend under [vm.power]", []),
    ],
)  # fmt: skip
async def test_what_can_not_be_done_is_a_task_that_says_why(
    boss: As, action: str, vmid: int, status: str, lines: list[str]
) -> None:
    assert await power(boss, action, vmid) == (status, [*lines, f"TASK ERROR: {status}"])


async def test_without_a_command_nothing_here_starts_a_vm(boss: As) -> None:
    status, _ = await power(boss, "reboot", 102)

    assert status == (
        "VM 102 can't be rebooted: its agent does not answer, and no command is named to start it after a shutdown;"
        " name one as reboot or start under [vm.power]"
    )


async def test_a_task_has_the_parts_of_its_id(boss: As) -> None:
    answer = await boss.call("POST", f"{NODE}/qemu/101/status/start")
    await ended(boss, answer)
    upid = Upid.parse(answer.data)
    assert upid

    found = (await status_of(boss, answer.data)).data

    assert str(upid) == answer.data
    assert (upid.type, upid.id, upid.user, upid.node) == ("qmstart", "101", "boss@pve!tok", "pve1")
    assert found == {
        "upid": answer.data, "node": "pve1", "pid": upid.pid, "pstart": upid.pstart, "starttime": upid.starttime,
        "type": "qmstart", "id": "101", "user": "boss@pve", "tokenid": "tok", "status": "stopped",
        "exitstatus": "sh failed with exit code 3",
    }  # fmt: skip


async def test_tasks_of_one_second_have_ids_of_their_own(boss: As) -> None:
    answers = await asyncio.gather(*(boss.call("POST", f"{NODE}/qemu/101/status/start") for _ in range(20)))

    assert len({answer.data for answer in answers}) == 20
    await asyncio.gather(*(ended(boss, answer) for answer in answers))


@pytest.mark.parametrize(
    ("upid", "reason"),
    [
        ("nonsense", {"upid": "unable to parse worker upid"}),
        ("UPID:pve1:00000001:00000002:6B081CF4:qmstart:100:boss@pve:", {"upid": "no such task"}),
    ],
)
async def test_an_id_of_no_task_is_refused(boss: As, upid: str, reason: dict[str, str]) -> None:
    answer = await status_of(boss, upid)

    assert (answer.status, answer.json["errors"]) == (400, reason)


async def test_tasks_are_listed_by_what_is_asked_for(boss: As) -> None:
    await power(boss, "start", 101)
    await power(boss, "stop", 101)

    async def found(**wanted: object) -> list[tuple[str, str, str]]:
        answer = await boss.call("GET", f"{NODE}/tasks", **wanted)
        return [(task["type"], task["id"], task.get("status", "")) for task in answer.data]

    assert (await found(vmid=101))[:2] == [("qmstop", "101", "OK"), ("qmstart", "101", "sh failed with exit code 3")]
    assert await found(vmid=101, limit=1) == [("qmstop", "101", "OK")]
    assert await found(vmid=101, limit=1, start=1) == [("qmstart", "101", "sh failed with exit code 3")]
    assert ("qmstop", "101", "OK") not in await found(errors=1)
    assert {kind for kind, _, _ in await found(typefilter="qmstop")} == {"qmstop"}
    assert await found(source="active") == []
    assert await found(userfilter="nobody") == []
    answer = await boss.call("GET", f"{NODE}/tasks", vmid=101, limit=1)
    assert answer.json["total"] > 1
    newest = (await boss.call("GET", "/api2/json/cluster/tasks")).data[0]
    assert (newest["type"], newest["saved"]) == ("qmstop", "1")


async def test_only_who_may_begins_a_task_and_only_its_owner_sees_it(server: Serving) -> None:
    owner, other = As(server, "power@pve"), As(server, "looker@pve")

    refused = await other.call("POST", f"{NODE}/qemu/101/status/start")
    answer = await owner.call("POST", f"{NODE}/qemu/101/status/start")
    await ended(owner, answer)

    assert (refused.status, refused.reason) == (403, "Permission check failed (/vms/101, VM.PowerMgmt)")
    assert answer.data in [task["upid"] for task in (await owner.call("GET", f"{NODE}/tasks")).data]
    assert (await other.call("GET", f"{NODE}/tasks")).data == []
    hidden = await status_of(other, answer.data)
    assert (hidden.status, hidden.reason) == (403, "Permission check failed (/nodes/pve1, Sys.Audit)")
    assert (await other.call("DELETE", f"{NODE}/tasks/{answer.data}")).status == 403


@pytest.mark.slow
async def test_a_task_that_runs_can_be_ended(boss: As, server: Serving) -> None:
    answer = await boss.call("POST", f"{NODE}/qemu/103/status/start")
    async with asyncio.timeout(ENDS_WITHIN):
        while not (server.folder / "begun").exists():
            await asyncio.sleep(0.02)
    active = (await boss.call("GET", f"{NODE}/tasks", source="active")).data

    assert [task["upid"] for task in active] == [answer.data]
    assert "endtime" not in active[0]
    assert (await boss.call("DELETE", f"{NODE}/tasks/{answer.data}")).data is None
    assert (await ended(boss, answer))[0] == "received interrupt"


@pytest.mark.slow
async def test_tasks_are_there_after_a_restart_and_one_that_was_killed_says_so() -> None:
    async with Serving.of(config, prepare=settling(person("boss@pve", ("/", "Administrator"))), killed=True) as server:
        boss = As(server)
        done = await boss.call("POST", f"{NODE}/qemu/101/status/start")
        before = await ended(boss, done)
        cut = await boss.call("POST", f"{NODE}/qemu/103/status/start")
        async with asyncio.timeout(ENDS_WITHIN):
            while not (server.folder / "begun").exists():
                await asyncio.sleep(0.02)
        await server.restart()

        assert await ended(boss, done) == before
        assert (await ended(boss, cut))[0] == "unexpected status"
        server.signal(signal.SIGTERM)
        await server.process.wait()


async def test_a_power_call_leaves_a_record_of_who_did_it(boss: As) -> None:
    await power(boss, "start", 101)

    records = (await boss.call("GET", f"{NODE}/guestwire/audit", limit=5)).data

    assert [one for one in records if one["endpoint"].endswith("/status/start") and one["vmid"] == 101]


async def command(server: Serving, *arguments: str) -> Ended:
    token = authorization("boss@pve").partition("PVEAPIToken=")[2]
    (server.folder / "token").touch(0o600)
    (server.folder / "token").write_text(token + "\n")
    host = f"https://127.0.0.1:{server.port}"
    pem = str(server.folder / "state" / "server.pem")
    return await guestwire("--host", host, "--ca", pem, "--token-file", str(server.folder / "token"), *arguments)


@pytest.mark.slow
async def test_the_command_line_starts_and_stops_a_vm(boss: As, server: Serving) -> None:
    await power(boss, "stop")

    started = await command(server, "power", "start", "bare")
    assert (started.code, started.errors) == (0, "bare: start: done\n")
    again = await command(server, "power", "start", "bare")
    assert (again.code, again.output) == (3, "")
    assert "VM 100 already running" in again.errors
    assert [(row["name"], row["tags"]) for row in json.loads((await command(server, "ls", "--tag", "web", "--tag", "lab", "--json")).output)] == [
        ("bare", ["lab", "web"])
    ]  # fmt: skip
    assert "lab;web" in (await command(server, "ls")).output
    none = await command(server, "ls", "--tag", "web", "--tag", "none")
    assert "no guest has the tags web, none" in none.errors
    assert (await command(server, "df", "--tag", "web", "bare")).code == 2
    shown = await command(server, "vm", "bare")
    assert "running" in shown.output
    asked = await command(server, "power", "stop", "bare")
    assert (asked.code, "give --yes if you mean it" in asked.errors) == (2, True)
    begun = await command(server, "power", "stop", "-y", "--no-wait", "--json", "bare")
    upid = json.loads(begun.output)["upid"]
    assert Upid.parse(upid)
    assert (await ended(boss, Answer(200, "OK", {}, json.dumps({"data": upid}).encode())))[0] == "OK"
    assert (await current(boss))["status"] == "stopped"


@pytest.mark.guest
@pytest.mark.ends_guest
async def test_a_real_guest_reboots_and_shuts_down_by_its_agent(at_its_end: "Machine") -> None:
    machine = at_its_end

    def real(folder: Path, port: int) -> str:
        places = f'agent = "unix:{machine.agent_socket}"\nqmp = "unix:{machine.qmp_socket}"'
        return f"{site()(folder, port)}\n[[vm]]\nvmid = 100\n{places}\n"

    async with (
        Serving.of(real, prepare=settling(person("boss@pve", ("/", "Administrator")))) as server,
        await over_https(server) as host,
        followed(host) as happenings,
    ):
        boss = As(server)
        state = await current(boss)
        assert (state["agent"], state["maxmem"], state["cpus"]) == (1, 320 * 2**20, 2)
        assert state["maxdisk"] > 0

        assert (await power(boss, "suspend"))[0] == "OK"
        silent = await command(server, "ping", "100")
        assert (silent.code == 0, "answers" in silent.output) == (False, False)
        assert (await power(boss, "resume"))[0] == "OK"
        assert (await command(server, "wait", "100")).code == 0
        await happenings.wait_for("guest-paused")
        await happenings.wait_for("guest-resumed")

        assert await power(boss, "reboot") == ("OK", ["the guest's agent is asked to reboot", "TASK OK"])
        async with asyncio.timeout(BOOTS_WITHIN):
            while (await boss.call("POST", f"{VM}/agent/ping")).status != 200:
                await asyncio.sleep(0.2)
        await happenings.wait_for("guest-reset")
        await happenings.wait_for("agent-up")
        assert await power(boss, "shutdown") == (
            "OK",
            ["the guest's agent is asked to shut down", "TASK OK"],
        )
        assert (await current(boss))["status"] == "stopped"
        await happenings.wait_for("guest-stopped")


@pytest.mark.guest
async def test_a_real_guest_without_a_channel_is_given_one_while_it_runs(image: "GuestImage") -> None:
    from devtools.guests import Machine, accelerator  # noqa: PLC0415  # as tests/conftest.py

    def real(folder: Path, port: int) -> str:
        return f'{site()(folder, port)}\n[[vm]]\nvmid = 100\nname = "bare"\nqmp = "unix:{machine.qmp_socket}"\n'

    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        machine = Machine(image, Path(name), accel=await accelerator(image), has_channel=False)
        await machine.start()
        try:
            people = settling(person("boss@pve", ("/", "Administrator")))
            async with Serving.of(real, prepare=people, killed=True) as server:
                boss = As(server)
                assert (await boss.call("POST", f"{VM}/agent/ping")).reason == "No QEMU guest agent configured"
                added = await command(server, "channel", "add", "bare")
                assert (added.code, f"unix:{machine.qmp_socket}.qga" in added.errors) == (0, True)
                again = await command(server, "channel", "add", "bare")
                assert (again.code, "has a channel for a guest agent already" in again.errors) == (3, True)

                async with asyncio.timeout(BOOTS_WITHIN):  # the guest is still booting
                    while (await boss.call("POST", f"{VM}/agent/ping")).status != 200:
                        await asyncio.sleep(0.2)
                assert (await command(server, "exec", "bare", "--", "echo", "here")).output == "here\n"
                await server.restart()
                async with asyncio.timeout(60):
                    while (await boss.call("POST", f"{VM}/agent/ping")).status != 200:
                        await asyncio.sleep(0.2)
                assert (await command(server, "doctor", "bare")).code == 0
                server.signal(signal.SIGTERM)
                await server.process.wait()
        finally:
            await machine.stop()


async def test_a_channel_is_refused_where_it_can_not_be(boss: As, server: Serving) -> None:
    channel = f"{NODE}/qemu/{{}}/guestwire/agent-channel"

    assert (await boss.call("POST", channel.format(102))).reason == (
        "VM 102: a channel is plugged in by QEMU's own socket; name qmp under [[vm]]"
    )
    assert (await boss.call("POST", channel.format(101))).reason == "VM 101 is not running"
    refused = await As(server, "power@pve").call("POST", channel.format(102))
    assert refused.reason == "Permission check failed (/vms/102, VM.Config.HWType)"
