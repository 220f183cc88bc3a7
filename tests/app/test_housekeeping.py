"""Old audit records go, and a clock that jumps takes none with it."""

import pytest

from guestwire.app.housekeeping import DAY, EVERY, GAP, JUMP, PROOF, ClockWatch, oldest_kept
from guestwire.stores import AuditRecord, MemoryStore

NOW = 1_800_000_000.0
YEAR = 400 * DAY


def record(when: float) -> AuditRecord:
    """Any record of this time."""
    return AuditRecord(when, "id", "root@pam", "local", None, "PUT /access/acl", {}, 200, "OK", 1.0)


async def kept(store: MemoryStore, watch: ClockWatch, clock: float, passed: float) -> int:
    """How many records one look leaves, with thirty days to keep."""
    newest = max((each.time for each in await store.audit(limit=1)), default=None)
    before = oldest_kept(newest, clock, 30) if watch.is_plausible(clock, passed) else 0.0
    await store.prune_audit(before=before, max_rows=1000)
    return len(await store.audit())


async def test_a_call_while_the_clock_is_ahead_does_not_shrink_the_trail() -> None:
    store = MemoryStore()
    await store.append_audit([record(NOW - number * DAY) for number in range(20, 0, -1)])
    watch = ClockWatch(NOW - DAY, NOW, 0)
    assert await kept(store, watch, NOW, 0) == 20

    await store.append_audit([record(NOW + YEAR)])
    assert await kept(store, watch, NOW + YEAR, EVERY) == 21
    assert await kept(store, watch, NOW + 2 * EVERY, 2 * EVERY) == 21


async def test_a_start_with_a_clock_ahead_does_not_shrink_the_trail() -> None:
    store = MemoryStore()
    await store.append_audit([record(NOW - number * DAY) for number in range(20, 0, -1)])
    watch = ClockWatch(NOW - DAY, NOW + YEAR, 0)
    await store.append_audit([record(NOW + YEAR)])

    assert await kept(store, watch, NOW + YEAR, 0) == 21
    assert await kept(store, watch, NOW + YEAR + PROOF / 2, PROOF / 2) == 21


async def test_old_records_go_when_the_clock_has_moved_on() -> None:
    store = MemoryStore()
    await store.append_audit([record(NOW - 40 * DAY), record(NOW - 20 * DAY), record(NOW)])

    assert await kept(store, ClockWatch(NOW, NOW, 0), NOW + EVERY, EVERY) == 2


@pytest.mark.parametrize(
    ("readings", "plausible"),
    [
        ([(0, 0), (EVERY, EVERY), (2 * EVERY, 2 * EVERY)], True),
        ([(0, 0), (EVERY + JUMP - 1, EVERY)], True),
        ([(0, 0), (EVERY + JUMP + 1, EVERY)], False),
        ([(0, 0), (YEAR, EVERY), (YEAR + PROOF - 1, EVERY + PROOF - 1)], False),
        ([(0, 0), (YEAR, EVERY), (YEAR + PROOF, EVERY + PROOF)], True),
        ([(0, 0), (-YEAR, EVERY)], True),
        ([(0, 0), (-YEAR, EVERY), (0, 2 * EVERY)], False),
        ([(0, 0), (90 * DAY, 90 * DAY)], True),
    ],
)
def test_a_clock_is_believed_as_long_as_it_moves_with_the_time(
    readings: list[tuple[float, float]], plausible: bool
) -> None:  # a column of a table
    watch = ClockWatch(NOW, NOW, 0)
    answers = [watch.is_plausible(NOW + clock, passed) for clock, passed in readings]

    assert answers[-1] is plausible


@pytest.mark.parametrize(("pause", "plausible"), [(GAP, True), (GAP + 1, False), (-YEAR, True)])
def test_after_a_long_pause_the_clock_has_to_prove_itself(pause: float, plausible: bool) -> None:  # as above
    assert ClockWatch(NOW - pause, NOW, 0).is_plausible(NOW, 0) is plausible
    assert ClockWatch(None, NOW, 0).is_plausible(NOW, 0)
    assert ClockWatch(NOW - pause, NOW, 0).is_plausible(NOW + PROOF, PROOF)
