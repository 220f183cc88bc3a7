"""The limit of open files of this process."""

import resource
from typing import Final

MOST: Final = 1024 * 1024
"""No limit is raised beyond this, where it could be without end."""


def raise_limit() -> int:
    """Raises the soft limit as far as the hard one allows; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
