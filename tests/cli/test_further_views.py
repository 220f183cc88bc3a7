"""The commands for what Proxmox VE's API lacks: what they show and change, over an agent's own socket, over HTTPS, and what they say on Proxmox VE."""

import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from odd_agents import AGENTS
from reaching import WAYS, Done, Lab

from guestwire.testing import CLOSE, CommandError, Exchange, FakeGuest
from guestwire.testing.fake import Action

pytestmark = pytest.mark.agent

KEY, OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@here", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC you@there"
ON_PROXMOX = "Proxmox VE does not have it, but guestwire and an agent's own socket; there: guestwire "


def leaves(exchange: Exchange) -> list[Action]:
    return [CLOSE] if exchange.request["execute"] == "guest-shutdown" else exchange.honest


@pytest.fixture(scope="module", params=WAYS.values(), ids=list(WAYS))
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with request.param() as lab:
        yield lab


@pytest.fixture
def fake(lab: Lab) -> FakeGuest:
    lab.fake.received.clear()
    lab.fake.files = {}
    lab.fake.fault = leaves
    lab.fake.replies = {
        **AGENTS["windows"], **AGENTS["11.0"], "guest-get-devices": AGENTS["windows"]["guest-get-devices"],
        "guest-ssh-get-authorized-keys": {"keys": [KEY, "\x1b[31mred"]}, "guest-ssh-add-authorized-keys": {},
        "guest-ssh-remove-authorized-keys": {}, "guest-set-time": {}, "guest-set-vcpus": lambda given: len(given["vcpus"]),
        "guest-set-memory-blocks": lambda given: [
            {"phys-index": one["phys-index"], "response": "success" if one["phys-index"] else "operation-failed", "error-code": 16}
            for one in given["mem-blks"]
        ],
    }  # fmt: skip
    return lab.fake


def has_it(lab: Lab, done: Done) -> bool:
    """True where the command went through; on Proxmox VE it is one line with the way out."""
    if lab.server and lab.server.limited:
        assert done.code == 3, done
        assert ON_PROXMOX in done.line
        return False
    assert done.code == 0, done
    return True


def arguments(fake: FakeGuest, command: str) -> object:
    return [one.get("arguments") for one in fake.received if one["execute"] == command][-1]


SHOWN = {
    "disks": ("/dev/nvme0n1p1", "yes", "/dev/nvme0n1", "vg-root", "nvme 0:0:0", "310 K"),
    "diskstats": ("nvme0n1", "1.0 MiB", "7"),
    "cpustats": ("1 day, 1:01:01", "0.0 s"),
    "drivers": ("Red Hat VirtIO Ethernet Adapter", "100.94.104.24000", "2023-10-17", "pci 1af4:1041", "Gerät von morgen"),
}  # fmt: skip


@pytest.mark.parametrize("command", SHOWN)
async def test_what_agents_say_is_a_table_with_units_and_the_agents_names_in_json(
    lab: Lab, fake: FakeGuest, command: str
) -> None:
    people, programs = await lab("fake", command, "fake"), await lab("fake", command, "fake", "--json")

    if has_it(lab, people):
        for word in SHOWN[command]:
            assert word in people.text
        name = {"disks": "guest-get-disks", "drivers": "guest-get-devices"}.get(command, f"guest-get-{command}")
        for one, other in zip(programs.json, fake.replies[name], strict=True):
            scalars = {key: value for key, value in one.items() if not isinstance(value, dict | list)}
            assert scalars.items() <= other.items()


async def test_load_is_shown_everywhere_and_on_proxmox_ve_from_a_file(lab: Lab, fake: FakeGuest) -> None:
    fake.files["/proc/loadavg"] = bytearray(b"1.50 0.00 0.25 1/100 4711\n")

    people, programs = await lab("fake", "load", "fake"), await lab("fake", "load", "fake", "--json")

    assert people.text.split() == ["1", "MIN", "5", "MIN", "15", "MIN", "1.50", "0.00", "0.25"]
    assert programs.json == {"load1m": 1.5, "load5m": 0.0, "load15m": 0.25}


