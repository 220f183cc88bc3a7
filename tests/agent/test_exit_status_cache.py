from guestwire.agent.exit_status_cache import ENTRY_COST, KEEP_BYTES, KEEP_FOR, ExitStatusCache
from guestwire.agent.results import ProcessStatus


class Clock:
    """Goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def result(size: int) -> ProcessStatus:
    return ProcessStatus(exited=True, exitcode=0, out_data=bytes(size))


def test_a_result_is_kept_for_its_guest_and_pid() -> None:
    cache = ExitStatusCache()
    cache.put("VM 100", 7, result(1))

    assert cache.get("VM 100", 7) == result(1)
    assert cache.get("VM 101", 7) is None
    assert cache.get("VM 100", 8) is None


def test_a_result_is_forgotten_after_its_time() -> None:
    clock = Clock()
    cache = ExitStatusCache(clock)
    cache.put("VM 100", 7, result(1))
    clock.now = KEEP_FOR
    assert cache.get("VM 100", 7)
    clock.now = KEEP_FOR + 1

    assert cache.get("VM 100", 7) is None


def test_the_oldest_go_first_when_there_is_too_much() -> None:
    cache = ExitStatusCache()
    for pid in range(5):
        cache.put("VM 100", pid, result(KEEP_BYTES // 4))

    assert [pid for pid in range(5) if cache.get("VM 100", pid)] == [2, 3, 4]


def test_many_small_results_are_bounded_too() -> None:
    cache = ExitStatusCache()
    most = KEEP_BYTES // ENTRY_COST
    for pid in range(most + 100):
        cache.put("VM 100", pid, result(0))

    assert cache.get("VM 100", 99) is None
    assert cache.get("VM 100", most + 99)


def test_the_latest_is_kept_whatever_its_size() -> None:
    cache = ExitStatusCache()
    cache.put("VM 100", 7, result(2 * KEEP_BYTES))
    assert cache.get("VM 100", 7)
    cache.put("VM 100", 8, result(1))

    assert cache.get("VM 100", 7) is None
    assert cache.get("VM 100", 8)


def test_a_result_put_twice_counts_once() -> None:
    cache = ExitStatusCache()
    for _ in range(10):
        cache.put("VM 100", 7, result(KEEP_BYTES // 4))
    cache.put("VM 100", 8, result(KEEP_BYTES // 4))

    assert cache.get("VM 100", 7)
