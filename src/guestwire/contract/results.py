"""Results of the guest agent's endpoints that are more than the agent's own answers, which stand in `agent/results.py`.

A text that a guest's bytes make is of type `T` here: the server streams it (`ByteText`), a client has it as `str`.
"""

from typing import Any, Generic, TypeVar, get_args, get_origin

import msgspec

from guestwire.agent.results import Done
from guestwire.contract.text import ByteText

T = TypeVar("T")


class Forwarded(msgspec.Struct, Generic[T], frozen=True):
    """The agent's answer as it came; its error too, as `{"error": {"class": …, "desc": …}}`."""

    result: T


class AgentFault(msgspec.Struct, frozen=True):
    """An agent's error inside an answer."""

    error_class: str = msgspec.field(name="class")
    desc: str


class Started(msgspec.Struct, frozen=True):
    """A process that was started; `pid` is its id in the guest."""

    pid: int


class ProcessState(msgspec.Struct, Generic[T], frozen=True, rename="kebab", omit_defaults=True):
    """The state of a process; flags are 1 and 0.

    Output is there only when it has exited and wrote some: one character for each byte.
    """

    exited: int
    exitcode: int | None = None
    signal: int | None = None
    out_data: T | None = None
    out_truncated: int | None = None
    err_data: T | None = None
    err_truncated: int | None = None


class FileContent(msgspec.Struct, Generic[T], frozen=True, rename="kebab", omit_defaults=True):
    """A part of a file: `content` has one character for each byte (`data` gives the bytes), or is base64 where that was asked for.

    `truncated` is 1 when the end of the file was not seen, and absent otherwise.
    """

    content: T
    bytes_read: int
    truncated: int = 0

    @property
    def data(self) -> bytes:
        """The bytes, when the content is not base64."""
        return str(self.content).encode("latin-1")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list, and how many there are; the number stands beside the data of an answer."""

    data: list[T]
    total: int


class Name(msgspec.Struct, frozen=True):
    """One name below a path."""

    name: str


class Subdirectory(msgspec.Struct, frozen=True):
    """One name below a path, as Proxmox VE's upper levels write it."""

    subdir: str


def client_result(returns: Any) -> Any:
    """The type that a client has for a result: an agent's own answer, with `str` where a server streams bytes; None where there is nothing to say."""
    answer = get_args(returns)[0] if get_origin(returns) is Forwarded else returns
    if answer in (None, type(None), Done):
        return None
    if ByteText not in get_args(answer):
        return answer
    return get_origin(answer)[tuple(str if part is ByteText else part for part in get_args(answer))]


def byte_text_fields(returns: Any) -> tuple[str, ...]:
    """The fields of a result that hold one character for each byte of the guest's."""
    if ByteText not in get_args(returns):
        return ()
    return tuple(
        field.name for field in msgspec.structs.fields(returns) if ByteText in (field.type, *get_args(field.type))
    )
