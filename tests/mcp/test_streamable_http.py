"""Streamable HTTP: who gets in, whose rights hold, and that nothing is left at the end."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from assistants import text_of
from calling import guestwire, site, vm
from holding import held
from listening import ENDS_WITHIN, Listening, listening
from mcp import MCPError
from mcp_types import ElicitResult, ResourceTemplateReference
from persons import SECRET, TOKEN, person, settling
from serving import Serving, free_port
from starlette.datastructures import Headers
from waiting import until
from ways import ca_of, options_for

from guestwire.client.hosts import open_host
from guestwire.client.settings import Settings
from guestwire.errors import ConfigurationError
from guestwire.mcp.elicitation import KEY
from guestwire.mcp.http import MOST_CALLERS, OWN_TOKEN, SESSIONS_OF_CALLER, Callers, in_url
from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

INITIALIZE = json.dumps({
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
}).encode()  # fmt: skip
ANN, EVE = (f"{name}@pve!{TOKEN}={SECRET}" for name in ("ann", "eve"))
PEOPLE = settling(person("ann@pve", ("/vms/100", "Administrator")), person("eve@pve", ("/vms/101", "Administrator")))


@pytest.fixture(scope="module")
async def people() -> AsyncIterator[Serving]:
    """guestwire with two guests, and for each somebody who may see it and not the other."""
    async with (
        Serving.of(site(vm(100, "web"), vm(101, "mail")), prepare=PEOPLE) as server,
        SandboxedAgent(server.folder / "100.qga", name="web"),
        SandboxedAgent(server.folder / "101.qga", name="mail"),
    ):
        yield server


@pytest.fixture(scope="module")
async def shared(people: Serving) -> AsyncIterator[Listening]:
    """Without credentials of its own: everybody brings theirs."""
    options = ["--host", f"https://127.0.0.1:{people.port}", "--ca", ca_of(people)]
    async with held(listening(options, "--allow", "all", "--tools", "every", "--ask", "fstrim,file_write")) as server:
        yield server


@pytest.fixture(scope="module")
async def own(people: Serving) -> AsyncIterator[Listening]:
    """With credentials of its own."""
    async with held(listening(options_for(people))) as server:
        yield server


# Who gets in


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {bearer}", "{bearer}", "Bearer {bearer}x", "bearer\t{bearer}", "Bearer {bearer} {bearer}", "Bearer é"])  # fmt: skip
async def test_without_the_bearer_token_nobody_gets_in(own: Listening, given: str) -> None:
    written = given.format(bearer=own.bearer).strip()
    headers = [(b"Authorization", written.encode("latin-1"))] if written else []
    async with httpx2.AsyncClient() as http:
        for method in ("POST", "GET", "DELETE", "OPTIONS", "PUT"):
            answer = await http.request(method, own.url, content=b"{}", headers=headers)
            assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == (401, "Bearer")
            assert own.bearer not in answer.text


@pytest.mark.parametrize("path", ["/", "/mcp/", "/sse", "/docs", "/.well-known/oauth-protected-resource", "//mcp"])
async def test_no_path_is_open(own: Listening, path: str) -> None:
    async with httpx2.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{own.port}{path}")).status_code == 401


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Host", "evil.example", 421), ("Host", "evil.example:8000", 421), ("Host", "127.0.0.1.evil.example", 421), ("Host", "localhost.evil.example:80", 421),
        ("Origin", "https://evil.example", 403), ("Origin", "null", 403), ("Origin", "http://127.0.0.1.evil.example", 403), ("Origin", "file://", 403),
        ("Origin", "http://localhost.evil.example:80", 403),
    ],
)  # fmt: skip
async def test_a_foreign_page_or_name_is_refused(own: Listening, name: str, value: str, status: int) -> None:
    for more in ({}, {"MCP-Protocol-Version": "2026-07-28"}):
        assert (await own.post(own.headers() | {name: value} | more)).status_code == status


async def test_a_page_on_this_machine_may_ask(own: Listening) -> None:
    for origin in ("http://localhost", "http://127.0.0.1:3000"):
        assert (await own.post(own.headers() | {"Origin": origin})).status_code not in (401, 403, 421)


async def test_where_it_listens_is_said_once_it_does(own: Listening, people: Serving, tmp_path: Path) -> None:
    assert f"listening on {own.url};" in own.log

    for address in (str(own.port), "no.such.name.invalid:8765"):
        ended = await guestwire(
            *options_for(people), "mcp", "--http", address, "--bearer-file", str(tmp_path / "bearer")
        )
        assert ended.code == ConfigurationError.exit_code
        assert "name another address" in ended.errors
        assert "listening" not in ended.errors


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("fd00::5", "[fd00::5]"),
        ("[::1]", "[::1]"),
        ("mcp.example.org:443", "mcp.example.org:443"),
    ],
)
def test_an_address_stands_in_a_url_as_clients_send_it(host: str, shown: str) -> None:
    assert in_url(host) == shown


async def test_a_huge_body_is_refused_and_the_server_goes_on(own: Listening) -> None:
    huge = b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 8_000_000 + b'"}'
    assert (await own.post(own.headers(), huge)).status_code == 413
    assert (await own.post({}, huge)).status_code == 401
    for broken in (b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"jsonrpc":"2.0","id":1}', b"null"):
        assert 400 <= (await own.post(own.headers(), broken)).status_code < 500
    async with own.client() as ai:
        assert await ai.did("ping", guest="web")
    assert "Traceback" not in own.log


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", "2026-07-28"])
@pytest.mark.parametrize("number", ["null", "1.5", "true", "[]"])
async def test_a_request_whose_id_is_none_is_refused(own: Listening, number: str, version: str) -> None:
    request = f'{{"jsonrpc":"2.0","id":{number},"method":"ping"}}'.encode()
    answer = await own.post(own.headers() | {"MCP-Protocol-Version": version}, request)
    assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (400, None, -32600)


async def test_half_a_surrogate_pair_is_refused_with_the_id_of_its_request(own: Listening) -> None:
    answer = await own.post(own.headers(), rb'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"x":"\ud800"}}')
    assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (400, 7, -32600)
    assert "surrogate" in answer.json()["error"]["message"]


async def test_the_bearer_token_is_made_for_its_owner_and_refused_when_others_can_read_it(
    own: Listening, people: Serving, tmp_path: Path
) -> None:
    path = own.folder / "bearer"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(own.bearer) >= 32
    assert own.bearer not in own.log

    for content, mode, why in (("x" * 40, 0o644, "others can read"), ("x" * 40, 0o640, "others can read"), ("short", 0o600, "16 characters")):  # fmt: skip
        (tmp_path / "bearer").write_text(content)
        (tmp_path / "bearer").chmod(mode)
        ended = await guestwire(*options_for(people), "mcp", "--http", str(free_port()), "--bearer-file", str(tmp_path / "bearer"))  # fmt: skip
        assert ended.code != 0
        assert why in ended.errors
        assert content not in ended.errors


# Whose rights hold


async def test_whoever_brings_no_token_is_told_to_when_the_server_has_none(shared: Listening) -> None:
    answer = await shared.post(shared.headers())

    assert answer.status_code == 403
    assert "X-PVE-Token: USER@REALM!NAME=SECRET" in answer.text


@pytest.mark.parametrize("token", ["x", "ann@pve", f"ann@pve!{TOKEN}", "a!b=c d", "PVEAPIToken=x"])
async def test_what_is_no_token_is_refused(shared: Listening, token: str) -> None:
    answer = await shared.post(shared.headers(token))

    assert answer.status_code == 403
    assert token not in answer.text


async def test_a_wrong_token_gets_nothing(shared: Listening) -> None:
    for token in (f"ann@pve!{TOKEN}=wrong-secret", f"nobody@pve!{TOKEN}={SECRET}"):
        answer = await shared.post(shared.headers(token), INITIALIZE)

        assert (answer.status_code, "X-PVE-Token" in answer.text) == (403, True)
        assert token.partition("=")[2] not in answer.text
    assert "wrong-secret" not in shared.log + (shared.folder / "records.jsonl").read_text()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_two_callers_do_not_see_each_other_s_guests(shared: Listening, mode: str) -> None:
    async with shared.client(ANN, mode=mode) as ann, shared.client(EVE, mode=mode) as eve:
        for ai, mine, other, vmid in ((ann, "web", "mail", 101), (eve, "mail", "web", 100)):
            assert [one["name"] for one in (await ai.did("list_guests"))["guests"]] == [mine]
            assert (await ai.did("get_host_name", guest=mine))["host-name"] == mine
            for name in (other, str(vmid), f"pve1/{vmid}"):
                for tool in ("get_host_name", "guest_overview", "diagnose"):
                    assert "no such guest" in await ai.refused(tool, guest=name)
            uris = [one.uri for one in (await ai.client.list_resources()).resources]
            assert uris == [f"guest://{mine}/overview"]
            with pytest.raises(MCPError, match="no such guest"):
                await ai.client.read_resource(f"guest://{other}/overview")
            reference = ResourceTemplateReference(uri="guest://{name}/overview")
            for given in ("", mine[0], other[0]):
                found = await ai.client.complete(reference, {"name": "name", "value": given})
                assert other not in found.completion.values

        shown = await ann.did("run_command", guest="web", command=["seq", "100000"])
        assert "no longer" in await eve.refused("read_more", cursor=shown["stdout_cursor"])
        assert (await ann.did("read_more", cursor=shown["stdout_cursor"]))["text"]


async def test_a_yes_is_no_other_caller_s(shared: Listening) -> None:
    yes = ElicitResult(action="accept", content={"confirm": True})

    async def agrees(*_: object, **__: object) -> ElicitResult:
        return yes

    arguments = {"guest": "web", "file": "/root/x", "content": "x"}
    async with (
        shared.client(ANN, elicitation_callback=agrees) as ann,
        shared.client(EVE, elicitation_callback=agrees) as eve,
    ):
        asked: Any = await ann.client.session.call_tool("file_write", arguments, allow_input_required=True)
        for ai, words in ((eve, "not for this call"), (ann, "done")):
            result = await ai.client.session.call_tool(
                "file_write", arguments, input_responses={KEY: yes}, request_state=asked.request_state
            )
            assert words in text_of(result)


async def test_a_session_is_no_other_caller_s(shared: Listening) -> None:
    began = await shared.post(
        shared.headers(ANN),
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}',
    )
    session = {"Mcp-Session-Id": began.headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-06-18"}
    listing = b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}'

    assert (await shared.post(shared.headers(ANN) | session, listing)).status_code == 200
    assert (await shared.post(shared.headers(EVE) | session, listing)).status_code == 404
    async with httpx2.AsyncClient() as http:
        for method in ("GET", "DELETE"):
            headers = shared.headers(EVE) | session | {"Accept": "application/json, text/event-stream"}
            assert (await http.request(method, shared.url, headers=headers)).status_code == 404
    assert (await shared.post(shared.headers(ANN) | session, listing)).status_code == 200


async def test_an_invented_token_gets_no_session_and_keeps_nobody_out(shared: Listening) -> None:
    answers = await asyncio.gather(
        *(shared.post(shared.headers(f"ann@pve!t{number}={SECRET}"), INITIALIZE) for number in range(40))
    )
    async with shared.client(ANN) as ann:
        assert await ann.did("list_guests")

    assert {answer.status_code for answer in answers} == {403}
    assert all("does not accept the token" in answer.text for answer in answers)
    assert not any("mcp-session-id" in answer.headers for answer in answers)


async def test_a_caller_has_some_sessions_and_another_those_of_their_own(people: Serving) -> None:
    options = ["--host", f"https://127.0.0.1:{people.port}", "--ca", ca_of(people)]
    async with listening(options) as server:
        opened = [await server.post(server.headers(ANN), INITIALIZE) for _ in range(SESSIONS_OF_CALLER)]
        over = await server.post(server.headers(ANN), INITIALIZE)
        other = await server.post(server.headers(EVE), INITIALIZE)
        async with httpx2.AsyncClient() as http:
            ended = {"Mcp-Session-Id": opened[0].headers["mcp-session-id"]} | server.headers(ANN)
            assert (await http.delete(server.url, headers=ended)).status_code == 200
        again = await server.post(server.headers(ANN), INITIALIZE)

    assert {answer.status_code for answer in opened} == {200}
    assert (over.status_code, other.status_code, again.status_code) == (503, 200, 200)
    assert "sessions of this caller are open" in over.text


async def test_a_host_that_is_not_there_is_said_and_no_session_begins(people: Serving) -> None:
    options = ["--host", f"https://127.0.0.1:{free_port()}", "--ca", ca_of(people)]
    async with listening(options) as server:
        answer = await server.post(server.headers(ANN), INITIALIZE)

    assert answer.status_code == 503
    assert "127.0.0.1" in answer.text


async def test_limits_count_each_caller_for_themselves(people: Serving, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("[limits]\ncalls_per_minute = 3\n")
    async with (
        listening(options_for(people), "--policy", str(tmp_path / "policy.toml")) as server,
        server.client(ANN) as ann,
        server.client(EVE) as eve,
        server.client(ANN) as again,
    ):
        for _ in range(3):
            await ann.did("list_guests")
        assert "calls a minute" in await ann.refused("list_guests")
        assert "calls a minute" in await again.refused("list_guests")
        assert await eve.did("list_guests")


async def test_a_token_for_a_guest_s_own_socket_is_refused(agent: SandboxedAgent) -> None:
    async with listening(["--host", f"unix:{agent.socket}"]) as server:
        answer = await server.post(server.headers(ANN))
        assert (answer.status_code, "leave X-PVE-Token out" in answer.text) == (403, True)
        async with server.client() as ai:
            assert await ai.did("ping", guest="real")


async def test_those_who_must_make_room_are_left_when_their_calls_are_done(folder: Path) -> None:
    callers = Callers(lambda _: open_host(Settings(host=f"unix:{folder}/x.qga")), has_own=True, takes_tokens=True)
    first = callers.of(Headers({OWN_TOKEN: "a@pve!t=first"}))
    call = asyncio.create_task(asyncio.sleep(60))
    first.running.add(call)
    for number in range(MOST_CALLERS + 2):
        callers.of(Headers({OWN_TOKEN: f"a@pve!t={number}"}))
        await callers.tidy()
    assert callers._left == [first]
    first.running.discard(call)
    call.cancel()
    await callers.tidy()
    assert callers._left == []
    assert callers.of(Headers({OWN_TOKEN: "a@pve!t=first"})).id != first.id
    await callers.close()


# The end


@pytest.mark.parametrize(("signum", "mode"), [(signal.SIGINT, "legacy"), (signal.SIGTERM, "2026-07-28")])
async def test_the_server_ends_with_nothing_left(people: Serving, signum: signal.Signals, mode: str) -> None:
    async with listening(options_for(people), "--allow", "all") as server:
        try:
            await call_until_ended(server, signum, mode)
        except* httpx2.RemoteProtocolError:
            pass  # so the SDK's client says it, in one of the two generations
        code = server.process.returncode
        (record,) = map(json.loads, (server.folder / "records.jsonl").read_text().splitlines())
        assert code == 0
        assert record["outcome"] == "cancelled"
        assert "Traceback" not in server.log
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)


async def call_until_ended(server: Listening, signum: signal.Signals, mode: str) -> None:
    """Tells the server to end while a call is under way; a client of the older generation holds a stream open as well."""
    async with server.client(mode=mode) as ai:
        seconds = 300 + signum
        call = asyncio.create_task(ai("run_command", guest="web", command=["sleep", str(seconds)], input="x" * 200_000))
        await until(lambda: sleeps(seconds), 20)
        server.process.send_signal(signum)
        async with asyncio.timeout(ENDS_WITHIN):
            await server.process.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


def sleeps(seconds: int) -> bool:
    """Whether a guest's `sleep` of so many seconds, which nothing else uses, has its input from a file by now."""
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cmdline").read_text() == f"sleep\0{seconds}\0":
                return "guestwire-" in str((process / "fd" / "0").readlink())
        except OSError:
            continue
    return False


async def test_a_caller_who_leaves_leaves_no_call_behind(people: Serving) -> None:
    async with listening(options_for(people), "--allow", "all") as server, server.client() as ai:
        call = asyncio.create_task(ai("run_command", guest="web", command=["sleep", "299"], input="x" * 200_000))
        await until(lambda: sleeps(299), 20)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: bool(ai.records), 20)
        assert [record["outcome"] for record in ai.records] == ["cancelled"]
        left = await ai.did("run_command", guest="web", command=["sh", "-c", "ls /tmp/guestwire-*; pkill sleep"])
        assert "stdout" not in left
