"""Help with a guest's agent: its version, what it does not do and which line allows it, how it is installed, and its channel."""

import contextlib
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from guestwire.addresses import is_libvirt_uri
from guestwire.agent.packages import (
    UNKNOWN,
    Family,
    System,
    VersionCheck,
    check_version,
    system_of,
    system_of_family,
)
from guestwire.agent.policies import LackingCommand, PolicyLine, lacking_commands, policy_line
from guestwire.agent.results import AgentInfo
from guestwire.channels.agent_port import AGENT_PORT, LIBVIRT_CHANNEL, qemu_options
from guestwire.client.errors import CallFailed
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host

SWITCHED_OFF: Final = "switched off"

_PROGRAMS: Final = ("exec", "shell", "edit", "cp", "ls GUEST:PATH", "freeze --lease")
_FILES: Final = ("cat", "cp", "edit")
_VCPUS: Final = ("vcpus --online",)
_MEMORY: Final = ("memory",)
_FREEZE: Final = ("freeze",)

NEEDED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "guest-sync": (),
    "guest-sync-delimited": ("all commands",),
    "guest-ping": ("ping", "wait"),
    "guest-info": ("info", "doctor", "agent"),
    "guest-shutdown": ("shutdown", "reboot", "halt"),
    "guest-file-open": _FILES,
    "guest-file-close": _FILES,
    "guest-file-read": _FILES,
    "guest-file-write": ("cp", "edit"),
    "guest-file-seek": _FILES,
    "guest-file-flush": ("raw",),
    "guest-fsfreeze-status": ("freeze-status", *_FREEZE),
    "guest-fsfreeze-freeze": _FREEZE,
    "guest-fsfreeze-freeze-list": ("freeze --mount",),
    "guest-fsfreeze-thaw": ("thaw", *_FREEZE),
    "guest-fstrim": ("trim",),
    "guest-suspend-disk": ("suspend disk",),
    "guest-suspend-ram": ("suspend ram",),
    "guest-suspend-hybrid": ("suspend hybrid",),
    "guest-network-get-interfaces": ("ip",),
    "guest-network-get-route": ("routes",),
    "guest-get-time": ("time",),
    "guest-set-time": ("set-time",),
    "guest-get-vcpus": ("vcpus",),
    "guest-set-vcpus": _VCPUS,
    "guest-get-fsinfo": ("df",),
    "guest-set-user-password": ("passwd",),
    "guest-get-memory-blocks": _MEMORY,
    "guest-set-memory-blocks": ("memory --online",),
    "guest-get-memory-block-info": _MEMORY,
    "guest-exec": _PROGRAMS,
    "guest-exec-status": (*_PROGRAMS, "status"),
    "guest-get-host-name": ("hostname",),
    "guest-get-users": ("users",),
    "guest-get-timezone": ("timezone",),
    "guest-get-osinfo": ("osinfo",),
    "guest-get-disks": ("disks",),
    "guest-get-devices": ("drivers",),
    "guest-ssh-get-authorized-keys": ("ssh-key list",),
    "guest-ssh-add-authorized-keys": ("ssh-key push",),
    "guest-ssh-remove-authorized-keys": ("ssh-key remove",),
    "guest-get-diskstats": ("diskstats",),
    "guest-get-cpustats": ("cpustats",),
    "guest-get-load": ("load",),
}
"""By the agent's command: ours that need it, as the command line names them."""


@dataclass(frozen=True, slots=True)
class ChannelHelp:
    """How a VM gets the channel that its agent needs.

    Attributes:
        command: does it, where the VM runs.
        qemu: QEMU's options, for its next start; PATH is the socket.
        libvirt: below `<devices>` of a domain's XML.
    """

    command: str
    qemu: tuple[str, ...]
    libvirt: str


@dataclass(frozen=True, slots=True)
class AgentHelp:
    """What helps with one guest's agent.

    Attributes:
        answers: whether it does.
        lists_commands: those of before 0.15 do not, so that nothing can be said of them.
        is_frozen: only the commands for thawing are enabled now, so that nothing can be said of its policy.
        system: the guest's, as its agent names it.
        version: the agent's; None: it does not answer.
        commands: that it does not do though agents of its system can.
        policy: the line that allows those that are switched off; None: none is, or not that is known.
        channel: for a VM that has none; None: it has one, or it is not its host's to say.
    """

    answers: bool
    lists_commands: bool = False
    is_frozen: bool = False
    system: System = UNKNOWN
    version: VersionCheck | None = None
    commands: tuple[LackingCommand, ...] = ()
    policy: PolicyLine | None = None
    channel: ChannelHelp | None = None

    @property
    def switched_off(self) -> list[str]:
        """The commands that its policy switches off."""
        return [one.name for one in self.commands if one.why == SWITCHED_OFF]


