"""Copying a file from one guest to another: in chunks through this process, which keeps none of them on a disk."""

from contextlib import aclosing
from typing import TYPE_CHECKING

from guestwire.client.errors import FileRefused
from guestwire.client.transfer.reading import FileStat

if TYPE_CHECKING:
    from guestwire.client.transfer.files import Files
    from guestwire.client.transfer.local_files import Progress


async def copy_file(
    source: "Files", path: str, target: "Files", there: str, *, stat: FileStat | None = None,
    progress: "Progress | None" = None,
) -> int:  # fmt: skip
    """Copies the file `path` of one guest to the place `there` in another; returns its size.

    What is read is compared with the SHA-256 in the one guest, and then what is written with that in the other, before
    it appears under its name. It gets the file's time, and where it is new its permissions. A copy that is interrupted
    begins anew.

    Args:
        source: the files of the one guest.
        path: a link is followed.
        target: the files of the other guest; may be the same one.
        there: what stands there is replaced.
        stat: of `path`, when it is known.
        progress: see `Progress`.

    Raises:
        ChecksumMismatch: the file changed meanwhile, or arrived as something else; the old file is still there.
        FileRefused: it is no regular file, or either guest's own reason.
        CallFailed: see `client.errors`.
    """
    retrying = source.retrying
    if not stat and await retrying.host.may_run(retrying.calls.vmid):
        stat = await source.stat(path)
    if stat and stat.kind != "f":
        kind = "a directory" if stat.kind == "d" else "no regular file"
        raise FileRefused(retrying.context, f"{path} is {kind}")
    mode, mtime, size = (stat.mode, stat.mtime, stat.size or None) if stat else (None, None, None)
    # Closed here also where the other guest fails in the middle.
    async with aclosing(source.stream_checked(path)) as chunks:
        return await target.write(there, chunks, mode=mode, mtime=mtime, for_new=True, size=size, progress=progress)
