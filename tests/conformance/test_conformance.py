"""Every recorded case, against real agents, over HTTPS."""

import asyncio
import html
import json
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machines
import people
import pytest
from cases import FOLDER, Case, Expected, all_cases
from exchanges import Answer, exchange, request
from serving import Serving

PROCESS_ENDS_WITHIN = 30.0
RUNS = b'{"data":{"exited":0}}'


@dataclass
class Site:
    """The server over all those VMs."""

    server: Serving
    tls: ssl.SSLContext
    live: dict[str, str]

    async def play(self, case: Case) -> Answer:
        """Sends the cases that have to come before it, and the case itself."""
        if case.after:
            await self.play(all_cases()[case.after])
        answer = await self._exchange(case)
        if answer.body == RUNS and not re.search(r'"exited": ?0', case.expected.body):
            # The process was to have ended by now; a busy machine takes its time.
            async with asyncio.timeout(PROCESS_ENDS_WITHIN):
                while answer.body == RUNS:
                    await asyncio.sleep(0.02)
                    answer = await self._exchange(case)
        content = answer.content
        if isinstance(content, dict) and isinstance(content.get("data"), dict):
            self.live["pid"] = str(content["data"].get("pid", self.live.get("pid")))
        return answer

    async def _exchange(self, case: Case) -> Answer:
        return await exchange(self.server.port, self.tls, request(case, self.credentials(case), self.live))

    def credentials(self, case: Case) -> list[tuple[str, str]]:
        token = people.TOKENS.get(case.role)
        return [("Authorization", f"PVEAPIToken={token}={people.SECRET}")] if token else []


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """The site's agents work on in the background until it is closed."""


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    async with Serving.of(machines.config, prepare=people.settle) as server, machines.running(server.folder):
        yield Site(server, server.tls, await logged_in(server))


async def logged_in(server: Serving) -> dict[str, str]:
    """What stands for a live value in a case."""
    login = all_cases()["ticket/realm-param"]
    answer = await exchange(server.port, server.tls, request(login, [], {}))
    data = answer.content["data"]
    return {"ticket": data["ticket"], "csrf": data["CSRFPreventionToken"], "secret": people.SECRET}


@pytest.mark.parametrize("case", all_cases().values(), ids=list(all_cases()))
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
    written = [re.findall(r"^### (.+)$", path.read_text(), re.MULTILINE) for path in sorted(FOLDER.glob("*.http"))]
    assert all(written)
    assert sorted(name for names in written for name in names) == sorted(all_cases())
    assert all(case.after in {None, *all_cases()} for case in all_cases().values())


async def test_the_format_for_pages_is_html(site: Site) -> None:
    answer = await site.play(all_cases()["format/htmljs/403"])

    assert json.loads(html.unescape(answer.body.decode()))["status"] == "403"
    assert b"<" not in answer.body


def test_only_defects_of_proxmox_ve_are_answered_otherwise() -> None:
    assert {case.match for case in all_cases().values() if case.ours} == {"better"}


def test_no_secret_stands_in_a_case() -> None:
    texts = (path.read_text() for path in sorted(Path(__file__).parent.glob("cases/*.http")))
    assert not any(re.search(r"PVE:\w+@\w+:[0-9A-F]{8}::[^\s{]{40}", text) for text in texts)