@pytest.mark.parametrize("text", [b"", b"a b c\n", b"\xff 1 2\n", b"1 2\n", b"nan 1 inf\n"])
async def test_a_file_that_is_no_load_is_none(lab: Lab, fake: FakeGuest, text: bytes) -> None:
    def lacks(_: object) -> object:
        raise CommandError("CommandNotFound", "The command guest-get-load has not been found")

    fake.replies["guest-get-load"] = lacks
    fake.files["/proc/loadavg"] = bytearray(text)

    done = await lab("fake", "load", "fake")

    assert done.code == 3
    assert (
        "guestwire cat" in done.line
        if lab.server and lab.server.limited
        else "there is one since QEMU 10.0" in done.line
    )


async def test_load_of_all_guests_is_sorted_and_says_who_did_not(lab: Lab, fake: FakeGuest) -> None:
    fake.replies["guest-get-load"] = {"load1m": 1e6, "load5m": 0, "load15m": 0}
    fake.files["/proc/loadavg"] = bytearray(b"1000000.00 0.00 0.00 1/100 4711\n")

    done = await lab("fake", "load", "--all", "--json")
    rows = json.loads(done.output)

    if not lab.server:
        assert (done.code, [row["load1m"] for row in rows]) == (0, [1e6])
        return
    assert done.code == 3
    assert [row["name"] for row in rows] == ["fake", "web", "gone"]
    assert "QEMU guest agent is not running" in rows[2]["error"]
    people = await lab("fake", "load", "--all")
    assert [line.split()[1] for line in people.text.splitlines()[1:]] == ["fake", "web"]
    assert people.errors.startswith("guestwire: guest gone (103) on ")


@pytest.mark.parametrize("words", [("load",), ("load", "fake", "--all"), ("load", "fake", "--tag", "x")])
async def test_load_is_of_one_guest_or_of_all(lab: Lab, words: tuple[str, ...]) -> None:
    assert (await lab("fake", *words)).code == 2


async def test_routes_are_shown_with_the_length_of_their_prefix(lab: Lab, fake: FakeGuest) -> None:
    fake.files["/proc/net/route"] = bytearray(
        b"Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        b"eth0\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        b"eth0\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
    )
    fake.files["/proc/net/ipv6_route"] = bytearray(
        b"fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000"
        b" 00000100 00000001 00000000 00000001     eth0\n"
    )

    done = await lab("fake", "routes", "fake")

    assert [line.split() for line in done.text.splitlines()[1:]] == [
        ["0.0.0.0/0", "10.0.2.2", "eth0", "100"],
        ["10.0.2.0/24", "eth0", "100"],
        ["fe80::/64", "eth0", "256"],
    ]
    assert [one["destination"] for one in (await lab("fake", "routes", "fake", "--json")).json] == [
        "0.0.0.0",
        "10.0.2.0",
        "fe80::",
    ]


async def test_a_command_that_the_policy_forbids_is_one_line_with_the_way_to_allow_it(lab: Lab) -> None:
    done = await lab("web", "disks", "web")

    assert done.code == 3
    if not (lab.server and lab.server.limited):
        assert "guest-get-disks is switched off in the guest, by the policy of its agent" in done.line
        assert "--block-rpcs" in done.line


# Keys


async def test_keys_are_listed_pushed_and_removed(lab: Lab, fake: FakeGuest, tmp_path: Path) -> None:
    (tmp_path / "keys.pub").write_text(f"# ours\n{KEY}\r\n\n  {OTHER}\n")

    listed = await lab("fake", "ssh-key", "list", "fake", "root")
    if not has_it(lab, listed):
        return
    assert listed.text == f"{KEY}\n\\x1b[31mred\n"
    pushed = await lab("fake", "ssh-key", "push", "fake", "root", str(tmp_path / "keys.pub"))
    assert (pushed.code, pushed.errors) == (0, "fake: 2 keys may log in as root\n")
    assert arguments(fake, "guest-ssh-add-authorized-keys") == {
        "username": "root",
        "keys": [KEY, OTHER],
        "reset": False,
    }
    only = await lab("fake", "ssh-key", "push", "--only", "fake", "root", "-", "--json", stdin=f"{KEY}\n".encode())
    assert only.json == {}
    assert arguments(fake, "guest-ssh-add-authorized-keys") == {"username": "root", "keys": [KEY], "reset": True}
    gone = await lab("fake", "ssh-key", "remove", "fake", "root", "-", stdin=OTHER.encode())
    assert gone.errors == "fake: 1 key can't log in as root any more\n"
    assert arguments(fake, "guest-ssh-remove-authorized-keys") == {"username": "root", "keys": [OTHER]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n", "this is a private key: nothing was sent"),
        (f"{KEY}\nroot:x:0:0:root:/root:/bin/sh\n".encode(), "key 2 of 2 is no public key: nothing was sent"),
        (b"# nothing\n\n", "there is no key in it"),
        (b"\xff\xfe", "this is no file of public keys"),
        (b"k" * 300_000, "more than 262144 bytes"),
    ],
)
async def test_what_is_no_public_key_is_not_sent(lab: Lab, fake: FakeGuest, data: bytes, says: str) -> None:
    done = await lab("fake", "ssh-key", "push", "fake", "root", "-", stdin=data)

    assert done.code == 2
    assert says in done.line
    assert fake.names() == []


