"""A program in a guest with its bytes both ways while it runs."""

import contextlib
from typing import Annotated, Final

from guestwire.agent.commands import GET_OSINFO
from guestwire.agent.watchdog import WINDOWS_ID
from guestwire.contract.context import GuestContext
from guestwire.contract.endpoint import OWN, VM, Effect, Kind, Registry
from guestwire.contract.endpoints.agent import EVERYTHING
from guestwire.contract.parameters import Role, VmParameters, parameter
from guestwire.errors import AgentError, GuestError, InvalidParameters
from guestwire.streams.agent_access import start_in_guest
from guestwire.streams.remote_process import RemoteProcess, StreamRequest, WindowSize

endpoints = Registry()

STREAM_PATH: Final = f"{VM}/{OWN}/stream"

NO_STREAM_IN_WINDOWS: Final = "no stream can be had: a Windows guest has no shell that could carry it, and no terminal"


MOST_CHARACTERS: Final = 10_000
"""Of a terminal's rows or columns."""


class StreamStart(VmParameters, frozen=True, kw_only=True):
    """Parameters of a stream."""

    command: Annotated[
        list[str],
        parameter("Program and arguments; no shell is between.", Role.ARGUMENTS, examples=[["tail", "-f", "/var/log/syslog"]]),
    ]  # fmt: skip
    rows: Annotated[
        int, parameter("The program gets a terminal of so many rows; 0: it gets none.", ge=0, le=MOST_CHARACTERS)
    ] = 0
    columns: Annotated[int, parameter("The columns of its terminal.", ge=0, le=MOST_CHARACTERS)] = 0
    env: (
        Annotated[list[str], parameter("More environment variables, as NAME=VALUE.", Role.ENVIRONMENT)] | None
    ) = None  # fmt: skip
    cwd: Annotated[str, parameter("Its working directory.", Role.DIRECTORY)] | None = None
    user: (
        Annotated[str, parameter("The guest's user that it runs as; without it, the agent's own.", Role.TEXT)] | None
    ) = None
    merge: Annotated[bool, parameter("Its errors go where its output goes.")] = False
    input: Annotated[bool, parameter("It has a standard input; without, that ends at once.")] = True
    connection: Annotated[
        bool, parameter("It serves one connection on its standard streams: the end of its input is that of its output.")
    ] = False


@endpoints.endpoint(
    "GET", STREAM_PATH, StreamStart, check=EVERYTHING, effect=Effect.DISRUPTS, timeout=180, kind=Kind.PROCESS
)
async def stream(context: GuestContext, parameters: StreamStart) -> RemoteProcess:
    """Starts a program in the guest, and carries its input and outputs while it runs: a WebSocket.

    Binary messages are bytes behind one byte that says whose they are: 0 standard input, 1 output, 2 errors. Texts are
    one JSON object each. To the server: `{"eof": true}`, `{"resize": [ROWS, COLUMNS]}`, `{"signal": 15}`,
    `{"leave": true}` (it is to run on without its stream), and `{"room": {"1": BYTES}}`: so many more bytes of that output are taken. From it: `{"pid": PID}` first,
    `{"room": {"0": BYTES}}`: so many more bytes of input are taken; `{"end": 1}`, the end of an output; `{"exit": {"code": 0,
    "signal": null}}`; `{"broken": WHY}`. Either side begins with room for 262144 bytes of each. The program ends with
    the connection.

    A header `Guestwire-Secrets` has `env` and `command`, which logs should not keep: an object of JSON, in base64. `command`
    is taken from the address, too.
    """
    agent = await context.agent(parameters.vmid)
    if not parameters.command:
        raise InvalidParameters({"command": "there is no program in it"})
    variables = [item.partition("=") for item in parameters.env or ()]
    if wrong := [number for number, (name, equals, _) in enumerate(variables) if not name or not equals]:
        raise InvalidParameters({f"env[{number}]": "it is not NAME=VALUE" for number in wrong})
    if bool(parameters.rows) != bool(parameters.columns):
        raise InvalidParameters({"rows": "a terminal has rows and columns"})
    request = StreamRequest(
        argv=tuple(parameters.command),
        tty=WindowSize(parameters.rows, parameters.columns) if parameters.rows else None,
        env=tuple((name, value) for name, _, value in variables),
        cwd=parameters.cwd,
        user=parameters.user,
        merge=parameters.merge,
        input=parameters.input,
        connection=parameters.connection,
    )
    try:
        return await start_in_guest(agent, request)
    except AgentError as error:
        system = None
        with contextlib.suppress(GuestError):  # an old agent does not say
            system = (await agent.execute(GET_OSINFO)).id
        if system == WINDOWS_ID:
            raise GuestError(f"{agent.guest}: {NO_STREAM_IN_WINDOWS}") from error
        raise
