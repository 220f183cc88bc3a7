"""Files in a guest: Proxmox VE's `file-read` and `file-write`; and chunks of files of any size, under a path of our own.

Source: Proxmox VE's API of the same paths.
"""

import binascii
from typing import Annotated, Final

from guestwire.agent.systems import UNIX, system_of
from guestwire.contract.context import GuestContext
from guestwire.contract.endpoint import OWN, VM, Effect, Registry
from guestwire.contract.endpoints.agent import AGENT, on_vm
from guestwire.contract.faces import ToolView
from guestwire.contract.parameters import Role, VmParameters, parameter
from guestwire.contract.results import FileContent
from guestwire.contract.text import Base64Text, ByteText, to_bytes
from guestwire.errors import AgentError, GuestError, InvalidParameters

endpoints = Registry()

FILE_READ: Final = on_vm("VM.GuestAgent.FileRead")
FILE_WRITE: Final = on_vm("VM.GuestAgent.FileWrite")

MAX_READ: Final = 16 * 1024 * 1024
MAX_CONTENT: Final = 60 * 1024

MAX_CHUNK: Final = 352 * 1024
"""Bytes; in base64 they fit into what a request may carry."""


MAX_LIST: Final = 8 * 1024 * 1024
MAX_ENTRIES: Final = 100_000
"""Of a list of files: a guest may make one of any length."""

LONGEST_REASON: Final = 300
"""Characters of a guest's reason why it makes no list."""


class FileRead(VmParameters, frozen=True, kw_only=True):
    """Parameters of file-read."""

    file: Annotated[str, parameter("The path in the guest.", Role.READ_PATH, examples=["/etc/hostname"])]
    count: Annotated[int, parameter("Bytes to read at most.", Role.SIZE, ge=1, le=MAX_READ)] = MAX_READ
    offset: Annotated[int, parameter("Bytes to skip first.", ge=0)] = 0
    decode: Annotated[bool, parameter("Answer text (the API has one character for each byte); otherwise base64.")] = (
        True
    )


@endpoints.endpoint(
    "GET", f"{AGENT}/file-read", FileRead, check=FILE_READ, timeout=600,
    tool=ToolView(hint="For text prefer read_text_file."),
)  # fmt: skip
async def file_read(context: GuestContext, parameters: FileRead) -> FileContent[ByteText]:
    """Reads a file, 16 MiB at most; offset and count read a part."""
    agent = await context.agent(parameters.vmid)
    contents = await agent.files.read(parameters.file, offset=parameters.offset, count=parameters.count)
    text = (ByteText if parameters.decode else Base64Text)(contents.pieces)
    return FileContent(text, contents.size, int(contents.truncated))


class FileWrite(VmParameters, frozen=True, kw_only=True):
    """Parameters of file-write."""

    file: Annotated[str, parameter("The path in the guest.", Role.WRITE_PATH, examples=["/etc/hostname"])]
    content: Annotated[str, parameter("The whole file.", Role.CONTENT, max_length=MAX_CONTENT)]
    encode: Annotated[bool, parameter("The content is text; otherwise it is base64 already.")] = True


@endpoints.endpoint(
    "POST", f"{AGENT}/file-write", FileWrite, check=FILE_WRITE, effect=Effect.WRITES, timeout=60,
    tool=ToolView(hint="Replaces the file, 60 KiB at most; prefer write_text_file, which keeps the old file until the new one is whole."),
)  # fmt: skip
async def file_write(context: GuestContext, parameters: FileWrite) -> None:
    """Writes a whole file."""
    agent = await context.agent(parameters.vmid)
    if parameters.encode:
        await agent.files.write(parameters.file, to_bytes(parameters.content))
    else:
        await agent.files.write_encoded(parameters.file, parameters.content)


class FileAppend(FileWrite, frozen=True, kw_only=True):
    """Parameters of file-append."""

    content: Annotated[str, parameter("What is added.", Role.CONTENT, max_length=MAX_CONTENT)]


