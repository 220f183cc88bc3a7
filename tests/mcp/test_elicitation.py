"""A person's yes: asked for in both generations of the protocol, for exactly what is done, and once."""

import json
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from assistants import Assistant, assistant, text_of
from calling import site, vm
from holding import held
from mcp import MCPError
from mcp.client.context import ClientRequestContext
from mcp_types import CallToolResult, ElicitRequestFormParams, ElicitRequestParams, ElicitResult, InputRequiredResult
from serving import Serving
from waiting import until
from ways import options_for

from guestwire.mcp.elicitation import KEY, SECONDS, ApprovalTokens
from guestwire.testing import SandboxedAgent

pytestmark = [pytest.mark.agent, pytest.mark.usefixtures("served_agent")]

ASKING = ("--allow", "all", "--ask", "exec,write_text_file,set_user_password", "--tools", "every")
YES = ElicitResult(action="accept", content={"confirm": True})
NOT_YES = {
    "no": ElicitResult(action="decline"),
    "cancel": ElicitResult(action="cancel"),
    "unticked": ElicitResult(action="accept", content={"confirm": False}),
    "nothing": ElicitResult(action="accept"),
    "a word": ElicitResult(action="accept", content={"confirm": "true"}),
    "something else": ElicitResult(action="accept", content={"yes": True}),
}
RUN: dict[str, Any] = {"guest": "web", "command": ["sh", "-c", "echo ran >> /root/ran"]}


class Person:
    """Answers what the client asks, and remembers the questions."""

    def __init__(self, answer: ElicitResult) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG002  # the SDK's
        assert isinstance(params, ElicitRequestFormParams)
        self.asked.append(params.message)
        return self.answer


@dataclass
class Asking:
    """An assistant and the person behind its client."""

    ai: Assistant
    person: Person

    async def answered(self, answer: ElicitResult, tool: str, **arguments: Any) -> tuple[CallToolResult, list[str]]:
        """A call's result when the person answers so, and what they were asked."""
        self.person.answer = answer
        self.person.asked.clear()
        return await self.ai(tool, **arguments), self.person.asked


@asynccontextmanager
async def opened(server: Serving, *options: str, mode: str = "auto") -> AsyncIterator[Asking]:
    person = Person(YES)
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        client = assistant(Path(name), options_for(server), *options, mode=mode, elicitation_callback=person)
        async with held(client) as ai:
            yield Asking(ai, person)


@pytest.fixture(scope="module", params=["legacy", "2026-07-28"])
async def asking(request: pytest.FixtureRequest, server: Serving) -> AsyncIterator[Asking]:
    """In either generation of the protocol."""
    async with opened(server, *ASKING, mode=request.param) as asking:
        yield asking


@pytest.fixture(scope="module")
async def modern(server: Serving) -> AsyncIterator[Assistant]:
    """In the newer one."""
    async with opened(server, *ASKING) as asking:
        yield asking.ai


@pytest.fixture
def ran(served_agent: SandboxedAgent) -> Path:
    """A file with a line for each time that RUN was done."""
    path = served_agent.home / "ran"
    path.unlink(missing_ok=True)
    return path


async def test_a_yes_lets_one_call_through(asking: Asking, ran: Path) -> None:
    for number in (1, 2):
        result, asked = await asking.answered(YES, "run_command", **RUN)
        assert not result.is_error
        assert ran.read_text() == "ran\n" * number
        (question,) = asked
        assert "run_command in guest web (100)" in question
        assert "echo ran >> /root/ran" in question
    _, asked = await asking.answered(YES, "ping", guest="web")
    assert not asked
    outcomes = [(record["outcome"], record["approved"]) for record in asking.ai.records]
    assert outcomes[-5:] == [("asks", False), ("ok", True)] * 2 + [("ok", False)]


