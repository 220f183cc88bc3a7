"""What guests can take from each other is bounded; time is a clock that goes when it is told to."""

import asyncio
from dataclasses import dataclass, field

import pytest
from waiting import until

from guestwire.channels import ReadBudget, UnixChannel, budget
from guestwire.channels.budget import FREE, READ_SIZE
from guestwire.testing import FakeGuest, faults
from guestwire.wire import Command

TURN = 1.0
MIB = 2**20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Guest:
    """A connection that takes `cost` seconds for each piece, and holds on to `keeps` bytes in all."""

    budget: ReadBudget
    clock: Clock
    log: list[str]
    name: str = "guest"
    cost: float = 0.0
    keeps: int = 0
    seen: list[bytes] = field(default_factory=list)
    evicted: str = ""

    def __post_init__(self) -> None:
        self.share = self.budget.share(self)

    def says(self, data: bytes = b"x") -> None:
        assert not self.share.is_paused, "it was read from though reading was paused"
        self.budget.received(self.share, memoryview(data))

    def process(self, data: bytes | memoryview) -> int:
        self.clock.now += self.cost
        self.seen.append(bytes(data))
        self.log.append(self.name)
        return self.keeps

    def pause(self) -> None:
        self.log.append(f"pause {self.name}")

    def resume(self) -> None:
        self.log.append(f"resume {self.name}")

    def evict(self, why: str) -> None:
        self.evicted = why
        self.budget.release(self.share)


@dataclass
class Place:
    """Guests that share a budget."""

    clock: Clock = field(default_factory=Clock)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget = ReadBudget(memory=MIB, turn=TURN, clock=self.clock)

    def guest(self, name: str, *, cost: float = 0.0) -> Guest:
        return Guest(self.budget, self.clock, self.log, name, cost)


@pytest.fixture
async def place() -> Place:
    return Place()


async def next_turn() -> None:
    await asyncio.sleep(0)


async def test_when_the_time_of_a_turn_is_used_up_reading_is_paused_until_the_next(place: Place) -> None:
    first, second = place.guest("first", cost=TURN), place.guest("second", cost=TURN)
    first.says()
    second.says()
    assert place.log == ["first", "pause second"]
    await next_turn()

    assert place.log == ["first", "pause second", "second", "resume second"]


async def test_a_hundred_busy_guests_take_no_more_of_a_turn_than_one_more_piece(place: Place) -> None:
    guests = [place.guest(str(number), cost=TURN / 2) for number in range(100)]
    for guest in guests:
        guest.says()
    turns = 0
    while before := place.clock.now:
        await next_turn()
        turns += 1
        assert place.clock.now - before <= TURN
        if place.clock.now == before:
            break

    assert turns == 100 / 2
    assert all(guest.seen for guest in guests)


async def test_guests_that_took_least_come_first(place: Place) -> None:
    greedy, modest = place.guest("greedy", cost=TURN), place.guest("modest", cost=TURN / 100)
    greedy.says()
    await next_turn()
    place.guest("another", cost=TURN).says()
    greedy.says()
    modest.says()
    place.log.clear()
    await next_turn()

    assert place.log == ["modest", "resume modest", "greedy", "resume greedy"]


async def test_what_was_put_aside_keeps_its_order(place: Place) -> None:
    place.guest("busy", cost=TURN).says()
    guest = place.guest("guest")
    for data in (b"a", b"b", b"c"):
        place.budget.received(guest.share, memoryview(data))
    await next_turn()

    assert b"".join(guest.seen) == b"abc"


async def test_a_guest_that_goes_away_is_forgotten(place: Place) -> None:
    place.guest("busy", cost=TURN).says()
    guest = place.guest("guest")
    guest.says()
    place.budget.release(guest.share)
    await next_turn()

    assert not guest.seen


def held(guest: Guest, size: int) -> None:
    guest.budget.hold(guest.share, size)


