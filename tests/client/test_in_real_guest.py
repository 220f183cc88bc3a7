"""What the agent's further commands change in a real guest, with the agents of Debian 12 and 13; seen over its serial console, not through its agent."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from calling import site
from serving import Serving
from ways import over_https

from devtools.guests import GuestImage, Machine
from guestwire import Guest, connect
from guestwire.agent.commands import absent_from
from guestwire.agent.packages import numbers_of, system_of
from guestwire.agent.policies import policy_line
from guestwire.agent.results import AgentInfo, OsInfo, Route, SupportedCommand
from guestwire.client.diagnosis import Diagnosis, examine
from guestwire.client.errors import AgentRefused, CallFailed
from guestwire.client.freezing import end_freeze
from guestwire.client.proc_files import read_load, read_routes
from guestwire.client.watching import reader_of
from guestwire.metrics import read_guest
from guestwire.metrics.polling import MODES

pytestmark = pytest.mark.guest

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@here"
LONG_AGO = 1_600_000_000
BOOTS_WITHIN = 90.0


@contextlib.asynccontextmanager
async def reached(machine: Machine, way: str) -> AsyncIterator[Guest]:
    """The guest, by its agent's socket or by a server: one of ours, or one with what Proxmox VE has."""
    await machine.wait_for_agent()
    text = (
        f'[[vm]]\nvmid = 100\nname = "web"\nagent = "unix:{machine.agent_socket}"\nqmp = "unix:{machine.qmp_socket}"\n'
    )
    async with contextlib.AsyncExitStack() as stack:
        if way == "unix":
            host = await connect(f"unix:{machine.agent_socket}")
        else:
            host = await over_https(await stack.enter_async_context(Serving.of(site(text), limited=way == "limited")))
        async with host:
            guest = await host.guest("web")
            await guest.wait_ready(BOOTS_WITHIN)
            yield guest


@pytest.fixture
def real(booted: tuple[Machine, GuestImage]) -> Machine:
    return booted[0]


@pytest.fixture(params=["unix", "guestwire"])
async def guest(request: pytest.FixtureRequest, real: Machine) -> AsyncIterator[Guest]:
    async with reached(real, request.param) as guest:
        yield guest


def is_new(booted: tuple[Machine, GuestImage]) -> bool:
    """True for the agent of Debian 13."""
    return not booted[1].agent_version.startswith("7.")


async def test_disks_processors_and_load_are_the_kernels(
    guest: Guest, real: Machine, booted: tuple[Machine, GuestImage]
) -> None:
    assert {one.name: one.partition for one in await guest.get_disks()} == {"/dev/vda": False, "/dev/vdb": False}
    assert {one.address.bus_type for one in await guest.get_disks() if one.address} == {"virtio"}
    await real.shell("sync; echo more > /mnt/data/more; sync")
    counters = {one.name: one.stats for one in await guest.get_diskstats()}
    kernels = {line.split()[2]: line.split() for line in (await real.shell("cat /proc/diskstats")).splitlines()}
    assert counters["vda"].write_ios == int(kernels["vda"][7]) > 0
    assert counters["vda"].read_sectors == int(kernels["vda"][5])
    before = {one.cpu: one.user + one.system + one.idle for one in await guest.get_cpustats()}
    lines = [line.split() for line in (await real.shell("cat /proc/stat")).splitlines() if line[:3] == "cpu"][1:]
    assert {f"cpu{cpu}" for cpu in before} == {words[0] for words in lines}
    for words in lines:
        assert 0 < before[int(words[0][3:])] <= 10 * (int(words[1]) + int(words[3]) + int(words[4]))
    load = await guest.load()
    assert abs(load.load15m - float((await real.shell("cat /proc/loadavg")).split()[2])) < 0.05
    if is_new(booted):
        assert abs((await guest.get_load()).load15m - (await read_load(guest)).load15m) < 0.05
    else:
        with pytest.raises(AgentRefused, match=r"there is one since QEMU 10\.0"):
            await guest.get_load()


