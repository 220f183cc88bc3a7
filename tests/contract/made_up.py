"""Endpoints made up for a test: each is one function with its record, and nothing else anywhere."""

from typing import Annotated, Final

import msgspec

from guestwire.contract import CommandView, Effect, GuestContext, Registry, Role, ToolView, VmParameters, parameter
from guestwire.contract.endpoint import VM
from guestwire.contract.endpoints.agent import AGENT, EVERYTHING
from guestwire.contract.endpoints.files import FILE_READ, FILE_WRITE
from guestwire.contract.faces import Facts

made_up = Registry()

LOUD: Final = b"!"


class FileSize(VmParameters, frozen=True, kw_only=True):
    """Parameters of file-size."""

    file: Annotated[str, parameter("The path in the guest.", Role.READ_PATH)]


class SizeOfFile(msgspec.Struct, frozen=True, rename="kebab"):
    """The size of a file in bytes."""

    size_in_bytes: int


@made_up.endpoint(
    "GET", f"{AGENT}/file-size", FileSize, check=FILE_READ, tool=ToolView(core=True, hint="Made up."),
    command=CommandView("size", "Show the size of /etc/hostname.", Facts({"size-in-bytes": "bytes"})),
)  # fmt: skip
async def file_size(context: GuestContext, parameters: FileSize) -> SizeOfFile:
    """Says how large a file is."""
    agent = await context.agent(parameters.vmid)
    return SizeOfFile((await agent.files.read(parameters.file, count=1024 * 1024)).size)


class Shout(VmParameters, frozen=True, kw_only=True):
    """Parameters of shout."""

    target: Annotated[str, parameter("The path in the guest.", Role.WRITE_PATH)]
    words: Annotated[str, parameter("The file's content.", Role.CONTENT, max_length=1000)]
    code: Annotated[str, parameter("A secret.", Role.SECRET)] | None = None


@made_up.endpoint(
    "POST", f"{VM}/guestwire/shout", Shout, check=FILE_WRITE, effect=Effect.WRITES, tool=ToolView(core=True)
)
async def shout(context: GuestContext, parameters: Shout) -> SizeOfFile:
    """Writes words to a file, loudly."""
    agent = await context.agent(parameters.vmid)
    data = parameters.words.encode("latin-1") + LOUD
    await agent.files.write(parameters.target, data)
    return SizeOfFile(len(data))


class Launch(VmParameters, frozen=True, kw_only=True):
    """Parameters of launch."""

    program: Annotated[list[str], parameter("Program and arguments.", Role.ARGUMENTS)]


@made_up.endpoint(
    "POST", f"{VM}/guestwire/launch", Launch, check=EVERYTHING, effect=Effect.DISRUPTS, tool=ToolView(core=True)
)
async def launch(context: GuestContext, parameters: Launch) -> int:
    """Starts a program, and says its process id."""
    agent = await context.agent(parameters.vmid)
    return await agent.processes.start(parameters.program)
