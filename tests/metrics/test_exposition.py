"""The text of the series: as Prometheus' own parsers and its tool read it, whatever guests say."""

import asyncio
import math
import re
import shutil
import subprocess
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from guestwire.agent.commands import TypedCommand
from guestwire.metrics import Exposition, Reading, read_guest
from guestwire.metrics.families import FAMILIES, POSITIONS
from guestwire.metrics.polling import LONGEST_LABEL, MODES, MOST_OF_A_KIND

REPLIES: dict[str, Any] = {
    "guest-get-load": {"load1m": 1.75, "load5m": 0.25, "load15m": 0.5},
    "guest-get-cpustats": [{"type": "linux", "cpu": 0, "user": 1500, "nice": 0, "system": 20, "idle": 3}],
    "guest-get-diskstats": [{"name": "vda", "major": 1, "minor": 0, "stats": {"read-sectors": 2, "read-ios": 7, "write-sectors": 4, "write-ios": 1}}],
    "guest-network-get-interfaces": [
        {"name": "eth0", "statistics": {"rx-bytes": 1, "rx-packets": 2, "rx-errs": 3, "rx-dropped": 4, "tx-bytes": 5, "tx-packets": 6, "tx-errs": 7, "tx-dropped": 8}},
        {"name": "no counters"},
    ],
    "guest-get-fsinfo": [
        {"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": [], "total-bytes": 100, "used-bytes": 70},
        {"name": "vda2", "mountpoint": "/", "type": "ext4", "disk": [], "total-bytes": 1, "used-bytes": 1},
        {"name": "sr0", "mountpoint": "/media", "type": "iso9660", "disk": []},
    ],
    "guest-info": {"version": "10.0.1", "supported_commands": []},
    "guest-get-osinfo": {"id": "debian", "version-id": "13", "kernel-release": "6.12", "machine": "x86_64"},
    "guest-get-users": [{"user": "ann", "login-time": 1.5}],
    "guest-get-vcpus": [{"logical-id": 0, "online": True}, {"logical-id": 1, "online": False}],
    "guest-get-devices": [{"driver-name": "viostor", "driver-date": 1_500_000_000_000_000_000, "driver-version": "1.2"}],
}  # fmt: skip


def answering(replies: dict[str, Any]) -> Any:
    async def read(command: TypedCommand[Any]) -> Any:
        reply = replies.get(command.command.name)
        return None if reply is None else msgspec.convert(reply, command.answer)

    return read


async def page(reading: Reading, *, name: str = "web", is_open: bool = False) -> str:
    exposition = Exposition()
    exposition.put(100, name, "pve1", reading.series)
    return b"".join((await exposition.page([100, 101], is_open=is_open)).parts).decode()


def values(text: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted((key, value) for key, value in sample.labels.items() if key not in ("id", "name", "node"))): sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name == f"guestwire_guest_{name}"
    }  # fmt: skip


async def test_what_a_guest_says_is_served_with_the_right_values() -> None:
    text = await page(await read_guest(answering(REPLIES)))

    assert values(text, "load1") == {(): 1.75}
    assert values(text, "cpu_seconds_total")[("cpu", "0"), ("mode", "user")] == 1.5
    assert values(text, "disk_read_bytes_total") == {(("device", "vda"),): 1024}
    assert values(text, "disk_reads_completed_total") == {(("device", "vda"),): 7}
    assert values(text, "network_transmit_drop_total") == {(("device", "eth0"),): 8}
    root = (("device", "vda1"), ("fstype", "ext4"), ("mountpoint", "/"))
    assert values(text, "filesystem_size_bytes") == {root: 100}
    assert values(text, "filesystem_avail_bytes") == {root: 30}
    assert values(text, "users") == values(text, "vcpus_online") == {(): 1}
    assert next(iter(values(text, "os_info"))) == (
        ("kernel_release", "6.12"), ("machine", "x86_64"), ("os", "debian"), ("version_id", "13"),
    )  # fmt: skip
    assert values(text, "device_driver_date_seconds") == {(("driver", "viostor"), ("version", "1.2")): 1.5e9}
    assert {sample.labels["id"] for family in parse(text) for sample in family.samples} == {"qemu/100"}


async def test_an_old_agent_has_fewer_series_and_none_made_up() -> None:
    text = await page(await read_guest(answering({"guest-get-fsinfo": REPLIES["guest-get-fsinfo"]})))

    assert {family.name.removeprefix("guestwire_guest_") for family in parse(text)} == {
        "filesystem_size_bytes", "filesystem_used_bytes", "filesystem_avail_bytes",
    }  # fmt: skip