@pytest.mark.parametrize("way", ["unix", "guestwire", "limited"])
async def test_metrics_are_what_the_kernel_says(real: Machine, booted: tuple[Machine, GuestImage], way: str) -> None:
    async with reached(real, way) as guest:
        before = await kernel_counters(real)
        found = dict(await read_guest(reader_of(guest)))
        after = await kernel_counters(real)

    values = {
        (name, *(text for _, text in labels)): value for name, of_name in found.items() for labels, value in of_name
    }
    expected = {key for key in before if way != "limited" or key[0].startswith("network_")}
    assert {key for key in expected if not before[key] <= values[key] <= after[key]} == set()
    assert {key[0] for key in expected} == {key[0] for key in values if key[0] in {one[0] for one in before}}
    block, blocks, free, available = map(int, (await real.shell("stat -f -c '%S %b %f %a' /mnt/data")).split())
    sizes = {key[0]: value for key, value in values.items() if key[1:2] == ("/mnt/data",)}
    assert sizes == {
        "filesystem_size_bytes": block * (blocks - free + available),
        "filesystem_used_bytes": block * (blocks - free),
        "filesystem_avail_bytes": block * available,
    }
    system = (await real.shell(". /etc/os-release; echo $ID; echo $VERSION_ID; uname -r; uname -m")).split("\n")
    assert [[text for _, text in labels] for labels, _ in found["os_info"]] == [system]
    assert values["vcpus_online",] == int(await real.shell("nproc"))
    assert values["users",] == int(await real.shell("who | wc -l")) == 1
    assert abs(values["time_offset_seconds",] - (float(await real.shell("date +%s")) - time.time())) < 10
    if way != "limited" and is_new(booted):
        assert abs(values["load15",] - float((await real.shell("cat /proc/loadavg")).split()[2])) < 0.1


async def kernel_counters(real: Machine) -> dict[tuple[str, ...], float]:
    """The counters in the guest's `/proc`, by the names of metrics."""
    found: dict[tuple[str, ...], float] = {}
    for line in (await real.shell("cat /proc/net/dev")).splitlines():
        device, colon, figures = line.partition(":")
        if colon:
            columns = [float(figure) for figure in figures.split()]
            for way, first in (("receive", 0), ("transmit", 8)):
                for position, name in enumerate(("bytes", "packets", "errs", "drop")):
                    found[f"network_{way}_{name}_total", device.strip()] = columns[first + position]
    for line in (await real.shell("cat /proc/stat")).splitlines():
        cpu, *ticks = line.split()
        if re.fullmatch("cpu[0-9]+", cpu):
            for mode, count in zip(MODES, ticks, strict=False):
                found["cpu_seconds_total", cpu[3:], mode] = int(count) / 100
    for line in (await real.shell("cat /proc/diskstats")).splitlines():
        words = line.split()
        if words[2].startswith("vd"):
            counters = [int(word) for word in words[3:]]
            found["disk_reads_completed_total", words[2]] = counters[0]
            found["disk_read_bytes_total", words[2]] = counters[2] * 512
            found["disk_writes_completed_total", words[2]] = counters[4]
            found["disk_written_bytes_total", words[2]] = counters[6] * 512
    return found


async def test_routes_are_the_same_from_the_agent_and_from_the_kernels_files(
    guest: Guest, real: Machine, booted: tuple[Machine, GuestImage]
) -> None:
    found = await guest.routes()

    shown = (await real.shell("ip route")).splitlines()
    gateways = {one.gateway for one in found if one.version == 4 and one.destination == "0.0.0.0"}
    assert gateways == {line.split()[2] for line in shown if line.startswith("default")} == {"10.0.2.2"}
    assert ("10.0.2.0", "255.255.255.0") in {(one.destination, one.mask) for one in found}
    assert ("fe80::", "64") in {(one.destination, one.desprefixlen) for one in found}
    if is_new(booted):
        asked, read = await guest.network_get_route(), await read_routes(guest)
        assert [_without_use(one) for one in asked] == [_without_use(one) for one in read]


def _without_use(route: Route) -> Route:
    """Counters grow from one look to the next; and the agent takes the highest of 32 bits for a sign."""
    flags, metric = (number & 0xFFFFFFFF for number in (route.flags or 0, route.metric))
    return msgspec.structs.replace(route, use=None, refcnt=None, flags=flags, metric=metric)


async def test_a_key_is_in_the_users_own_file_until_it_is_removed(guest: Guest, real: Machine) -> None:
    file = "/home/labuser/.ssh/authorized_keys"

    await guest.ssh_add_authorized_keys("labuser", [KEY], reset=True)
    assert (await real.shell(f"cat {file}; echo; stat -c '%u %a' {file}")).split("\n") == [KEY, "1000 600"]
    assert (await guest.ssh_get_authorized_keys("labuser")).keys == [KEY]
    await guest.ssh_remove_authorized_keys("labuser", [KEY])
    assert await real.shell(f"cat {file}") == ""


async def test_the_clock_is_set_and_set_back_from_that_of_the_vm(guest: Guest, real: Machine) -> None:
    try:
        await guest.set_time(time=LONG_AGO * 10**9)
        assert 0 <= int(await real.shell("date +%s")) - LONG_AGO < 60
        assert "2020" in await real.shell("hwclock -u")
        await real.shell("date -s @1000000000")
        await guest.set_time()
        assert 0 <= int(await real.shell("date +%s")) - LONG_AGO < 120
    finally:
        await guest.set_time(time=time.time_ns())
    assert abs(int(await real.shell("date +%s")) - time.time()) < 30