@pytest.mark.parametrize("answer", NOT_YES)
async def test_nothing_but_a_yes_is_one(asking: Asking, ran: Path, answer: str) -> None:
    result, asked = await asking.answered(NOT_YES[answer], "run_command", **RUN)

    assert "the person said no" in text_of(result)
    assert len(asked) == 1
    assert [(record["outcome"], record["detail"][:18]) for record in asking.ai.records[-2:]] == [
        ("asks", ""), ("refused", "the person said no"),
    ]  # fmt: skip
    assert not ran.exists()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_client_that_can_not_ask_is_refused_with_the_reason(
    server: Serving, tmp_path: Path, ran: Path, mode: str
) -> None:
    async with assistant(tmp_path, options_for(server), *ASKING, mode=mode) as ai:
        said = await ai.refused("run_command", **RUN)
        assert (await ai.did("ping", guest="web"))["done"]

    assert "your client can't ask" in said
    assert "ask the operator" in said
    assert not ran.exists()


async def test_a_person_sees_all_that_would_be_done_and_no_password(asking: Asking) -> None:
    long_one = ["echo", "x" * 5000, "; rm -rf /srv", "y" * 3000]
    questions = []
    for tool, arguments in (
        ("run_command", {"command": ["sh"], "input": "rm -rf /srv", "env": ["LD_PRELOAD=/evil.so"], "cwd": "/srv"}),
        ("run_command", {"command": long_one}),
        ("run_command", {"command": ["echo", "\u202egnp.exe\x1b[2J"]}),
        ("write_text_file", {"path": "/root/x", "content": "the new content"}),
        ("set_user_password", {"username": "root", "password": "planted-secret"}),
    ):
        given: dict[str, Any] = arguments
        _, asked = await asking.answered(NOT_YES["no"], tool, guest="web", **given)
        questions += asked

    given_more, long, steering, written, password = questions
    for part in ("rm -rf /srv", "LD_PRELOAD=/evil.so", "/srv"):
        assert part in given_more
    assert json.dumps(long_one, separators=(",", ":")) in long
    assert "\\u202e" in steering
    assert steering.isprintable()
    assert "the new content" in written
    assert "root" in password
    assert "planted-secret" not in password


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("run_command", {"command": ["echo", *(f"argument {number}" for number in range(1000))]}),
        ("run_command", {"command": ["echo", "x" * 6000, "; rm -rf /srv", "y" * 6000]}),
        ("write_text_file", {"path": "/root/x", "content": "line\n" * 2000}),
        ("write_text_file", {"path": "/root/x", "content": "\u202e" * 2000}),
    ],
)
async def test_what_a_person_can_not_be_shown_whole_is_refused_and_not_asked(
    asking: Asking, ran: Path, tool: str, arguments: dict[str, Any]
) -> None:
    result, asked = await asking.answered(YES, tool, guest="web", **arguments)

    assert not asked
    assert "can be shown 10000 characters" in text_of(result)
    assert asking.ai.records[-1]["outcome"] == "refused"
    assert not ran.exists()


