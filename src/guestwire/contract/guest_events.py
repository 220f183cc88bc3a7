"""What happens to guests, told by comparing what was seen of them before and after."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from guestwire.contract.guest_facts import GuestFacts

ADDED, REMOVED, STARTED, STOPPED = "guest-added", "guest-removed", "guest-started", "guest-stopped"
RESET, PAUSED, SUSPENDED, RESUMED = "guest-reset", "guest-paused", "guest-suspended", "guest-resumed"
AGENT_UP, AGENT_SILENT, AGENT_GONE = "agent-up", "agent-silent", "agent-gone"
FROZEN, THAWED = "frozen", "thawed"
RENAMED, RETAGGED = "renamed", "retagged"
HOST_NAME, SYSTEM = "host-name-changed", "system-changed"
ADDRESSES, USERS = "addresses-changed", "users-changed"
FULL, EASED = "file-system-full", "file-system-eased"
CLOCK_OFF, CLOCK_RIGHT = "clock-off", "clock-right"

FROM_INSIDE: Final = (HOST_NAME, SYSTEM, ADDRESSES, USERS, FULL, EASED, CLOCK_OFF, CLOCK_RIGHT)
"""The kinds that a guest's agent is asked about."""

KINDS: Final = (
    ADDED, REMOVED, STARTED, STOPPED, RESET, PAUSED, SUSPENDED, RESUMED, AGENT_UP, AGENT_SILENT, AGENT_GONE, FROZEN,
    THAWED, RENAMED, RETAGGED, *FROM_INSIDE,
)  # fmt: skip

RUNS, PAUSES, SLEEPS = "running", "paused", "suspended"
"""What a VM that is started does, as QEMU has it."""

_STATES: Final = {
    RUNS: (RESUMED, "runs again"),
    PAUSES: (PAUSED, "was paused"),
    SLEEPS: (SUSPENDED, "is suspended, until it is woken"),
}

MOST_NAMED: Final = 20
"""Addresses, users, file systems in the words of one event."""


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a guest, at `time` in seconds since the epoch; `kind` is one of `KINDS`, `words` are for people."""

    time: float
    kind: str
    vmid: int
    name: str
    node: str
    words: str


class Seen(NamedTuple):
    """A guest, as far as events are about it.

    Attributes:
        name: of the VM.
        node: where it is.
        status: `running`, `stopped`, `template` or `unknown`.
        frozen_by: None where it is not frozen.
        agent: `AGENT_UP`, `AGENT_SILENT` (it can be reached, and does not answer) or `AGENT_GONE`; None: not known.
        tags: with semicolons between.
        run_state: what it does, in QEMU's words: `RUNS`, `PAUSES`, `SLEEPS` and others; None where that can't be seen.
        resets: how often it was seen to start anew.
        start: which of its starts this is: the number of a process or the like; None where that can't be seen.
        facts: what it says of itself; None where it was not asked.
    """

    name: str
    node: str
    status: str
    frozen_by: str | None = None
    agent: str | None = None
    tags: str = ""
    run_state: str | None = None
    resets: int | None = None
    start: int | None = None
    facts: GuestFacts | None = None


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
    yield from _changes_of_state(old, new)
    if old.agent and new.agent and old.agent != new.agent and new.status == "running":
        # One that was started has none for a while, which is no news.
        if new.agent == AGENT_UP:
            yield AGENT_UP, "its agent answers"
        elif old.agent == AGENT_UP and old.status == "running":
            yield new.agent, "its agent does not answer" if new.agent == AGENT_SILENT else "its agent is gone"
    if (old.frozen_by is None) != (new.frozen_by is None):
        is_over = new.frozen_by is None
        yield (
            (THAWED, "its file systems are thawed")
            if is_over
            else (FROZEN, f"its file systems are frozen, by {new.frozen_by}")
        )
    if old.facts and new.facts:
        yield from _changes_inside(old.facts, new.facts)


def _changes_of_state(old: Seen, new: Seen) -> Iterator[tuple[str, str]]:
    started, stopped = (STARTED, "was started"), (STOPPED, "was stopped")
    if old.status != new.status:
        if new.status in ("running", "stopped"):
            yield started if new.status == "running" else stopped
    elif new.status != "running":
        return
    elif old.start is not None and new.start is not None and old.start != new.start:
        yield stopped  # and started, between two looks
        yield started
    elif old.resets is not None and new.resets is not None and old.resets < new.resets:
        yield RESET, "was reset, or started itself anew"
    elif old.run_state and new.run_state in _STATES and old.run_state != new.run_state:
        yield _STATES[new.run_state]


def _changes_inside(old: GuestFacts, new: GuestFacts) -> Iterator[tuple[str, str]]:
    """What is not known now is no change."""
    if None not in (old.host_name, new.host_name) and old.host_name != new.host_name:
        yield HOST_NAME, f"its host name is {new.host_name}, and was {old.host_name}"
    if None not in (old.system, new.system) and old.system != new.system:
        yield SYSTEM, f"its system is {new.system}, and was {old.system}"
    if words := _differences(old.addresses, new.addresses, "has the address", "no more"):
        yield ADDRESSES, words
    if words := _differences(old.users, new.users, "is used by", "no more by"):
        yield USERS, words
    if old.full is not None and new.full is not None:
        if filled := new.full - old.full:
            yield FULL, f"nearly full: {_names(filled)}"
        if eased := old.full - new.full:
            yield EASED, f"not nearly full any more: {_names(eased)}"
    if None not in (old.clock_off, new.clock_off) and old.clock_off != new.clock_off:
        yield (CLOCK_OFF, "its clock is off") if new.clock_off else (CLOCK_RIGHT, "its clock is right again")


def _differences(old: frozenset[str] | None, new: frozenset[str] | None, now: str, no_more: str) -> str:
    if old is None or new is None:
        return ""
    come, gone = new - old, old - new
    return "; ".join([*([f"{now} {_names(come)}"] if come else []), *([f"{no_more} {_names(gone)}"] if gone else [])])


def _names(found: frozenset[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
