"""What Proxmox VE lacks for files: pieces of a file of any size, under a name of our own, so that its own paths stay as they are."""

import base64
import binascii
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from guestwire.contract.context import Context
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.endpoints.agent import FILE_WRITE
from guestwire.contract.parameters import Audited, OfVm
from guestwire.errors import InvalidParameters

endpoints = Registry()

PATH: Final = "/nodes/{node}/qemu/{vmid}/guestwire"

MAX_PIECE: Final = 352 * 1024
"""Bytes; in base64 they fit into what a request may carry."""

MAX_ENCODED: Final = (MAX_PIECE + 2) // 3 * 4


class FileAppend(OfVm, frozen=True, kw_only=True):
    """Parameters of a piece that is added to a file."""

    file: Annotated[str, Meta(description="The path in the guest; the file must be there.")]
    at: Annotated[int, Meta(description="How many bytes the file has now: a piece is never added twice.", ge=0)]
    content: Annotated[
        str,
        Meta(
            description="The piece, in base64.", max_length=MAX_ENCODED, extra={"secret": True, "audited": Audited.SIZE}
        ),
    ]


class Appended(msgspec.Struct, frozen=True):
    """How many bytes the file has now."""

    size: int


@endpoints.endpoint("POST", f"{PATH}/file-append", FileAppend, check=FILE_WRITE, effect=Effect.WRITES, timeout=60)
async def file_append(context: Context, parameters: FileAppend) -> Appended:
    """Adds a piece to a file; together with file-write, files of any size."""
    try:
        piece = base64.b64decode(parameters.content, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameters({"content": "not base64"}) from None
    agent = await context.agent(parameters.vmid)
    return Appended(await agent.files.append(parameters.file, piece, at=parameters.at))