async def test_tools_about_no_guest_and_resources_are_no_way_around_a_question(server: Serving) -> None:
    words = ("--allow", "files", "--ask", "list_guests,diagnose,read_more,guest_overview,read_text_file")
    async with opened(server, *words) as asking:
        for tool, arguments in (("list_guests", {}), ("diagnose", {"guest": "web"}), ("read_more", {"cursor": "x:0"})):
            _, asked = await asking.answered(NOT_YES["no"], tool, **arguments)
            assert len(asked) == 1
        for rest in ("overview", "file/etc/hostname"):
            with pytest.raises(MCPError, match="a person must say yes"):
                await asking.ai.client.read_resource(f"guest://web/{rest}")


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_yes_holds_for_the_vm_that_the_question_named(tmp_path: Path, mode: str) -> None:
    async with (
        Serving.of(site(vm(100, "web"), vm(101, "mail"))) as server,
        SandboxedAgent(server.folder / "100.qga", name="web") as first,
        SandboxedAgent(server.folder / "101.qga", name="mail") as second,
    ):
        questions: list[str] = []

        async def renaming(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG001  # the SDK names them
            questions.append(params.message)
            if len(questions) > 1:
                return NOT_YES["no"]
            config = site(vm(100, "old"), vm(101, "web"))(server.folder, server.port)
            (server.folder / "guestwire.toml").write_text(config)
            server.signal(signal.SIGHUP)
            await until(lambda: "reloaded: " in server.log)
            return YES

        async with assistant(tmp_path, options_for(server), *ASKING, mode=mode, elicitation_callback=renaming) as ai:
            said = await ai.refused("run_command", **RUN)
        assert "web (100)" in questions[0]
        assert ("another guest" in said) if mode == "legacy" else ("web (101)" in questions[1])
        assert not (first.home / "ran").exists()
        assert not (second.home / "ran").exists()


# A yes of the newer generation travels with the client


async def state_for(ai: Assistant, **arguments: Any) -> str:
    found = await ai.client.session.call_tool("run_command", arguments, allow_input_required=True)
    assert isinstance(found, InputRequiredResult)
    assert found.request_state
    return found.request_state


async def with_yes(ai: Assistant, state: str | None, tool: str = "run_command", **arguments: Any) -> CallToolResult:
    return await ai.client.session.call_tool(tool, arguments, input_responses={KEY: YES}, request_state=state)


async def test_a_yes_holds_for_the_very_same_call_alone(modern: Assistant, ran: Path) -> None:
    state = await state_for(modern, **RUN)
    for tool, arguments in (
        ("run_command", RUN | {"command": ["sh", "-c", "echo other >> /root/ran"]}),
        ("run_command", RUN | {"input": "x"}),
        ("run_command", RUN | {"guest": "100"}),
        ("exec", RUN),
    ):
        assert "not for this call" in text_of(await with_yes(modern, state, tool, **arguments))
    assert not ran.exists()
    assert not (await with_yes(modern, state, **RUN)).is_error
    assert ran.read_text() == "ran\n"


async def test_a_yes_is_used_once(modern: Assistant, ran: Path) -> None:
    state = await state_for(modern, **RUN)
    assert not (await with_yes(modern, state, **RUN)).is_error
    for _ in range(3):
        assert "not for this call" in text_of(await with_yes(modern, state, **RUN))
    assert ran.read_text() == "ran\n"


async def test_a_forged_state_is_no_yes(modern: Assistant, ran: Path) -> None:
    name, end, where, signature = (await state_for(modern, **RUN)).split(".")
    later, unsigned = f"{name}.99999999999.{where}.{signature}", f"{name}.{end}.{where}.{'0' * 64}"
    elsewhere = f"{name}.{end}.{b'mail (101)'.hex()}.{signature}"
    for state in (None, "", "x", "a.b.c", "a.b.c.d", "é.1.é", later, unsigned, elsewhere, "." * 100_000):
        assert "not for this call" in text_of(await with_yes(modern, state, **RUN))
        assert "not for this call" in modern.records[-1]["detail"]
    assert not ran.exists()


async def test_a_state_of_another_server_is_no_yes(modern: Assistant, server: Serving, ran: Path) -> None:
    state = await state_for(modern, **RUN)
    async with opened(server, *ASKING) as other:
        assert "not for this call" in text_of(await with_yes(other.ai, state, **RUN))
    assert not ran.exists()


def test_a_state_ends_after_ten_minutes() -> None:
    seals = ApprovalTokens()
    early, late = seals.issue("this", "web (100)", 1000.0), seals.issue("this", "web (100)", 1000.0)

    assert seals.redeem(early, "this", 1000.0 + SECONDS - 1) == "web (100)"
    assert seals.redeem(late, "this", 1000.0 + SECONDS + 1) is None
