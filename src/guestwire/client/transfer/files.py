"""All that is done with the files of one guest."""

from guestwire.client.transfer.download import Downloads
from guestwire.client.transfer.upload import Uploads


class Files(Uploads, Downloads):
    """Reads, writes and copies one guest's files, of any size. Paths are the guest's own."""
