"""Processes in a guest: Proxmox VE's `exec` and `exec-status`; and an `exec` of our own, with all that agents can do.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated, Final, cast, get_args

from guestwire.agent.commands import EXEC, MERGES_SINCE, Capture
from guestwire.agent.missing_commands import explain_missing
from guestwire.contract.context import GuestContext
from guestwire.contract.endpoint import OWN, VM, Effect, Registry
from guestwire.contract.endpoints.agent import AGENT, EVERYTHING
from guestwire.contract.faces import ToolView
from guestwire.contract.parameters import Role, VmParameters, parameter
from guestwire.contract.results import ProcessState, Started
from guestwire.contract.text import ByteText, to_bytes
from guestwire.errors import AgentError, GuestError, InvalidParameters

endpoints = Registry()

MAX_INPUT: Final = 64 * 1024
"""Characters of standard input."""


class Exec(VmParameters, frozen=True, kw_only=True):
    """Parameters of exec."""

    command: Annotated[
        list[str],
        parameter(
            "Program and arguments; a single text is a program's name, not a command line.",
            Role.ARGUMENTS,
            examples=[["systemctl", "is-active", "ssh"]],
        ),
    ]
    input_data: (
        Annotated[
            str, parameter("What the program reads from standard input.", Role.STANDARD_INPUT, max_length=MAX_INPUT)
        ]
        | None
    ) = None


@endpoints.endpoint(
    "POST", f"{AGENT}/exec", Exec, check=EVERYTHING, effect=Effect.DISRUPTS,
    tool=ToolView(core=True, hint="Prefer run_command, which waits for the end and gives the output."),
)  # fmt: skip
async def execute(context: GuestContext, parameters: Exec) -> Started:
    """Starts a program in the guest; exec-status tells how it ends."""
    agent = await context.agent(parameters.vmid)
    if not parameters.command and not parameters.input_data:
        raise GuestError("command or input-data (or both) required")
    input_data = None if parameters.input_data is None else to_bytes(parameters.input_data)
    return Started(await agent.processes.start(parameters.command, input_data))


class ExecCapture(Exec, frozen=True, kw_only=True):
    """Parameters of our own exec."""

    env: (
        Annotated[
            list[str],
            parameter("The whole environment, as NAME=VALUE; without it, the agent's own.", Role.ENVIRONMENT),
        ]
        | None
    ) = None
    capture: Annotated[
        str,
        parameter(
            "The outputs that the agent keeps; merged: both as one, in the order of what was written.",
            Role.TEXT,
            enum=get_args(Capture),
        ),
    ] = "separated"


@endpoints.endpoint(
    "POST", f"{VM}/{OWN}/exec", ExecCapture, check=EVERYTHING, effect=Effect.DISRUPTS, name="exec-capture",
    tool=ToolView(hint="Prefer run_command, which waits for the end and gives the output."),
    instead="guestwire exec --env NAME=VALUE GUEST -- PROGRAM",
)  # fmt: skip
async def exec_capture(context: GuestContext, parameters: ExecCapture) -> Started:
    """Starts a program in the guest with an environment, and says which of its outputs are kept; exec-status tells how it ends."""
    agent = await context.agent(parameters.vmid)
    if not parameters.command:
        raise InvalidParameters({"command": "there is no program in it"})
    if wrong := [number for number, item in enumerate(parameters.env or ()) if "=" not in item[1:]]:
        raise InvalidParameters({f"env[{number}]": "it is not NAME=VALUE" for number in wrong})
    input_data = None if parameters.input_data is None else to_bytes(parameters.input_data)
    capture = cast("Capture", parameters.capture)
    try:
        return Started(await agent.processes.start(parameters.command, input_data, env=parameters.env, capture=capture))
    except AgentError as error:
        if "capture-output" in error.description:
            why = f"this agent can't merge outputs: one can since QEMU {MERGES_SINCE} ({error.description})"
            raise AgentError(error.error_class, why) from error
        raise await explain_missing(agent, EXEC.command.name, error) from error


class ExecStatus(VmParameters, frozen=True, kw_only=True):
    """Parameters of exec-status."""

    pid: Annotated[int, parameter("The process's id in the guest, as exec returned it.", Role.PROCESS)]


@endpoints.endpoint(
    "GET", f"{AGENT}/exec-status", ExecStatus, check=EVERYTHING, timeout=120,
    tool=ToolView(core=True, hint="Output comes once, when the program has ended."),
)  # fmt: skip
async def exec_status(context: GuestContext, parameters: ExecStatus) -> ProcessState[ByteText]:
    """Tells whether a process still runs, or how it ended and what it wrote."""
    agent = await context.agent(parameters.vmid)
    status = await agent.processes.status(parameters.pid)
    out, err = status.out_data, status.err_data
    return ProcessState(
        exited=int(status.exited),
        exitcode=status.exitcode,
        signal=status.signal,
        out_data=None if out is None else ByteText([out]),
        out_truncated=None if out is None else int(bool(status.out_truncated)),
        err_data=None if err is None else ByteText([err]),
        err_truncated=None if err is None else int(bool(status.err_truncated)),
    )