@endpoints.endpoint(
    "POST", f"{VM}/{OWN}/file-append", FileAppend, check=FILE_WRITE, effect=Effect.WRITES, timeout=60,
    tool=ToolView(hint="60 KiB at most.", destroys=False, repeatable=False),
    instead="guestwire exec -i GUEST -- tee -a FILE",
)  # fmt: skip
async def file_append(context: GuestContext, parameters: FileAppend) -> None:
    """Adds to the end of a file, which is made where there is none; after an error a part of it may have been added."""
    try:
        content = (
            to_bytes(parameters.content)
            if parameters.encode
            else binascii.a2b_base64(parameters.content, strict_mode=True)
        )
    except ValueError:
        raise InvalidParameters({"content": "not base64"}) from None
    agent = await context.agent(parameters.vmid)
    await agent.files.append(parameters.file, content)


class FileChunk(VmParameters, frozen=True, kw_only=True):
    """Parameters of a chunk of a file."""

    file: Annotated[str, parameter("The path in the guest; the file must be there.", Role.WRITE_PATH)]
    at: Annotated[int, parameter("Where the chunk begins, in bytes; it may be written twice.", ge=0)]
    content: Annotated[str, parameter("The chunk, in base64.", Role.CHUNK, max_length=(MAX_CHUNK + 2) // 3 * 4)]


@endpoints.endpoint("POST", f"{VM}/{OWN}/file-piece", FileChunk, check=FILE_WRITE, effect=Effect.WRITES, timeout=60)
async def file_piece(context: GuestContext, parameters: FileChunk) -> None:
    """Writes a chunk of a file at its place; together with file-write, files of any size."""
    try:
        size = len(binascii.a2b_base64(parameters.content, strict_mode=True))
    except ValueError:
        raise InvalidParameters({"content": "not base64"}) from None
    agent = await context.agent(parameters.vmid)
    await agent.files.write_piece(parameters.file, parameters.content, size, at=parameters.at)


class FileList(VmParameters, frozen=True, kw_only=True):
    """Parameters of a list of files."""

    folder: Annotated[str, parameter("The folder in the guest.", Role.READ_PATH, examples=["/etc"], ends_at_nul=True)]
    recursive: Annotated[bool, parameter("List all below it, too.")] = False


@endpoints.endpoint("GET", f"{VM}/{OWN}/file-list", FileList, check=FILE_READ, timeout=120)
async def file_list(context: GuestContext, parameters: FileList) -> FileContent[ByteText]:
    """Lists a folder: what the guest prints for the client's `Folders`.

    For each entry `KIND SIZE MODE TIME PATH` and a NUL (kind f, d, l or ?; mode octal; seconds since the epoch), and of
    a Unix behind that `UID:GID:OWNER:GROUP:TARGET` and a NUL (OWNER and GROUP may be UNKNOWN; TARGET is where a link
    leads). The guest runs a program for it, always this one.
    """
    agent = await context.agent(parameters.vmid)
    system = system_of(parameters.folder)
    command = (system.walk if parameters.recursive else system.listdir)(parameters.folder)
    ended = await agent.processes.run(command, interrupt=UNIX.interrupt if system is UNIX else None)
    if ended.exitcode != 0:
        reason = (ended.err_data or b"").decode("utf-8", "replace").strip().partition("\n")[0]
        raise AgentError("GenericError", reason[:LONGEST_REASON] or "the program that lists files failed")
    output = ended.out_data or b""
    if ended.out_truncated or len(output) > MAX_LIST or output.count(b"\0") > MAX_ENTRIES * 2:
        raise GuestError(
            f"the list of {parameters.folder} is longer than {MAX_ENTRIES} entries or {MAX_LIST} bytes; list a folder below it"
        )
    return FileContent(ByteText([output]), len(output))
