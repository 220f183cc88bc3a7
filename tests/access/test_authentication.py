"""Who comes in with a ticket or a token, and that nobody comes in with anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.forgeries import KEY, NOW, SECRET, USER, VIEW, play
from guestwire.access import Subject
from guestwire.access.authentication import Credentials, authenticate, parse_credentials, secret_hash
from guestwire.access.control import Access
from guestwire.access.keys import ROTATE_AFTER, due_changes, keys_of
from guestwire.access.tickets import CLOCK_GRACE, LIFETIME, is_csrf_of, make_csrf, make_ticket, user_of_ticket
from guestwire.errors import NotAuthenticated
from guestwire.stores import MemoryStore, Put, User
from guestwire.stores.snapshot import empty


def version(_userid: str) -> str:
    """The version of a user's tickets."""
    return "v1"


@given(st.integers(0, 2**32))
def test_no_forgery_comes_in(seed: int) -> None:
    assert play(50, seed).total() == 50


def test_a_token_and_a_ticket_come_in() -> None:
    ticket = make_ticket(KEY, USER, VIEW.users[USER].ticket_version, NOW)

    assert authenticate(VIEW, Credentials(token=f"{USER}!tok={SECRET}"), NOW) == Subject(f"{USER}!tok")
    assert authenticate(VIEW, parse_credentials(f"a=b; PVEAuthCookie={ticket}", ""), NOW) == Subject(USER)


@pytest.mark.parametrize(
    "token", [f"{USER}!old={SECRET}", f"gone@pve!tok={SECRET}", f"{USER}!tok=", f"{USER}!tok", "="]
)
def test_an_expired_disabled_or_incomplete_token_does_not(token: str) -> None:
    with pytest.raises(NotAuthenticated, match="Authentication failed!"):
        authenticate(VIEW, Credentials(token=token), NOW)


def test_nothing_is_no_ticket() -> None:
    with pytest.raises(NotAuthenticated, match="No ticket"):
        authenticate(VIEW, parse_credentials("", "Basic abc"), NOW)


@pytest.mark.parametrize(
    ("age", "valid"),
    [(0, True), (LIFETIME - 1, True), (LIFETIME, False), (-CLOCK_GRACE + 1, True), (-CLOCK_GRACE, False)],
)
def test_a_ticket_lives_two_hours_and_may_come_five_minutes_early(age: int, valid: bool) -> None:  # a column of a table
    ticket, csrf = make_ticket(KEY, USER, "v1", NOW - age), make_csrf(KEY, USER, NOW - age)

    assert (user_of_ticket([KEY], ticket, NOW, version) == USER) is valid
    assert is_csrf_of([KEY], USER, csrf, NOW) is valid


def test_a_ticket_of_the_key_before_is_valid_and_one_of_a_key_that_is_gone_is_not() -> None:
    old, new = b"o" * 32, b"n" * 32
    ticket = make_ticket(old, USER, "v1", NOW)

    assert user_of_ticket([new, old], ticket, NOW, version) == USER
    assert user_of_ticket([new], ticket, NOW, version) is None


def test_a_csrf_token_is_one_users() -> None:
    assert not is_csrf_of([KEY], "root@pam", make_csrf(KEY, USER, NOW), NOW)


async def test_keys_rotate_daily_and_overlap() -> None:
    now = [NOW]
    store = MemoryStore()
    access = Access(store, clock=lambda: now[0])
    await access.rotate_keys()
    first = keys_of(store.snapshot, "ticket")
    now[0] += ROTATE_AFTER
    await access.rotate_keys()
    second = keys_of(store.snapshot, "ticket")
    now[0] += LIFETIME + CLOCK_GRACE
    await access.rotate_keys()
    third = keys_of(store.snapshot, "ticket")

    assert (len(first), len(second), len(third)) == (1, 2, 1)
    assert second[1:] == first
    assert third == second[:1]
    assert due_changes(store.snapshot, now[0]) == []


def test_an_empty_store_wants_a_key_of_each_kind() -> None:
    kinds = {change.record.kind for change in due_changes(empty(), NOW) if isinstance(change, Put)}  # type: ignore[union-attr]  # only keys are put

    assert kinds == {"ticket", "csrf"}


@given(st.text(max_size=200))
def test_any_text_is_hashed(secret: str) -> None:
    assert len(secret_hash(secret.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"))) == 32


async def test_a_login_shows_nothing_of_itself() -> None:
    store = MemoryStore()
    await store.change(0, [Put(User("a@pve"))])

    assert SECRET not in repr(Credentials(token=SECRET))
    assert "ticket-text" not in repr(Credentials(ticket="ticket-text"))


async def test_keys_of_a_clock_that_jumped_do_not_stay() -> None:
    now = [NOW + 400 * 86400]
    store = MemoryStore()
    access = Access(store, clock=lambda: now[0])
    await access.rotate_keys()
    jumped = keys_of(store.snapshot, "ticket")
    now[0] = NOW
    await access.rotate_keys()

    assert len(keys_of(store.snapshot, "ticket")) == 1
    assert keys_of(store.snapshot, "ticket") != jumped


def test_a_ticket_of_another_version_is_not_valid() -> None:
    for before, after in (("v1", "v2"), ("", "v1"), ("v1", "")):
        ticket = make_ticket(KEY, USER, before, NOW)

        assert user_of_ticket([KEY], ticket, NOW, lambda _, now=before: now) == USER  # type: ignore[misc]
        assert user_of_ticket([KEY], ticket, NOW, lambda _, now=after: now) is None  # type: ignore[misc]
