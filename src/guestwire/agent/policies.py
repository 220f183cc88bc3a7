"""The policy of a guest agent: the commands that it switches off, and the line of a file of the guest that allows them. Pure functions.

What an agent of QEMU knows (its documentation and `qga/main.c`):

- `[general]` in `qemu-ga.conf` has `blacklist=`, since 7.2 `block-rpcs=`; the old key was taken away in 9.1. `allow-rpcs=`
  came with 8.1. The options of the command line are `-b` in all versions, `--blacklist` until 9.1, `--block-rpcs` since
  7.2, and `-a`, `--allow-rpcs` since 8.1. Lists of file and command line add up.
- With a list of what is allowed all else is blocked; the list of what is blocked is applied last.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from guestwire.agent.commands import SINCE, absent_from
from guestwire.agent.packages import System, numbers_of
from guestwire.agent.results import AgentInfo

_name: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
"""A name of a command: nothing else that a guest lists goes into a line that people are told to copy."""

MOST_COMMANDS: Final = 256
"""That are looked at, of those that an agent lists."""

OWN_NUMBERS: Final = (100,)
"""From this version on an agent is Windows', whose numbers are not QEMU's."""

Lack = Literal["switched off", "too old", "left out"]
"""Why an agent does not do a command: by its policy; it is older than the command; it was built without it."""


@dataclass(frozen=True, slots=True)
class LackingCommand:
    """A command that an agent does not do, though agents of its system can.

    Attributes:
        name: for example `guest-exec`.
        why: see `Lack`.
        since: the first version of QEMU whose agent has it; None: a command that is newer than guestwire.
    """

    name: str
    why: Lack
    since: str | None


def listed_commands(info: AgentInfo) -> dict[str, bool]:
    """The commands that an agent lists, and whether each is enabled."""
    listed = info.supported_commands[:MOST_COMMANDS]
    return {one.name: one.enabled for one in listed if _name.fullmatch(one.name)}


def lacking_commands(info: AgentInfo, system: System) -> list[LackingCommand]:
    """The commands that an agent does not do, by name; none for one that lists no commands, as those before 0.15.

    While file systems are frozen an agent switches most of them off: it can't be told from its policy then.
    """
    listed, own = listed_commands(info), numbers_of(info.version)
    if not listed:
        return []
    found = []
    # Older agents list as disabled what their system can't have.
    for name in sorted((listed.keys() | SINCE.keys()) - absent_from(system.id)):
        since = SINCE.get(name)
        if name in listed:
            why: Lack | None = None if listed[name] else "switched off"
        else:
            why = "left out" if own < OWN_NUMBERS and own >= numbers_of(SINCE[name]) else "too old"
        if why:
            found.append(LackingCommand(name, why, since))
    return found


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """The line that changes an agent's policy.

    Attributes:
        file: of the guest; "" for Windows, where `line` is a command line.
        section: of the file, under which it stands; "" where there are none.
        line: to be put there, or for Windows to be run.
        replaces: the settings of the file whose lines it takes the place of.
        restart: the command that starts the agent again.
        notes: what else may hold the commands back.
    """

    file: str
    section: str
    line: str
    replaces: tuple[str, ...]
    restart: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Lists:
    """What shall be: each command that the agent has is in one of the two.

    Attributes:
        allowed: commands.
        blocked: commands.
        version: the agent's.
        is_by_allowing: the policy seems to be a list of what is allowed: most commands are off now. A new one of that
            kind goes on to block what a newer agent will have.
    """

    allowed: list[str]
    blocked: list[str]
    version: tuple[int, ...]
    is_by_allowing: bool

    @property
    def allow_option(self) -> str:
        return f"--allow-rpcs={','.join(self.allowed)}"

    @property
    def block_option(self) -> str:
        """Empty where nothing is blocked any more."""
        return f"--block-rpcs={','.join(self.blocked)}" if self.blocked else ""


def policy_line(info: AgentInfo, system: System, wanted: Collection[str]) -> PolicyLine:
    """The line that allows these commands, and leaves all others as they are.

    Args:
        info: of the agent.
        system: its guest's.
        wanted: names of commands that are switched off; others count for nothing.
    """
    listed, version = listed_commands(info), numbers_of(info.version)
    disabled = {name for name, enabled in listed.items() if not enabled} - absent_from(system.id)
    blocked = disabled - set(wanted)
    allowed = {name for name, enabled in listed.items() if enabled} | (disabled - blocked)
    by_allowing = version >= ALLOW_SINCE and len(disabled) > len(listed) / 2
    lists = _Lists(sorted(allowed), sorted(blocked), version, by_allowing)
    return _LINES.get(system.packages, _other)(lists)


BLOCK_SINCE: Final = (7, 2)
ALLOW_SINCE: Final = (8, 1)

_SYSTEMD: Final = "systemctl restart qemu-guest-agent"
_UNIT: Final = "options of its unit are added to the file's: `systemctl cat qemu-guest-agent` shows whether there is a -b or --block-rpcs"
_INIT_SCRIPT: Final = (
    'without systemd, its script has options from /etc/default/qemu-guest-agent, as DAEMON_ARGS="--block-rpcs=…"'
)
_SELINUX: Final = (
    "SELinux confines what the agent runs and reads: `ausearch -m avc -c qemu-ga` shows what it has denied"
)


def _in_configuration(lists: _Lists, restart: str = _SYSTEMD, notes: tuple[str, ...] = (_UNIT,)) -> PolicyLine:
    """The agent's own file, where QEMU is built to look for it: it is there only where a person made it."""
    if lists.is_by_allowing:
        line = f"allow-rpcs={','.join(lists.allowed)}"
    else:
        line = f"{'block-rpcs' if lists.version >= BLOCK_SINCE else 'blacklist'}={','.join(lists.blocked)}"
    replaces = ("block-rpcs", "blacklist", "allow-rpcs")
    return PolicyLine("/etc/qemu/qemu-ga.conf", "[general]", line, replaces, restart, notes)


