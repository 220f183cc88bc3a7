"""What an agent does not do, and the line that allows what its policy switches off, for each system."""

import re

import pytest

from guestwire.agent.commands import SINCE, absent_from
from guestwire.agent.packages import numbers_of, system_of
from guestwire.agent.policies import PolicyLine, lacking_commands, policy_line
from guestwire.agent.results import AgentInfo, OsInfo, SupportedCommand

FILES = [f"guest-file-{name}" for name in ("close", "flush", "open", "read", "seek", "write")]
EXEC = ["guest-exec", "guest-exec-status"]


def agent(version: str, system: str, off: list[str]) -> AgentInfo:
    """As an agent of this version lists its commands."""
    known = [name for name, since in SINCE.items() if numbers_of(version) >= numbers_of(since)]
    listed = [SupportedCommand(name, name not in off) for name in known if name not in absent_from(system)]
    # The older ones list what their system can't have.
    return AgentInfo(
        version, [*listed, *(SupportedCommand(name, enabled=False) for name in sorted(absent_from(system)))]
    )


def line_for(system: str, version: str, off: list[str], wanted: list[str]) -> PolicyLine:
    return policy_line(agent(version, system, off), system_of(OsInfo(id=system)), wanted)


CONF, SYSCONFIG = "/etc/qemu/qemu-ga.conf", "/etc/sysconfig/qemu-ga"
SYSTEMD = "systemctl restart qemu-guest-agent"
LEFT = ",".join(FILES)


@pytest.mark.parametrize(
    ("system", "version", "file", "section", "some", "all_", "restart"),
    [
        ("debian", "5.2.0", CONF, "[general]", f"blacklist={LEFT}", "blacklist=", SYSTEMD),
        ("debian", "7.2.22", CONF, "[general]", f"block-rpcs={LEFT}", "block-rpcs=", SYSTEMD),
        ("debian", "10.0.13", CONF, "[general]", f"block-rpcs={LEFT}", "block-rpcs=", SYSTEMD),
        ("ubuntu", "4.2.1", CONF, "[general]", f"blacklist={LEFT}", "blacklist=", SYSTEMD),
        ("ubuntu", "6.2.0", CONF, "[general]", f"blacklist={LEFT}", "blacklist=", SYSTEMD),
        ("ubuntu", "8.2.2", CONF, "[general]", f"block-rpcs={LEFT}", "block-rpcs=", SYSTEMD),
        ("rhel", "2.12.0", SYSCONFIG, "", f"BLACKLIST_RPC={LEFT}", "BLACKLIST_RPC=", SYSTEMD),
        ("rocky", "6.2.0", SYSCONFIG, "", f"BLACKLIST_RPC={LEFT}", "BLACKLIST_RPC=", SYSTEMD),
        ("almalinux", "7.2.0", SYSCONFIG, "", f"BLOCK_RPCS={LEFT}", "BLOCK_RPCS=", SYSTEMD),
        ("centos", "8.0.0", SYSCONFIG, "", f"BLOCK_RPCS={LEFT}", "BLOCK_RPCS=", SYSTEMD),
        ("fedora", "9.0.2", SYSCONFIG, "", f"BLACKLIST_RPC={LEFT}", "BLACKLIST_RPC=", SYSTEMD),
        ("fedora", "10.1.2", SYSCONFIG, "", f'QEMU_GA_ARGS="--block-rpcs={LEFT}"', 'QEMU_GA_ARGS=""', SYSTEMD),
        ("sles", "8.2.10", CONF, "[general]", f"block-rpcs={LEFT}", "block-rpcs=", SYSTEMD),
        ("opensuse-leap", "7.1.0", CONF, "[general]", f"blacklist={LEFT}", "blacklist=", SYSTEMD),
        ("opensuse-tumbleweed", "11.1.0", SYSCONFIG, "", f'FILTER_RPC_ARGS="--block-rpcs={LEFT}"', 'FILTER_RPC_ARGS=""', SYSTEMD),
        ("alpine", "10.0.0", CONF, "[general]", f"block-rpcs={LEFT}", "block-rpcs=", "rc-service qemu-guest-agent restart"),
        ("freebsd", "10.2.2", "/etc/rc.conf", "", f'qemu_guest_agent_flags="-d -l /var/log/qemu-ga.log -b {LEFT}"',
         'qemu_guest_agent_flags="-d -l /var/log/qemu-ga.log"', "service qemu-guest-agent restart"),
        ("mswindows", "107.0.1", "", "",
         rf'sc.exe config QEMU-GA binPath= "\"C:\Program Files\Qemu-ga\qemu-ga.exe\" -d --retry-path -b {LEFT}"',
         r'sc.exe config QEMU-GA binPath= "\"C:\Program Files\Qemu-ga\qemu-ga.exe\" -d --retry-path"',
         "net stop QEMU-GA && net start QEMU-GA"),
        ("arch", "10.2.2", CONF, "[general]", f"block-rpcs={LEFT}", "block-rpcs=", SYSTEMD),
        ("", "10.2.2", CONF, "[general]", f"block-rpcs={LEFT}", "block-rpcs=", SYSTEMD),
    ],
)  # fmt: skip
def test_the_line_drops_just_what_is_wanted_from_the_list_of_what_is_blocked(
    system: str, version: str, file: str, section: str, some: str, all_: str, restart: str
) -> None:
    off = [*EXEC, *FILES]

    found = line_for(system, version, off, EXEC)

    assert (found.file, found.section, found.line, found.restart) == (file, section, some, restart)
    assert line_for(system, version, off, off).line == all_
    assert not file or found.line.partition("=")[0] in found.replaces


