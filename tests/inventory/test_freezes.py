"""Notes of who has frozen a guest: each is of one call, and no other call's end is its end."""

import asyncio
import time

import pytest

from guestwire.access import Subject
from guestwire.contract.context import FreezeTerms
from guestwire.inventory.freezes import FREEZE, THAW, Freezes
from guestwire.stores import MemoryStore

ANN, BOB = Subject("ann@pve"), Subject("bob@pve")
FROZEN_STATE = {"error": "the agent is in frozen state"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def freezes(store: MemoryStore) -> Freezes:
    return Freezes(store)


async def freeze(freezes: Freezes, subject: Subject, terms: FreezeTerms, answer: object = 3) -> None:
    await freezes.note_sent(100, subject, FREEZE, terms)
    await freezes.note_answer(100, subject, FREEZE, answer, terms)


async def test_the_end_of_a_call_that_was_refused_ends_no_freeze(freezes: Freezes) -> None:
    ours, refused = FreezeTerms(60), FreezeTerms(60, connected=True)
    await freeze(freezes, ANN, ours)
    await freeze(freezes, BOB, refused, FROZEN_STATE)
    freezes.end_now(100, refused)

    assert freezes.frozen[100].subject == ANN.key
    assert not freezes.is_due(100)
    freezes.end_now(100, ours)
    assert freezes.is_due(100)


async def test_the_end_of_an_earlier_freeze_ends_no_later_one(freezes: Freezes) -> None:
    earlier, later = FreezeTerms(None, connected=True), FreezeTerms()
    await freeze(freezes, ANN, earlier)
    await freezes.note_answer(100, ANN, THAW, 3)
    await freeze(freezes, BOB, later)
    freezes.end_now(100, earlier)

    assert not freezes.is_due(100)


async def test_a_freeze_without_an_answer_keeps_its_end_when_the_next_is_refused(freezes: Freezes) -> None:
    await freezes.note_sent(100, ANN, FREEZE, FreezeTerms(60))  # the answer is lost
    _, before = freezes.due()
    await freeze(freezes, ANN, FreezeTerms(300), FROZEN_STATE)
    due, pause = freezes.due()

    assert (due, freezes.frozen[100].count) == ([], None)
    assert before
    assert pause
    assert pause <= before <= 60


async def test_a_freeze_that_begins_while_the_last_one_is_forgotten_keeps_its_end(
    freezes: Freezes, store: MemoryStore
) -> None:
    await freeze(freezes, ANN, FreezeTerms(0))
    assert freezes.due()[0] == [100]
    await asyncio.gather(
        freezes.note_answer(100, ANN, THAW, 3),  # waits for the store
        freezes.note_sent(100, BOB, FREEZE, FreezeTerms(60)),
    )
    due, pause = freezes.due()

    assert (due, freezes.own, freezes.frozen[100].subject) == ([], {100}, BOB.key)
    assert pause
    assert pause <= 60
    assert store.snapshot.frozen == freezes.frozen


async def test_a_later_freeze_is_not_due_with_the_one_before(freezes: Freezes) -> None:
    await freeze(freezes, ANN, FreezeTerms(0))
    assert freezes.is_due(100)
    await freezes.note_answer(100, ANN, THAW, 3)
    await freeze(freezes, BOB, FreezeTerms(60))

    assert not freezes.is_due(100)
    assert freezes.frozen[100].since <= time.time()
