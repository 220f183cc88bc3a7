"""Failed logins: they cost their caller time, and stand in nobody else's way."""

import asyncio
import contextlib

import pytest

from guestwire.access.throttle import PER_NAME, QUEUE, Throttle, Turns, remaining
from guestwire.errors import NotAuthenticated
from guestwire.pacing import network_of


async def fail(throttle: Throttle, address: str, user: str, looked: list[str]) -> None:
    """One login with a wrong password; `looked` gets the name when the password was looked at."""
    with contextlib.suppress(NotAuthenticated):
        async with throttle.attempt(address, user):
            looked.append(user)
            raise NotAuthenticated("no")


async def succeed(throttle: Throttle, address: str, user: str) -> None:
    """One login with the right password."""
    async with throttle.attempt(address, user):
        pass


async def test_attempts_at_one_name_are_bounded_for_a_network_and_a_right_one_counts_no_more() -> None:
    throttle, looked = Throttle(60), list[str]()
    for _ in range(PER_NAME + 2):
        await succeed(throttle, "192.0.2.1", "ann@pve")
    tries = [asyncio.create_task(fail(throttle, "192.0.2.1", "ann@pve", looked)) for _ in range(PER_NAME + 2)]
    await asyncio.sleep(0)

    assert looked == ["ann@pve"] * PER_NAME
    for attempt in tries:
        attempt.cancel()
    await asyncio.gather(*tries, return_exceptions=True)


async def test_forty_bad_names_lock_out_no_other_name_at_their_address() -> None:
    throttle, looked = Throttle(60), list[str]()
    tries = [
        asyncio.create_task(fail(throttle, "192.0.2.1", f"x{number % 40}@pve", looked))
        for number in range(40 * PER_NAME)
    ]
    await asyncio.sleep(0)
    await succeed(throttle, "192.0.2.1", "ann@pve")

    assert len(looked) == 40 * PER_NAME
    for attempt in tries:
        attempt.cancel()
    await asyncio.gather(*tries, return_exceptions=True)


async def test_addresses_of_one_ipv6_network_share_their_attempts() -> None:
    throttle, looked = Throttle(60), list[str]()
    tries = [
        asyncio.create_task(fail(throttle, f"2001:db8::{number}", "ann@pve", looked)) for number in range(PER_NAME + 5)
    ]
    await asyncio.sleep(0)
    await succeed(throttle, "2001:db8:0:1::1", "ann@pve")

    assert len(looked) == PER_NAME
    for attempt in tries:
        attempt.cancel()
    await asyncio.gather(*tries, return_exceptions=True)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"), ("-", "-"), ("no:address", "no:address"),
    ],
)  # fmt: skip
def test_an_address_is_counted_by_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("spent", "rest"), [(0.0, 3.0), (0.07, 2.93), (2.4, 0.6), (3.0, 0.0), (3.1, 2.9), (5.9, 0.1), (6.0, 0.0)]
)
def test_a_failure_is_answered_after_a_full_number_of_its_costs(spent: float, rest: float) -> None:
    assert remaining(spent, 3.0) == pytest.approx(rest)


async def test_networks_take_turns() -> None:
    """Thirty attempts of each of ten networks are waiting; a login from an eleventh has its turn after ten of them."""
    turns, order = Turns(1), list[str]()

    async def work(address: str) -> None:
        async with turns.turn(address):
            order.append(address)
            await asyncio.sleep(0)

    async with turns.turn("192.0.2.0"):
        strangers = [asyncio.create_task(work(f"192.0.2.{1 + number % 10}")) for number in range(300)]
        await asyncio.sleep(0)
        rightful = asyncio.create_task(work("198.51.100.1"))
        await asyncio.sleep(0)
    await asyncio.gather(*strangers, rightful)

    assert order.index("198.51.100.1") == 10
    assert len(order) == 301


async def test_a_network_with_too_many_in_its_queue_is_refused_more_and_others_are_not() -> None:
    turns = Turns(1)
    async with turns.turn("192.0.2.1"):
        waiting = [asyncio.create_task(turn_of(turns, "2001:db8::1")) for _ in range(QUEUE)]
        await asyncio.sleep(0)
        with pytest.raises(NotAuthenticated):
            await turn_of(turns, "2001:db8::2")
        other = asyncio.create_task(turn_of(turns, "192.0.2.2"))
        await asyncio.sleep(0)
    await asyncio.gather(*waiting, other)


async def turn_of(turns: Turns, address: str) -> None:
    """One turn."""
    async with turns.turn(address):
        await asyncio.sleep(0)


async def test_callers_who_leave_while_they_wait_or_at_their_turn_block_nobody() -> None:
    turns = Turns(1)
    async with turns.turn("192.0.2.1"):
        waiting = [asyncio.create_task(turn_of(turns, f"192.0.2.{number % 4}")) for number in range(40)]
        await asyncio.sleep(0)
        for task in waiting[::3]:
            task.cancel()
        await asyncio.sleep(0)
    waiting[1].cancel()  # its turn has come, and it does not know yet
    waiting[2].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    async with asyncio.timeout(5):
        await turn_of(turns, "192.0.2.9")
        async with turns.turn("192.0.2.1"):
            last = asyncio.create_task(turn_of(turns, "192.0.2.2"))
            await asyncio.sleep(0)
            assert not last.done()
        await last
