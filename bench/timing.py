"""How often things are measured, and what is made of the values."""

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

Call: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Effort:
    """How often: `calls` and `seconds` are of one round, `reads` the most of one file there."""

    rounds: int
    calls: int
    seconds: float
    reads: int


FULL: Final = Effort(rounds=10, calls=300, seconds=2.0, reads=5)
QUICK: Final = Effort(rounds=3, calls=100, seconds=0.7, reads=2)


class Samples:
    """Values of one kind: milliseconds, or answers a second."""

    def __init__(self, values: list[float]) -> None:
        self._sorted = sorted(values)

    @property
    def median(self) -> float:
        """Half of them are below."""
        return statistics.median(self._sorted)

    @property
    def p99(self) -> float:
        """99 of 100 are below."""
        return self._sorted[min(int(len(self._sorted) * 0.99), len(self._sorted) - 1)]

    @property
    def longest(self) -> float:
        """None is above."""
        return self._sorted[-1]


def timed(times: int, call: Call) -> list[float]:
    """Milliseconds of each call."""
    values = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        values.append((time.perf_counter() - began) * 1000)
    return values


async def timed_async(times: int, call: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of each call."""
    values = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        values.append((time.perf_counter() - began) * 1000)
    return values


def alternate(
    rounds: int, raw: Callable[[], list[float]], guestwire: Callable[[], list[float]]
) -> tuple[Samples, Samples]:
    """Measures both in turn, so that what else the machine does hits both; a first round does not count."""
    raw_values, guestwire_values = [], []
    for number in range(rounds + 1):
        pair = raw(), guestwire()
        if number:
            raw_values += pair[0]
            guestwire_values += pair[1]
    return Samples(raw_values), Samples(guestwire_values)
