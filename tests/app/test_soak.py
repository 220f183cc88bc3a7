"""A short soak; `python -m bench.soak` goes on for an hour."""

import pytest

from bench.soak import soak

pytestmark = [pytest.mark.slow, pytest.mark.agent]


async def test_while_agents_and_server_fail_each_answer_is_right_or_there_is_none() -> None:
    outcome = await soak(12, seed=20261126)

    assert not outcome.wrong, "\n".join(outcome.wrong[:5])
    assert not outcome.growth()
    assert outcome.answers.keys() == {"ping", "host name", "exec", "file", "freeze status"}
    assert outcome.faults
