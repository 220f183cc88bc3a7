"""A sample of replies at random; `python -m bench.fuzz_agent` plays any number."""

import pytest

from bench.fuzz_agent import fuzz


@pytest.mark.slow
async def test_each_call_to_a_guest_that_lies_ends_and_the_next_one_is_answered_rightly() -> None:
    outcome = await fuzz(600, seed=20261126, workers=60)

    assert not outcome.finds, "\n".join(outcome.finds[:5])
    assert outcome.calls >= 600
    assert min(outcome.ends["value"], outcome.ends["error"]) > 100
    assert len(outcome.lies) == 10