@pytest.mark.parametrize(("system", "version"), [("rhel", "8.2.0"), ("rocky", "9.1.0"), ("centos", "10.1.0")])
def test_rhel_since_9_4_names_what_is_allowed(system: str, version: str) -> None:
    found = line_for(system, version, [*EXEC, *FILES], EXEC)

    assert (found.file, found.replaces, found.restart) == (SYSCONFIG, ("FILTER_RPC_ARGS",), SYSTEMD)
    allowed = re.fullmatch(r'FILTER_RPC_ARGS="--allow-rpcs=([a-z0-9,-]+)"', found.line)
    assert allowed
    names = allowed[1].split(",")
    assert names == sorted(set(names))
    known = {one.name for one in agent(version, system, []).supported_commands} - absent_from(system)
    assert set(names) == known - set(FILES)


@pytest.mark.parametrize(
    ("system", "version", "line"),
    [
        ("debian", "10.0.13", "allow-rpcs={}"),
        ("arch", "10.2.2", "allow-rpcs={}"),
        ("fedora", "10.1.2", 'QEMU_GA_ARGS="--allow-rpcs={}"'),
        ("opensuse-tumbleweed", "11.1.0", 'FILTER_RPC_ARGS="--allow-rpcs={}"'),
    ],
)
def test_where_most_is_off_the_list_of_what_is_allowed_grows(system: str, version: str, line: str) -> None:
    on = ["guest-info", "guest-ping", "guest-sync-delimited"]
    off = [name for name in SINCE if name not in on]

    found = line_for(system, version, off, EXEC)

    assert found.line == line.format(",".join(sorted([*on, *EXEC])))
    assert not found.section or "allow-rpcs" in found.replaces


@pytest.mark.parametrize("version", ["5.2.0", "7.2.22"])
def test_an_agent_that_knows_no_list_of_what_is_allowed_gets_none(version: str) -> None:
    off = [name for name in SINCE if name not in ("guest-info", "guest-ping")]

    assert line_for("debian", version, off, off).line in ("blacklist=", "block-rpcs=")
    assert "guest-ping" not in line_for("debian", version, off, EXEC).line


def test_what_is_on_already_or_is_no_command_changes_nothing() -> None:
    assert line_for("debian", "10.0.13", FILES, ["guest-ping", "guest-none"]).line == f"block-rpcs={LEFT}"


@pytest.mark.parametrize(
    ("system", "version", "off", "too_old", "left_out"),
    [
        ("debian", "7.2.22", EXEC, {"guest-get-load", "guest-network-get-route"}, set()),
        ("debian", "10.0.13", [], set(), set()),
        ("ubuntu", "4.2.1", ["guest-exec"],
         {name for name, since in SINCE.items() if numbers_of(since) > (4, 2)} - {"guest-get-devices"}, set()),
        ("mswindows", "107.0.1", FILES, set(), set()),
        ("freebsd", "10.2.2", [], set(), set()),
    ],
)  # fmt: skip
def test_too_old_and_switched_off_are_two_things(
    system: str, version: str, off: list[str], too_old: set[str], left_out: set[str]
) -> None:
    found = lacking_commands(agent(version, system, off), system_of(OsInfo(id=system)))

    assert {one.name for one in found if one.why == "switched off"} == set(off)
    assert {one.name for one in found if one.why == "too old"} == too_old
    assert {one.name for one in found if one.why == "left out"} == left_out
    assert [one.name for one in found] == sorted(one.name for one in found)
    assert all(one.since == SINCE[one.name] for one in found)


def test_a_command_that_the_version_should_have_was_left_out() -> None:
    info = agent("10.0.13", "debian", [])
    listed = [one for one in info.supported_commands if one.name != "guest-get-disks"]

    [found] = lacking_commands(AgentInfo("10.0.13", listed), system_of(OsInfo(id="debian")))

    assert (found.name, found.why, found.since) == ("guest-get-disks", "left out", "5.2")


def test_a_command_that_is_newer_than_guestwire_may_be_off_too() -> None:
    info = agent("99.0.0", "debian", [])
    info = AgentInfo(info.version, [*info.supported_commands, SupportedCommand("guest-dance", enabled=False)])

    [found] = lacking_commands(info, system_of(OsInfo(id="debian")))

    assert (found.name, found.why, found.since) == ("guest-dance", "switched off", None)


def test_nothing_is_said_of_an_agent_that_lists_no_commands() -> None:
    assert lacking_commands(AgentInfo("0.12.1"), system_of(OsInfo(id="rhel"))) == []


@pytest.mark.parametrize(
    "name",
    ['guest-x"', "guest-x\nblock-rpcs=", "guest-x; reboot", "Guest-X", "", "a" * 65, "guest-x,guest-y", "\x1b[2J", "ä"],
)
def test_what_is_no_name_of_a_command_gets_into_no_line(name: str) -> None:
    info = agent("10.0.13", "rhel", ["guest-exec"])
    hostile = AgentInfo(
        info.version, [SupportedCommand(name), SupportedCommand(name, enabled=False), *info.supported_commands]
    )

    for system in ("debian", "rhel", "mswindows"):
        named = system_of(OsInfo(id=system))
        assert policy_line(hostile, named, ["guest-exec", name]) == policy_line(info, named, ["guest-exec"])
        assert lacking_commands(hostile, named) == lacking_commands(info, named)


def test_a_list_without_end_is_cut() -> None:
    listed = [SupportedCommand(f"guest-{number}", enabled=False) for number in range(100_000)]

    found = policy_line(AgentInfo("10.0.13", listed), system_of(OsInfo(id="debian")), ["guest-0"])

    assert len(found.line) < 256 * 12