async def help_with(
    guest: Guest, info: AgentInfo, wanted: Collection[str] = (), family: Family | None = None
) -> AgentHelp:
    """What helps with an agent that answers.

    Args:
        guest: its guest, which is asked for its system, and whether it is frozen.
        info: its answer to guest-info.
        wanted: commands of the agent that shall be allowed; empty: all that are switched off.
        family: of its system, where its agent does not say which that is.
    """
    system, is_frozen = UNKNOWN, False
    with contextlib.suppress(CallFailed):
        system = system_of(await guest.get_osinfo())
    if family and not system.family:
        system = system_of_family(family)
    commands = lacking_commands(info, system)
    off = {one.name for one in commands if one.why == SWITCHED_OFF}
    if off:
        with contextlib.suppress(CallFailed):
            is_frozen = await guest.fsfreeze_status() == "frozen"
    if is_frozen:
        commands, off = [one for one in commands if one.why != SWITCHED_OFF], set()
    off &= set(wanted or off)
    return AgentHelp(
        answers=True,
        lists_commands=bool(info.supported_commands),
        is_frozen=is_frozen,
        system=system,
        version=check_version(info.version, system),
        commands=tuple(commands),
        policy=policy_line(info, system, off) if off else None,
    )


async def help_without(host: Host, guest: str, *, vmid: int | None, has_channel: bool) -> AgentHelp:
    """What helps where no agent answers.

    Args:
        host: of the guest.
        guest: its name.
        vmid: its id; None: it is a VM that was found, and can't be used.
        has_channel: whether its VM has a channel, as far as the host says.
    """
    channel, xml = None, LIBVIRT_CHANNEL.format(name=AGENT_PORT)
    if has_channel:
        pass
    elif host.has_one_guest:  # its QEMU may lack the socket, or the port at its other side
        channel = ChannelHelp("", qemu_options(host.name.removeprefix("unix:")), "")
    elif not await host.is_guestwire():
        channel = ChannelHelp(f"qm set {vmid} --agent 1 && qm shutdown {vmid} && qm start {vmid}", (), "")
    else:
        is_libvirt = is_libvirt_uri(host.name)
        command = f"guestwire channel add {shlex.quote(guest)}"
        channel = ChannelHelp(command, () if is_libvirt else qemu_options("PATH"), xml)
    return AgentHelp(answers=False, channel=channel)


def commands_of(word: str) -> list[str]:
    """The agent's commands that a word means: a command of the agent's, or those that one of ours needs; none: it means nothing."""
    if word in NEEDED_BY:
        return [word]
    exactly = [name for name, ours in NEEDED_BY.items() if word in ours]
    return exactly or [
        name for name, ours in NEEDED_BY.items()
        if word == name.removeprefix("guest-") or word in {one.partition(" ")[0] for one in ours}
    ]  # fmt: skip


def version_words(help_: AgentHelp) -> str:
    """A sentence about an agent's version."""
    version, system = help_.version, help_.system.name
    if version is None:
        return "not known: the agent does not answer"
    known = f"the newest for {system} (as of {version.as_of})"
    return {
        "newest": f"{version.agent} is {known}",
        "older": f"{version.agent} is older than {version.newest}, {known}",
        "newer": f"{version.agent} is newer than {version.newest}, {known}",
        "not known": f"{version.agent}; the newest for {system} is not known",
    }[version.state]


def policy_words(policy: PolicyLine) -> str:
    """What is to be done in the guest, in one sentence."""
    if not policy.file:
        return f"in the guest, as administrator: {policy.line}; then {policy.restart}"
    section = f", below {policy.section}" if policy.section else ""
    replaced = ", ".join(f"{name}=" for name in policy.replaces)
    return (
        f"in the guest, put into {policy.file}{section}, in place of {replaced}: {policy.line}; then {policy.restart}"
    )
