"""When guests are polled."""

from collections import Counter

from guestwire.app.guest_polls import FIRST, PolledGuest

EVERY = 60.0


def test_guests_that_were_found_together_are_soon_polled_evenly() -> None:
    guests = [PolledGuest(0.0, position / 600, FIRST) for position in range(600)]
    for _ in range(5):
        for guest in guests:
            guest.plan(guest.due, min(guest.pause * 2, EVERY))
    of_each_second = Counter(int(guest.due % EVERY) for guest in guests)

    assert len(of_each_second) == EVERY
    assert max(of_each_second.values()) <= 12


def test_a_guest_that_was_found_alone_is_polled_ever_more_seldom() -> None:
    guest = PolledGuest(0.0, 0.0, FIRST)
    polls = []
    for _ in range(5):
        polls.append(guest.due)
        guest.plan(guest.due, min(guest.pause * 2, EVERY))

    assert polls == [0.0, 20.0, 60.0, 120.0, 180.0]
