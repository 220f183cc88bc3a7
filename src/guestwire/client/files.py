"""Files in a guest, of any size."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from guestwire.client.guests import Guest

PIECE: Final = 1024 * 1024


class Files:
    """Reads and writes one guest's files."""

    def __init__(self, guest: "Guest") -> None:
        self._guest = guest

    async def read(self, path: str) -> bytes:
        """The whole file.

        Raises:
            AgentRefused: the guest's own reason.
            CallFailed: see `client.errors`.
        """
        pieces: list[bytes] = []
        while True:
            found = await self._guest.file_read(path, count=PIECE, offset=len(pieces) * PIECE)
            pieces.append(found.data)
            if not found.truncated or found.bytes_read < PIECE:
                return b"".join(pieces)

    async def write(self, path: str, data: bytes) -> None:
        """Makes `data` the whole file."""
        await self._guest.file_write(path, data.decode("latin-1"))

    async def remove(self, path: str) -> None:
        """Removes the file."""
        await self._guest.processes.run(["rm", "-f", "--", path], check=True)
