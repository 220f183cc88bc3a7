"""A sample of requests at random; `python -m bench.fuzz_server` plays a million."""

from bench.fuzz_server import STATUSES, fuzz_in_process


async def test_each_request_of_a_sample_has_an_answer_of_the_servers_own() -> None:
    outcome = await fuzz_in_process(1500, seed=20261126, real=False)

    assert not outcome.finds, "\n".join(outcome.finds[:5])
    assert outcome.requests >= 1500
    assert outcome.good > 150
    assert outcome.statuses.keys() <= STATUSES
    assert outcome.statuses.keys() >= {200, 400, 401, 403, 404, 431, 500, 501}