async def test_processors_go_offline_and_come_back(guest: Guest, real: Machine) -> None:
    online = "cat /sys/devices/system/cpu/online"

    assert await guest.set_vcpus(offline="1") == 1
    assert await real.shell(online) == "0"
    assert {one.logical_id: one.online for one in await guest.get_vcpus()} == {0: True, 1: False}
    assert await guest.set_vcpus(online="0-1") == 2
    assert await real.shell(online) == "0-1"
    with pytest.raises(AgentRefused, match=r"#0 can't be offlined"):
        await guest.set_vcpus(offline="0")
    with pytest.raises(AgentRefused, match=r"cpu77.*\(1 processor was set before\)"):
        await guest.set_vcpus(online="1,77")


async def test_blocks_of_memory_are_set_and_each_has_its_own_end(guest: Guest, real: Machine) -> None:
    number = max(one.phys_index for one in await guest.get_memory_blocks())
    state = f"cat /sys/devices/system/memory/memory{number}/online"

    # Whether one can go depends on what the kernel has in it: the answer must be what came of it.
    gone = await guest.set_memory_blocks(offline=f"{number},99")
    assert {one.phys_index: one.response for one in gone} == {
        number: "success" if await real.shell(state) == "0" else "operation-failed",
        99: "not-found",
    }
    back = await guest.set_memory_blocks(online=str(number))
    assert [(one.phys_index, one.response) for one in back] == [(number, "success")]
    assert await real.shell(state) == "1"


async def test_outputs_are_one_where_the_agent_can_merge_them(guest: Guest, booted: tuple[Machine, GuestImage]) -> None:
    command = ["sh", "-c", "echo $A; echo two >&2; echo three"]
    if not is_new(booted):
        with pytest.raises(AgentRefused, match=r"can't merge outputs: one can since QEMU 8\.0"):
            await guest.exec_capture(command, capture="merged")
        return
    pid = (await guest.exec_capture(command, env=["A=one"], capture="merged")).pid
    async with asyncio.timeout(20):
        while not (state := await guest.exec_status(pid)).exited:
            await asyncio.sleep(0.05)

    assert (state.out_data, state.err_data) == ("one\ntwo\nthree\n", None)


async def test_what_was_added_to_a_file_is_in_the_guest(guest: Guest, real: Machine) -> None:
    await real.shell("rm -f /root/log; echo one > /root/log")

    await guest.file_append("/root/log", "two\n")

    assert await real.shell("cat /root/log") == "one\ntwo"


async def test_a_trim_leaves_short_ranges_out(guest: Guest) -> None:
    too_long = await guest.fstrim_minimum(minimum=1 << 40)

    assert [(one.path, one.trimmed or 0) for one in too_long.paths] == [("/mnt/data", 0)]
    (trimmed,) = (await guest.fstrim_minimum(minimum=4096)).paths
    assert (trimmed.path, trimmed.minimum) == ("/mnt/data", 4096)


async def test_a_named_file_system_is_frozen_until_the_end(guest: Guest, real: Machine) -> None:
    async with guest.freeze(mountpoints=["/mnt/data"]) as count:
        assert count == 1
        await real.shell("rm -f /run/writer; sh -c 'echo $$ > /run/writer; exec touch /mnt/data/new' >/dev/null 2>&1 &")
        async with asyncio.timeout(20):
            while await real.shell("cut -d' ' -f3 /proc/$(cat /run/writer)/stat || true") != "D":
                await asyncio.sleep(0.1)
    async with asyncio.timeout(20):
        while await real.shell("ls /mnt/data/new || true") != "/mnt/data/new":
            await asyncio.sleep(0.1)
    await real.shell("rm /mnt/data/new")
    for names in (["/nope"], ["/mnt/data", "/nope"]):
        with pytest.raises(CallFailed, match=r"only [01] could be frozen; they are thawed again"):
            async with guest.freeze(mountpoints=names):
                pytest.fail("it is not frozen as it should be")
    assert await end_freeze(guest) == 0


# Policies of agents


BLOCKED = "guest-get-users,guest-get-timezone,guest-exec,guest-exec-status"
ALLOWED = "guest-info,guest-ping,guest-sync,guest-sync-delimited,guest-get-osinfo"
CONF = "/etc/qemu/qemu-ga.conf"


