"""What Proxmox VE lacks for files: pieces of a file of any size, under a name of our own, so that its own paths stay as they are."""

import binascii
from typing import Annotated, Final

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


class FilePiece(OfVm, frozen=True, kw_only=True):
    """Parameters of a piece of a file."""

    file: Annotated[str, Meta(description="The path in the guest; the file must be there.")]
    at: Annotated[int, Meta(description="Where the piece begins, in bytes; it may be written twice.", ge=0)]
    content: Annotated[
        str,
        Meta(
            description="The piece, in base64.", max_length=MAX_ENCODED, extra={"secret": True, "audited": Audited.SIZE}
        ),
    ]


@endpoints.endpoint("POST", f"{PATH}/file-piece", FilePiece, check=FILE_WRITE, effect=Effect.WRITES, timeout=60)
async def file_piece(context: Context, parameters: FilePiece) -> None:
    """Writes a piece of a file at its place; together with file-write, files of any size."""
    try:
        size = len(binascii.a2b_base64(parameters.content, strict_mode=True))
    except ValueError:
        raise InvalidParameters({"content": "not base64"}) from None
    agent = await context.agent(parameters.vmid)
    await agent.files.write_piece(parameters.file, parameters.content, size, at=parameters.at)
