"""What happens to guests, told by comparing what was seen of them before and after."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

ADDED, REMOVED, STARTED, STOPPED = "guest-added", "guest-removed", "guest-started", "guest-stopped"
AGENT_SILENT, AGENT_UP = "agent-silent", "agent-up"
FROZEN, THAWED = "frozen", "thawed"
RENAMED, RETAGGED = "renamed", "retagged"

KINDS: Final = (ADDED, REMOVED, STARTED, STOPPED, AGENT_SILENT, AGENT_UP, FROZEN, THAWED, RENAMED, RETAGGED)


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a guest, at `time` in seconds since the epoch; `kind` is one of `KINDS`, `words` are for people."""

    time: float
    kind: str
    vmid: int
    name: str
    node: str
    words: str


class Seen(NamedTuple):
    """A guest, as far as events are about it. `frozen_by` and `silent_since` are None where it is not."""

    name: str
    node: str
    status: str
    frozen_by: str | None = None
    silent_since: float | None = None
    tags: str = ""


def compare(
    before: Mapping[int, Seen], after: Mapping[int, Seen], only: Iterable[int] | None = None
) -> Iterator[Event]:
    """The events that lie between two looks at guests by their ids; `only` of these guests."""
    now = time.time()
    wanted = before.keys() | after.keys()
    for vmid in sorted(wanted if only is None else wanted & set(only)):
        old, new = before.get(vmid), after.get(vmid)
        known = new or old
        assert known  # noqa: S101  # it is in one of them
        for kind, words in _changes(old, new):
            yield Event(now, kind, vmid, known.name, known.node, words)


def _changes(old: Seen | None, new: Seen | None) -> Iterator[tuple[str, str]]:
    if old is None or new is None:
        yield (ADDED, "is there now") if old is None else (REMOVED, "is there no more")
        return
    if old.name != new.name:
        yield RENAMED, f"was called {old.name}"
    if old.tags != new.tags:
        yield RETAGGED, f"has the tags {new.tags or '(none)'}"
    if old.status != new.status and new.status in ("running", "stopped"):
        yield (STARTED, "was started") if new.status == "running" else (STOPPED, "was stopped")
    if (old.silent_since is None) != (new.silent_since is None) and new.status == "running":
        yield (
            (AGENT_UP, "its agent answers") if new.silent_since is None else (AGENT_SILENT, "its agent does not answer")
        )
    if (old.frozen_by is None) != (new.frozen_by is None):
        is_over = new.frozen_by is None
        yield (
            (THAWED, "its file systems are thawed")
            if is_over
            else (FROZEN, f"its file systems are frozen, by {new.frozen_by}")
        )