async def test_small_parts_of_replies_are_free(place: Place) -> None:
    guests = [place.guest(str(number)) for number in range(100)]
    for guest in guests:
        held(guest, FREE)

    assert place.budget.held == 0
    assert place.log == []


async def test_beyond_the_memory_only_one_guest_goes_on_and_the_others_follow_in_order(place: Place) -> None:
    a, b, c = (place.guest(name) for name in "abc")
    for guest in (a, b, c):
        held(guest, MIB)
    assert [guest.share.is_paused for guest in (a, b, c)] == [False, False, True]
    held(a, 2 * MIB)
    assert a.share.is_paused
    held(b, 40 * MIB)
    assert not b.share.is_paused, "the one that may go on"
    held(b, 0)
    assert [guest.share.is_paused for guest in (c, a)] == [False, True], "c has waited longer"
    held(c, 0)
    held(a, 0)

    assert not a.share.is_paused
    assert place.budget.held == 0


async def test_a_guest_that_keeps_others_waiting_is_evicted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PATIENCE", 0.02)
    slow, waiting = place.guest("slow"), place.guest("waiting")
    held(slow, 3 * MIB)
    held(waiting, 3 * MIB)
    assert waiting.share.is_paused
    await until(lambda: bool(slow.evicted))

    assert not waiting.share.is_paused
    assert "others wait" in slow.evicted
    place.budget.release(waiting.share)


async def test_a_guest_that_keeps_nobody_waiting_may_take_its_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "PATIENCE", 0.0)
    slow = place.guest("slow")
    held(slow, 3 * MIB)
    for _ in range(20):
        await next_turn()

    assert not slow.evicted
    place.budget.release(slow.share)


async def test_what_leaves_while_it_waits_for_memory_is_forgotten(place: Place) -> None:
    a, b, c = (place.guest(name) for name in "abc")
    for guest in (a, b, c):
        held(guest, 3 * MIB)
    place.budget.release(b.share)
    place.budget.release(a.share)

    assert not c.share.is_paused
    place.budget.release(c.share)
    assert place.budget.held == 0


# With real sockets


async def test_channels_on_one_loop_share_a_budget(folder_guests: list[FakeGuest]) -> None:
    channels = [UnixChannel(guest.path, "VM 1") for guest in folder_guests]

    assert channels[0]._budget is channels[1]._budget
    for channel in channels:
        await channel.close()


@pytest.fixture
async def folder_guests(guest: FakeGuest) -> list[FakeGuest]:
    return [guest, guest]


async def test_endless_replies_of_many_guests_hold_no_more_than_the_memory_and_one_reply(guest: FakeGuest) -> None:
    guest.concurrent = True
    guest.fault = faults.floods(b'{"return": "' + b"x" * MIB, 10**6)
    shared = ReadBudget(memory=2 * MIB)
    channels = [UnixChannel(guest.path, f"VM {number}", budget=shared) for number in range(10)]
    endless = Command("guest-exec-status", timeout=30, reply_limit=8 * MIB)
    calls = [asyncio.create_task(channel.execute(endless)) for channel in channels]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, sum(channel.link.buffered for channel in channels))
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert {str(outcome) for outcome in outcomes} >= {
        "VM 0 qga command 'guest-exec-status' failed - a reply longer than 8388608 bytes"
    }
    assert 8 * MIB <= most <= 2 * MIB + 8 * MIB + 10 * (FREE + READ_SIZE)
    assert shared.held == 0
    for channel in channels:
        await channel.close()


async def test_reading_is_paused_and_all_is_answered_when_there_is_hardly_any_budget(guest: FakeGuest) -> None:
    guest.concurrent = True
    guest.replies["big"] = "x" * MIB
    shared = ReadBudget(memory=0, turn=0.0)
    channels = [UnixChannel(guest.path, f"VM {number}", budget=shared) for number in range(5)]
    answers = await asyncio.gather(*(channel.execute(Command("big")) for channel in channels for _ in range(3)))

    assert set(map(len, answers)) == {MIB + 2}
    for channel in channels:
        await channel.close()
