"""Every store does what any store must."""

import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from guestwire.stores import MemoryStore, SqliteStore
from guestwire.testing.stores import CheckedStore, StoreCheck, check_store, store_checks

Make = Callable[[], Awaitable[CheckedStore]]


async def memory() -> CheckedStore:
    return MemoryStore()


@pytest.fixture
def sqlite(tmp_path: Path) -> Make:
    numbers = itertools.count()
    return lambda: SqliteStore.open(tmp_path / f"store{next(numbers)}.db")


@pytest.mark.parametrize("check", store_checks(), ids=lambda check: check.__name__)
async def test_memory(check: StoreCheck) -> None:
    await check(memory)


@pytest.mark.parametrize("check", store_checks(), ids=lambda check: check.__name__)
async def test_sqlite(check: StoreCheck, sqlite: Make) -> None:
    await check(sqlite)


async def test_all_checks_run_one_after_the_other() -> None:
    await check_store(memory)


async def test_a_store_that_fails_is_found_out() -> None:
    class Forgetful(MemoryStore):
        async def close(self) -> None:
            """Goes on."""

    async def forgetful() -> CheckedStore:
        return Forgetful()

    with pytest.raises(AssertionError):
        await check_store(forgetful)
