"""What a guest's shell says, without the shell: the person wants the path and the reason."""

from types import SimpleNamespace

import pytest

from guestwire.client.advice import LOOK
from guestwire.client.errors import ErrorContext
from guestwire.client.transfer.retrying import Retrying


@pytest.mark.parametrize(
    ("shell", "says"),
    [
        (
            "sh: cd: line 20: can't cd to /nope: No such file or directory",
            "/nope: No such file or directory",
        ),  # busybox
        ("sh: line 20: cd: /nope: No such file or directory", "/nope: No such file or directory"),  # bash
        ("sh: 20: cd: can't cd to /nope", "can't cd to /nope"),  # dash gives no reason
    ],
)
def test_a_folder_that_cannot_be_entered_is_told_without_line_numbers(shell: str, says: str) -> None:
    calls = SimpleNamespace(context=ErrorContext("host", "web"))
    retrying = Retrying(calls, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]  # needs none of them

    refused = retrying.refusal(shell)

    assert (refused.message, refused.hint) == (says, LOOK)