async def restart_with(machine: Machine, guest: Guest, line: str) -> dict[str, bool]:
    """Starts the agent again with this line in its file; which commands are enabled then."""
    text = f"[general]\\n{line}\\n" if line else ""
    before = await machine.shell("pidof qemu-ga")
    await machine.shell(f"mkdir -p /etc/qemu && printf '{text}' > {CONF} && kill {before}")
    async with asyncio.timeout(30):
        while await machine.shell("pidof qemu-ga || true") in ("", before):
            await asyncio.sleep(0.1)
    await guest.wait_ready(30)
    return {one.name: one.enabled for one in (await guest.info()).supported_commands}


async def diagnosis_of(guest: Guest, *wanted: str) -> Diagnosis:
    return await examine(guest.host, "web", wanted)  # type: ignore[arg-type]  # it is a host


@pytest.mark.parametrize("policy", [f"block-rpcs={BLOCKED}", f"allow-rpcs={ALLOWED}"], ids=["block", "allow"])
async def test_the_line_that_doctor_prints_allows_what_the_policy_switched_off(
    real: Machine, booted: tuple[Machine, GuestImage], policy: str
) -> None:
    if policy.startswith("allow") and not is_new(booted):
        pytest.skip("Debian 12's agent knows no list of what is allowed")
    async with reached(real, "unix") as guest:
        everything = await restart_with(real, guest, "")
        try:
            strict = await restart_with(real, guest, policy)
            assert not strict["guest-exec"]
            assert strict["guest-ping"]

            some = (await diagnosis_of(guest, "guest-exec", "guest-exec-status")).help
            assert some
            assert some.policy
            assert (some.policy.file, some.policy.section) == (CONF, "[general]")
            assert some.policy.line.partition("=")[0] == policy.partition("=")[0]
            after = await restart_with(real, guest, some.policy.line)
            assert after == {**strict, "guest-exec": True, "guest-exec-status": True}

            steps = {step["step"]: step for step in (await diagnosis_of(guest)).steps}
            assert "guest-get-users" in steps["commands"]["found"]
            line = steps["commands"]["next"].partition("allow-rpcs=: ")[2].partition(";")[0]
            assert await restart_with(real, guest, line) == everything
            assert {step["step"]: step for step in (await diagnosis_of(guest)).steps}["commands"]["result"] == "ok"
        finally:
            await restart_with(real, guest, "")


@pytest.mark.parametrize(
    ("system", "at_least"), [("rhel", (8, 1)), ("fedora", (9, 1)), ("freebsd", (7, 2)), ("mswindows", (7, 2))]
)
async def test_the_options_of_other_systems_lines_mean_the_same_to_a_real_agent(
    real: Machine, system: str, at_least: tuple[int, ...]
) -> None:
    """Their units and scripts hand the options on; `--dump-conf` shows what the agent makes of them."""
    async with reached(real, "unix") as guest:
        info = await guest.info()
    if numbers_of(info.version) < at_least:
        pytest.skip(f"an agent of {info.version} has none of these options")
    listed = [SupportedCommand(one.name, one.enabled and "exec" not in one.name) for one in info.supported_commands]
    off = {one.name for one in listed if not one.enabled} - absent_from(system)
    wanted = {"guest-exec"}

    line = policy_line(AgentInfo(info.version, listed), system_of(OsInfo(id=system)), wanted).line
    option = re.search(r'(-b |--block-rpcs=|--allow-rpcs=)[^" ]+', line)
    assert option, line
    said = await real.shell(f"qemu-ga {option[0]} --dump-conf")

    conf = dict(re.findall(r"^([\w-]+)=(.*)$", said, re.MULTILINE))
    names = {kind: set(filter(None, conf.get(f"{kind}-rpcs", "").split(","))) for kind in ("allow", "block")}
    if names["allow"]:
        assert names == {"allow": {one.name for one in listed if one.enabled} | wanted, "block": set()}
    else:
        assert names == {"allow": set(), "block": off - wanted}


# Its end, which comes last


@pytest.mark.ends_guest
async def test_a_guest_starts_anew_and_halts(real: Machine) -> None:
    async with contextlib.AsyncExitStack() as stack:
        guest = await stack.enter_async_context(reached(real, "guestwire"))
        stack.push_async_callback(real.stop)
        await real.shell("touch /run/before")
        await guest.reboot(wait=BOOTS_WITHIN)
        assert await real.shell("ls /run/before || echo gone") != "/run/before"

        # Nothing tells a halted guest from one that still works on it, so the call has its end by its time-out, or by the VM's.
        halting = asyncio.create_task(guest.shutdown_mode(mode="halt"))
        async with asyncio.timeout(BOOTS_WITHIN):
            while "reboot: System halted" not in real.serial_log.read_text():
                await asyncio.sleep(0.1)
        assert real.running
        assert not halting.done()
        await real.stop()
        await halting