@given(st.text(max_size=300), st.text(max_size=300), st.floats())
async def test_no_text_of_a_guest_breaks_the_page(name: str, mountpoint: str, value: float) -> None:
    reading = Reading()
    reading.add("filesystem_used_bytes", value, mountpoint=mountpoint, fstype="ext4", device="a\\nb")
    reading.add("agent_up", 1)
    for is_open in (False, True):
        text = await page(reading, name=name, is_open=is_open)
        samples = [sample for family in (parse_open if is_open else parse)(text) for sample in family.samples]
        assert len(samples) == 1 + math.isfinite(value)
        # Half characters, which JSON can carry and UTF-8 can't, become question marks.
        found = {sample.labels["name"] for sample in samples}
        assert found == {name.encode("utf-8", "replace").decode()}
        if math.isfinite(value):
            assert samples[-1].labels["mountpoint"] == mountpoint[:LONGEST_LABEL].encode("utf-8", "replace").decode()


async def test_a_hostile_guest_has_its_share_and_no_more() -> None:
    many = [{"name": "d" * 5000, "mountpoint": f"/{number}", "type": "x", "disk": [], "total-bytes": 1, "used-bytes": 1} for number in range(5000)]  # fmt: skip
    cpus = [{"type": "linux", "cpu": cpu, "user": 1, "nice": 1, "system": 1, "idle": 1, "iowait": 1, "irq": 1, "softirq": 1, "steal": 1} for cpu in range(5000)]  # fmt: skip
    text = await page(await read_guest(answering({"guest-get-fsinfo": many, "guest-get-cpustats": cpus})))

    assert len(values(text, "filesystem_size_bytes")) == MOST_OF_A_KIND
    assert len(values(text, "cpu_seconds_total")) == MOST_OF_A_KIND * len(MODES)
    assert len(text) < 3_000_000


async def test_no_guest_makes_a_series_twice_or_a_counter_negative() -> None:
    """Strict readers of OpenMetrics refuse the whole page for either, and so the series of all other guests."""
    times = {"type": "linux", "cpu": 0, "nice": 1, "system": 1, "idle": 1}
    counters = {"rx-bytes": -1, "rx-packets": 2, "rx-errs": 3, "rx-dropped": 4, "tx-bytes": 5, "tx-packets": 6, "tx-errs": 7, "tx-dropped": 8}  # fmt: skip
    mounts = ["/" + "x" * LONGEST_LABEL + end for end in "ab"] + ["/\ud800", "/\udfff"]
    replies = {
        "guest-get-cpustats": [{**times, "user": -5}, {**times, "user": 7}],
        "guest-network-get-interfaces": [{"name": "eth0", "statistics": counters}] * 2,
        "guest-get-diskstats": REPLIES["guest-get-diskstats"] * 2,
        "guest-get-fsinfo": [{"name": "a", "mountpoint": mount, "type": "t", "disk": [], "total-bytes": 2, "used-bytes": 1} for mount in mounts],
    }  # fmt: skip
    reading = await read_guest(answering(replies))
    for is_open in (False, True):
        text = await page(reading, is_open=is_open)
        samples = [
            (sample.name, *sample.labels.items())
            for family in (parse_open if is_open else parse)(text)
            for sample in family.samples
        ]
        assert len(samples) == len(set(samples))
    text = await page(reading)
    assert values(text, "cpu_seconds_total")[("cpu", "0"), ("mode", "user")] == 0.007
    assert len(values(text, "filesystem_size_bytes")) == 2
    assert values(text, "network_receive_bytes_total") == {}


def test_each_family_is_named_once_and_as_its_kind_wants() -> None:
    assert len(POSITIONS) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"guestwire_guest_[a-z0-9_]+", family.name)
        assert (family.kind == "counter") == family.name.endswith("_total")
        assert family.help.endswith(".")


async def test_promtool_finds_nothing_wrong() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: `./dev setup` installs it from Debian's package prometheus")
    text = await page(await read_guest(answering(REPLIES)))
    command = [promtool, "check", "metrics"]
    checked = await asyncio.to_thread(subprocess.run, command, input=text.encode(), capture_output=True, check=False)

    assert (checked.returncode, checked.stderr) == (0, b"")


async def test_families_that_were_not_read_again_stay_until_the_vm_has_another_name() -> None:
    exposition = Exposition()
    exposition.put(100, "web", "pve1", {"users": [((), 2)], "load1": [((), 0.5)]})
    assert exposition.put(100, "web", "pve1", {"load1": [((), 1.5)]}, keeps=True)
    both = b"".join((await exposition.page([100], is_open=False)).parts).decode()
    assert not exposition.put(100, "db", "pve1", {"load1": [((), 2.5)]}, keeps=True)
    renamed = b"".join((await exposition.page([100], is_open=False)).parts).decode()

    assert '_users{id="qemu/100",name="web",node="pve1"} 2\n' in both
    assert '_load1{id="qemu/100",name="web",node="pve1"} 1.5\n' in both
    assert "_users" not in renamed
    assert '_load1{id="qemu/100",name="db",node="pve1"} 2.5\n' in renamed
