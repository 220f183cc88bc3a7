"""Results of endpoints whose texts a server streams; the others are in `guestwire.agent.results` and `guestwire.contract`."""

import msgspec


class FileContent(msgspec.Struct, frozen=True, rename="kebab"):
    """file-read: `content` has one character for each byte (`data` gives the bytes), or is base64 with `decode=False`."""

    content: str
    bytes_read: int
    truncated: int = 0

    @property
    def data(self) -> bytes:
        """The bytes, when the content is not base64."""
        return self.content.encode("latin-1")


class ProcessState(msgspec.Struct, frozen=True, rename="kebab"):
    """exec-status: output is there only when the process has exited, one character for each byte."""

    exited: int
    exitcode: int | None = None
    signal: int | None = None
    out_data: str | None = None
    out_truncated: int | None = None
    err_data: str | None = None
    err_truncated: int | None = None
