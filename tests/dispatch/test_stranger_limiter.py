"""Strangers leave a bounded number of records, and none is left out without being counted."""

from hypothesis import given
from hypothesis import strategies as st

from guestwire.dispatch.stranger_limiter import ADDRESSES, IN_ALL, PER_ADDRESS, WINDOW, StrangerLimiter


def test_an_address_has_so_many_a_minute_and_what_is_over_is_told_in_the_next() -> None:
    strangers = StrangerLimiter()

    assert [strangers.allow("192.0.2.1", 0.0) for _ in range(PER_ADDRESS)] == [0] * PER_ADDRESS
    assert [strangers.allow("192.0.2.1", 1.0) for _ in range(5)] == [None] * 5
    assert strangers.allow("192.0.2.2", 1.0) == 0
    assert strangers.allow("192.0.2.1", WINDOW) == 5
    assert strangers.allow("192.0.2.1", WINDOW) == 0


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    strangers = StrangerLimiter()

    found = [strangers.allow(f"2001:db8::{number:x}", 0.0) for number in range(PER_ADDRESS + 1)]

    assert found[-1] is None
    assert strangers.allow("2001:db8:1::1", 0.0) == 0


def test_all_together_have_a_limit_too_and_not_all_are_remembered() -> None:
    strangers = StrangerLimiter()

    found = [strangers.allow(f"10.0.{number // 256}.{number % 256}", 0.0) for number in range(ADDRESSES + 10)]

    assert found.count(0) == IN_ALL
    assert len(strangers._skipped) == ADDRESSES - IN_ALL + 10


@given(st.text(max_size=60))
def test_any_text_is_an_address(address: str) -> None:
    assert StrangerLimiter().allow(address, 0.0) == 0