async def test_a_file_of_keys_that_is_not_there_is_a_fault_of_this_side(lab: Lab, tmp_path: Path) -> None:
    done = await lab("fake", "ssh-key", "push", "fake", "root", str(tmp_path / "none.pub"))

    assert (done.code, "none.pub: No such file" in done.line) == (74, True)


# Clock, processors, memory, power


async def test_the_clock_is_set_to_now_or_to_the_vms(lab: Lab, fake: FakeGuest) -> None:
    before = time.time_ns()
    done = await lab("fake", "set-time", "--now", "fake")
    if not has_it(lab, done):
        return
    assert re.fullmatch(r"fake: its clock is set to \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n", done.errors)
    assert before <= arguments(fake, "guest-set-time")["time"] <= time.time_ns()  # type: ignore[index]  # an object
    assert (await lab("fake", "set-time", "fake", "--json")).json == fake.replies["guest-get-time"]
    assert arguments(fake, "guest-set-time") is None


async def test_processors_are_shown_and_set(lab: Lab, fake: FakeGuest) -> None:
    assert "CAN GO OFFLINE" in (await lab("fake", "vcpus", "fake")).text
    done = await lab("fake", "vcpus", "--online", "0-1", "--offline", "3", "fake")
    if has_it(lab, done):
        assert done.errors == "fake: 3 processors set\n"
        assert arguments(fake, "guest-set-vcpus") == {
            "vcpus": [{"logical-id": number, "online": number < 3} for number in (0, 1, 3)]
        }
        assert (await lab("fake", "vcpus", "--online", "0-", "fake")).code == 2


@pytest.mark.usefixtures("fake")
async def test_memory_is_shown_and_set_block_by_block(lab: Lab) -> None:
    assert "1 block of 128.0 MiB" in (await lab("fake", "memory", "fake")).text
    done = await lab("fake", "memory", "--online", "1", "fake")
    if has_it(lab, done):
        assert done.text.split() == ["BLOCK", "RESULT", "ERROR", "1", "success", "16"]
        failed = await lab("fake", "memory", "--offline", "0-1", "fake", "--json")
        assert (failed.code, [one["response"] for one in json.loads(failed.output)]) == (
            3,
            ["operation-failed", "success"],
        )


async def test_a_trim_leaves_out_short_ranges(lab: Lab, fake: FakeGuest) -> None:
    if has_it(lab, await lab("fake", "trim", "--minimum", "4096", "fake")):
        assert arguments(fake, "guest-fstrim") == {"minimum": 4096}


@pytest.mark.parametrize("command", ["reboot", "halt"])
async def test_reboot_and_halt_need_yes_and_tell_the_agent(lab: Lab, fake: FakeGuest, command: str) -> None:
    refused = await lab("fake", command, "fake")
    assert (refused.code, fake.names()) == (2, [])
    assert "give --yes if you mean it" in refused.line

    done = await lab("fake", command, "--yes", "fake", "--json")
    if has_it(lab, done):
        assert done.json == {}
        assert arguments(fake, "guest-shutdown") == {"mode": command}


async def test_a_reboot_is_waited_for_until_the_agent_answers_again(lab: Lab, fake: FakeGuest) -> None:
    done = await lab("fake", "reboot", "--yes", "--wait", "30", "fake")

    if has_it(lab, done):
        assert done.errors == "fake: the agent answers again\n"
        assert fake.names()[-1] == "guest-ping"
