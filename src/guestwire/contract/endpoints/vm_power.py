"""Starting and ending VMs, and giving one an agent's channel.

A start or an end begins a task, and answers with its id; the task says how it ended.

Source: Proxmox VE's API under `/nodes/{node}/qemu/{vmid}/status`.
"""

from typing import Annotated, Final

from guestwire.access.checks import Privileges
from guestwire.contract.context import AgentChannel, TaskContext
from guestwire.contract.endpoint import OWN, VM, Effect, Registry
from guestwire.contract.faces import ToolView
from guestwire.contract.parameters import Role, VmParameters, parameter
from guestwire.errors import GuestError

endpoints = Registry()

HARDWARE: Final = Privileges("/vms/{vmid}", ("VM.Config.HWType",))
POWER: Final = Privileges("/vms/{vmid}", ("VM.PowerMgmt",))

Timeout = Annotated[int, parameter("Seconds until the task gives up.", ge=0, le=7200)]
SkipLock = Annotated[bool, parameter("As clients of Proxmox VE send it; nothing is locked here.", means_nothing=True)]


class PowerParameters(VmParameters, frozen=True, kw_only=True):
    """Parameters of all of them."""

    skiplock: SkipLock = False


class TimedPower(PowerParameters, frozen=True, kw_only=True):
    """Parameters of what waits for its end."""

    timeout: Timeout | None = None


class Stop(
    TimedPower,
    frozen=True,
    kw_only=True,
    rename={"keep_active": "keepActive", "overrule_shutdown": "overrule-shutdown"},
):
    """Parameters of the end of a VM."""

    keep_active: Annotated[
        bool, parameter("As clients of Proxmox VE send it; storage is not touched here.", means_nothing=True)
    ] = False
    overrule_shutdown: Annotated[bool, parameter("As clients of Proxmox VE send it; a stop waits for no shutdown here.", means_nothing=True)] = False  # fmt: skip


class Shutdown(TimedPower, frozen=True, kw_only=True, rename={"force_stop": "forceStop", "keep_active": "keepActive"}):
    """Parameters of a shutdown."""

    force_stop: Annotated[bool, parameter("Stops the VM when it does not shut down in time.")] = False
    keep_active: Annotated[
        bool, parameter("As clients of Proxmox VE send it; storage is not touched here.", means_nothing=True)
    ] = False


class Reboot(VmParameters, frozen=True, kw_only=True):
    """Parameters of a reboot."""

    timeout: Timeout | None = None


class Suspend(PowerParameters, frozen=True, kw_only=True):
    """Parameters of a pause."""

    todisk: Annotated[bool, parameter("Not possible here: memory stays where it is.", means_nothing=True)] = False
    statestorage: Annotated[str, parameter("There is no storage here.", Role.TEXT, means_nothing=True)] | None = None


class Resume(PowerParameters, frozen=True, kw_only=True):
    """Parameters of the end of a pause."""

    nocheck: Annotated[bool, parameter("As clients of Proxmox VE send it.", means_nothing=True)] = False


class Start(TimedPower, frozen=True, kw_only=True):
    """Parameters of a start."""

    machine: Annotated[str, parameter("As clients of Proxmox VE send it; the start command decides.", Role.TEXT, means_nothing=True)] | None = None  # fmt: skip


def _options(parameters: TimedPower | Reboot) -> dict[str, float]:
    return {} if parameters.timeout is None else {"within": float(parameters.timeout)}


@endpoints.endpoint(
    "POST", f"{VM}/status/start", Start, check=POWER, effect=Effect.WRITES, name="vm-start",
    tool=ToolView(core=True, hint="Gives the id of a task."),
)  # fmt: skip
async def start(context: TaskContext, parameters: Start) -> str:
    """Starts a VM."""
    return await context.power(parameters.vmid, "start", **_options(parameters))


@endpoints.endpoint(
    "POST", f"{VM}/status/stop", Stop, check=POWER, effect=Effect.DISRUPTS, name="vm-stop",
    tool=ToolView(core=True, hint="As pulling the plug: what was not written is lost. Gives the id of a task."),
)  # fmt: skip
async def stop(context: TaskContext, parameters: Stop) -> str:
    """Stops a VM at once."""
    return await context.power(parameters.vmid, "stop", **_options(parameters))


@endpoints.endpoint(
    "POST", f"{VM}/status/shutdown", Shutdown, check=POWER, effect=Effect.DISRUPTS, name="vm-shutdown",
    tool=ToolView(core=True, hint="By the agent, or else by its power button. Gives the id of a task."),
)  # fmt: skip
async def shutdown(context: TaskContext, parameters: Shutdown) -> str:
    """Shuts a VM down, and waits until it is off."""
    return await context.power(parameters.vmid, "shutdown", force=parameters.force_stop, **_options(parameters))


@endpoints.endpoint(
    "POST", f"{VM}/status/reboot", Reboot, check=POWER, effect=Effect.DISRUPTS, name="vm-reboot",
    tool=ToolView(core=True, hint="Gives the id of a task."),
)  # fmt: skip
async def reboot(context: TaskContext, parameters: Reboot) -> str:
    """Has a guest start anew."""
    return await context.power(parameters.vmid, "reboot", **_options(parameters))


@endpoints.endpoint(
    "POST", f"{VM}/status/reset", PowerParameters, check=POWER, effect=Effect.DISRUPTS, name="vm-reset",
    tool=ToolView(core=True, hint="As its reset button: what was not written is lost. Gives the id of a task."),
)  # fmt: skip
async def reset(context: TaskContext, parameters: PowerParameters) -> str:
    """Has a VM start anew at once."""
    return await context.power(parameters.vmid, "reset")


@endpoints.endpoint(
    "POST", f"{VM}/status/suspend", Suspend, check=POWER, effect=Effect.DISRUPTS, name="vm-suspend",
    tool=ToolView(core=True, hint="Its memory stays. Gives the id of a task."),
)  # fmt: skip
async def suspend(context: TaskContext, parameters: Suspend) -> str:
    """Halts a VM's processors."""
    if parameters.todisk:
        raise GuestError("Cannot suspend to disk here: the memory of a VM stays where it is")
    return await context.power(parameters.vmid, "suspend")


@endpoints.endpoint(
    "POST", f"{VM}/status/resume", Resume, check=POWER, effect=Effect.WRITES, name="vm-resume",
    tool=ToolView(core=True, hint="Gives the id of a task."),
)  # fmt: skip
async def resume(context: TaskContext, parameters: Resume) -> str:
    """Lets a VM's processors go on, or wakes a guest that sleeps."""
    return await context.power(parameters.vmid, "resume")


@endpoints.endpoint("POST", f"{VM}/{OWN}/agent-channel", VmParameters, check=HARDWARE, effect=Effect.WRITES)
async def agent_channel(context: TaskContext, parameters: VmParameters) -> AgentChannel:
    """Gives a VM that has none a channel for its guest agent: one that runs, or a domain of libvirt's."""
    return await context.add_channel(parameters.vmid)
