"""The one place where access is decided."""

from typing import Final

from guestwire.access.tokens import Subject
from guestwire.errors import Forbidden

SUPERUSER: Final = "root@pam"


def authorize(subject: Subject, path: str, any_of: tuple[str, ...]) -> None:
    """Lets `subject` pass who has one of the privileges `any_of` on the access path `path`.

    So far there is one user, who may do everything.

    Raises:
        Forbidden: none of them.
    """
    if subject.user != SUPERUSER:
        raise Forbidden(path, any_of)
