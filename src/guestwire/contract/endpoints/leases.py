"""Freezes that end by themselves, and of single file systems."""

import time
from typing import Annotated, Final

import msgspec

from guestwire.agent import commands as qga
from guestwire.agent.missing_commands import explain_missing
from guestwire.contract.context import WHILE_CONNECTED, GuestContext
from guestwire.contract.endpoint import OWN, VM, Effect, Registry
from guestwire.contract.endpoints.agent import FILE_SYSTEMS, freeze_for, freeze_or_thaw, within
from guestwire.contract.faces import ToolView
from guestwire.contract.parameters import Role, VmParameters, parameter
from guestwire.contract.results import AgentFault
from guestwire.counting import counted
from guestwire.errors import AgentError, GuestError, InvalidParameters, UnexpectedAnswer

endpoints = Registry()

LONGEST_LEASE: Final = 24 * 3600
MOST_MOUNTS: Final = 1000


class Freeze(VmParameters, frozen=True, kw_only=True):
    """Parameters of a freeze."""

    guestwire_lease: (
        Annotated[int, parameter("Seconds until it ends by itself.", ge=1, le=LONGEST_LEASE, examples=[60])] | None
    ) = msgspec.field(name="guestwire-lease", default=None)
    while_connected: Annotated[bool, parameter("It ends with this connection, too.")] = msgspec.field(
        name=WHILE_CONNECTED, default=False
    )
    mountpoints: (
        Annotated[
            list[str],
            parameter(
                "Where the only file systems are mounted that are frozen; all without it.",
                Role.TEXT,
                max_length=MOST_MOUNTS,
            ),
        ]
        | None
    ) = None


class Frozen(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many file systems are frozen; `until` when, in seconds since the epoch, is left out where they are so until a thaw.

    `watchdog` is true where a process in the guest thaws them when nothing else does; `problem` says why there is none.
    """

    frozen: int = msgspec.field(default_factory=int)
    until: float | None = None
    watchdog: bool = msgspec.field(default_factory=bool)
    problem: str | None = None


@endpoints.endpoint(
    "POST", f"{VM}/{OWN}/fsfreeze-freeze", Freeze, name="fsfreeze-with-lease", check=FILE_SYSTEMS, effect=Effect.DISRUPTS,
    timeout=within(qga.FSFREEZE_FREEZE),
    tool=ToolView(core=True, hint="Everything that writes in the guest waits until fsfreeze_thaw, or the end of the lease."),
)  # fmt: skip
async def freeze(context: GuestContext, parameters: Freeze) -> Frozen:
    """Freezes the guest's file systems for a time: a freeze with a lease ends also when its caller does not end it.

    A process in the guest thaws them a second after the lease when nothing else has.
    """
    if parameters.mountpoints is not None and not parameters.mountpoints:
        raise InvalidParameters({"mountpoints": "none is named; leave it out to freeze all"})
    agent = await context.agent(parameters.vmid)
    lease = parameters.guestwire_lease or context.freeze_lease
    command, arguments = qga.FSFREEZE_FREEZE, None
    if parameters.mountpoints is not None:
        command, arguments = qga.FSFREEZE_FREEZE_LIST, {"mountpoints": parameters.mountpoints}
    began = time.time()
    answer, watchdog = await freeze_for(
        context, parameters.vmid, command.command, lease, arguments, connected=parameters.while_connected
    )
    fault = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(fault, AgentFault):
        error = AgentError(fault.error_class, fault.desc)
        raise await explain_missing(agent, command.command.name, error)
    if type(answer) is not int:
        raise UnexpectedAnswer(agent.guest, command.command.name, "no number")
    wanted = len(set(parameters.mountpoints or ()))
    if answer < wanted:  # agents pass over what is no mount point, and what can't be frozen, without a word
        thawed = await freeze_or_thaw(context, parameters.vmid, qga.FSFREEZE_THAW.command)
        end = "they are thawed again" if type(thawed) is int else "they could not be thawed, and may still be frozen"
        raise GuestError(f"of {counted(wanted, 'mount point')} only {answer} could be frozen; {end}")
    return Frozen(answer, began + lease if lease else None, bool(watchdog.process), watchdog.problem or None)