def _other(lists: _Lists) -> PolicyLine:
    note = "where there is an /etc/sysconfig/qemu-ga, the unit has its options from there"
    return _in_configuration(lists, notes=(_UNIT, note))


def _debian(lists: _Lists) -> PolicyLine:
    """The packages of Debian and Ubuntu: the unit has no options, the init script has DAEMON_ARGS; nothing is switched off."""
    return _in_configuration(lists, notes=(_UNIT, _INIT_SCRIPT))


def _alpine(lists: _Lists) -> PolicyLine:
    """Its package has a script of OpenRC (aports: community/qemu, built with --sysconfdir=/etc); nothing is switched off."""
    return _in_configuration(
        lists, "rc-service qemu-guest-agent restart", ("its script is /etc/init.d/qemu-guest-agent",)
    )


def _in_sysconfig(name: str, value: str, notes: tuple[str, ...] = ()) -> PolicyLine:
    return PolicyLine("/etc/sysconfig/qemu-ga", "", f"{name}={value}", (name,), _SYSTEMD, notes)


def _rhel(lists: _Lists) -> PolicyLine:
    """RHEL and those built from it; the variable's name has changed with the versions of QEMU.

    `BLACKLIST_RPC` until 7.0, `BLOCK_RPCS` since 7.2 (9.2; tp-qemu #3712), `FILTER_RPC_ARGS` with a list of what is
    allowed, without files and programs, since 8.1.0-5 (9.4; tp-qemu #3887; the file as 10.1.0-17.el9_8 has it).
    """
    if lists.version >= ALLOW_SINCE:
        return _in_sysconfig("FILTER_RPC_ARGS", f'"{lists.allow_option}"', (_SELINUX,))
    name = "BLOCK_RPCS" if lists.version >= BLOCK_SINCE else "BLACKLIST_RPC"
    return _in_sysconfig(name, ",".join(lists.blocked), (_SELINUX,))


def _fedora(lists: _Lists) -> PolicyLine:
    """Its file switches nothing off; `QEMU_GA_ARGS` came in place of `BLACKLIST_RPC` with 9.1 (rpms/qemu, commit 58957c2)."""
    if lists.version < (9, 1):
        return _in_sysconfig("BLACKLIST_RPC", ",".join(lists.blocked), (_SELINUX,))
    option = lists.allow_option if lists.is_by_allowing else lists.block_option
    return _in_sysconfig("QEMU_GA_ARGS", f'"{option}"', (_SELINUX,))


def _suse(lists: _Lists) -> PolicyLine:
    """Since 11 its package switches guest-exec and guest-exec-status off, in /usr/etc; 10.2 did not (both of Tumbleweed)."""
    if lists.version < (11,):
        return _other(lists)
    option = lists.allow_option if lists.is_by_allowing else lists.block_option
    note = "the file below /etc is made where it is missing, and counts before the package's own, /usr/etc/sysconfig/qemu-ga"
    return _in_sysconfig("FILTER_RPC_ARGS", f'"{option}"', (note,))


def _freebsd(lists: _Lists) -> PolicyLine:
    """The port's script (emulators/qemu-guest-agent) has its options from rc.conf."""
    option = f" -b {','.join(lists.blocked)}" if lists.blocked else ""
    line = f'qemu_guest_agent_flags="-d -l /var/log/qemu-ga.log{option}"'
    notes = ("any other options of that line stay",)
    return PolicyLine("/etc/rc.conf", "", line, ("qemu_guest_agent_flags",), "service qemu-guest-agent restart", notes)


def _windows(lists: _Lists) -> PolicyLine:
    r"""The service's command line, as QEMU's installer makes it (`qga/installer/qemu-ga.wxs`); -b is known to all versions."""
    option = f" -b {','.join(lists.blocked)}" if lists.blocked else ""
    line = rf'sc.exe config QEMU-GA binPath= "\"C:\Program Files\Qemu-ga\qemu-ga.exe\" -d --retry-path{option}"'
    shows = r"`sc.exe qc QEMU-GA` shows it as it is now, and so does ImagePath in HKLM\SYSTEM\CurrentControlSet\Services\QEMU-GA"
    notes = ("for an administrator's cmd.exe; PowerShell has other quotation marks", f"{shows}: any other options stay")
    return PolicyLine("", "", line, (), "net stop QEMU-GA && net start QEMU-GA", notes)


_LINES: Final[Mapping[str, Callable[[_Lists], PolicyLine]]] = {
    "debian": _debian,
    "ubuntu": _debian,
    "alpine": _alpine,
    "rhel": _rhel,
    "fedora": _fedora,
    "suse": _suse,
    "freebsd": _freebsd,
    "windows": _windows,
}
"""By the distribution whose packages a system has; for others the file that QEMU is built with."""
