"""Every recorded case, against real agents, over HTTPS."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machines
import pytest
from cases import Case, Expected, all_cases
from exchanges import Answer, exchange, request
from serving import Serving

LATER = "users, roles, tickets and named tokens are not there yet"

TICKET = re.compile(r"\{ticket\}|\{secret\}|PVE(:|%3A)")

PROCESS_ENDS_WITHIN = 0.4


@dataclass
class Site:
    """The server over all those VMs."""

    server: Serving
    tls: ssl.SSLContext
    last_pid: int = field(default=0)

    async def play(self, case: Case) -> Answer:
        """Sends the cases that have to come before it, and the case itself."""
        if case.after:
            await self.play(all_cases()[case.after])
            await asyncio.sleep(PROCESS_ENDS_WITHIN if "{pid}" in case.target else 0)
        answer = await exchange(self.server.port, self.tls, request(case, self.credentials(case), self.last_pid))
        content = answer.content
        if isinstance(content, dict) and isinstance(content.get("data"), dict):
            self.last_pid = content["data"].get("pid", self.last_pid)
        return answer

    def credentials(self, case: Case) -> list[tuple[str, str]]:
        return [] if case.role == "anonymous" else [("Authorization", f"PVEAPIToken={self.server.token}")]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """The site's agents work on in the background until it is closed."""


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    async with Serving.of(machines.config) as server, machines.running(server.folder):
        yield Site(server, server.tls)


def is_later(case: Case) -> bool:
    """Whether the case is about what `LATER` says."""
    return (
        case.role not in ("admin", "anonymous")
        or case.target.startswith("/api2/json/access/")
        or any(TICKET.search(value) for _, value in case.headers)
    )


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.skip(LATER) if is_later(case) else ()) for case in all_cases().values()],
    ids=list(all_cases()),
)
@pytest.mark.agent
async def test_answers_as_proxmox_ve_does_or_better(site: Site, case: Case) -> None:
    check(case, await site.play(case))


def check(case: Case, answer: Answer) -> None:
    expected = case.expected
    assert answer.status == expected.status
    if case.match in ("exact", "better"):
        assert answer.reason == expected.reason
        check_body(expected, answer)
    elif case.match == "shape":
        check_shape(expected, answer)


def check_body(expected: Expected, answer: Answer) -> None:
    if expected.size is not None:
        assert len(answer.body) == expected.size
    elif expected.body.startswith(("{", '"')):
        wanted = json.loads(expected.body)
        assert answer.content == with_pid(wanted, answer.content)
    else:
        assert answer.body == expected.body.encode()


def with_pid(expected: Any, content: Any) -> Any:
    """`expected`, with the number that the guest gave for its `{pid}`."""
    if expected != {"data": {"pid": "{pid}"}}:
        return expected
    assert isinstance(content["data"]["pid"], int)
    return content


def check_shape(expected: Expected, answer: Answer) -> None:
    if expected.body:
        assert has_shape(answer.content, json.loads(expected.body))
    elif expected.size is not None:
        assert len(answer.body) == expected.size


def has_shape(value: Any, like: Any) -> bool:
    """Whether the keys are the same; of a list, those of its first element, when both have one."""
    if isinstance(like, dict):
        return (
            isinstance(value, dict) and value.keys() == like.keys() and all(has_shape(value[k], like[k]) for k in like)
        )
    if isinstance(like, list):
        return isinstance(value, list) and all(map(has_shape, value[:1], like[:1]))
    return isinstance(value, type(like))


def test_the_cases_are_all_there() -> None:
    assert len(all_cases()) == 718
    assert all(case.after in {None, *all_cases()} for case in all_cases().values())


def test_only_defects_of_proxmox_ve_are_answered_otherwise() -> None:
    assert {case.match for case in all_cases().values() if case.ours} == {"better"}


def test_no_secret_stands_in_a_case() -> None:
    texts = (path.read_text() for path in sorted(Path(__file__).parent.glob("cases/*.http")))
    assert not any(re.search(r"PVE:\w+@\w+:[0-9A-F]{8}::[^\s{]{40}", text) for text in texts)
