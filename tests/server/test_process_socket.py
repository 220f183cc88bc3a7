"""Programs over a WebSocket: who may open one, and what ends it."""

import asyncio
import base64
import contextlib
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from calling import site, vm
from persons import authorization, person, settling
from serving import Serving
from waiting import until
from ways import ca_of, options_for, over_https

from guestwire.client import connect
from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

PATH = "/api2/json/nodes/pve1/qemu/100/guestwire/stream"


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Serving]:
    people = settling(
        person("ann@pve", ("/vms/100", "Administrator")),
        person("looker@pve", ("/vms/100", "PVEAuditor")),
        person("gone@pve", ("/vms/100", "Administrator")),
    )
    async with Serving.of(site(vm(100, "web")), prepare=people) as server, SandboxedAgent(server.folder / "100.qga"):
        yield server


def login_of(userid: str) -> dict[str, str]:
    name, _, value = authorization(userid).partition(": ")
    return {name: value}


async def refusal(server: Serving, *, login: str = "ann@pve", query: str = "command=true", **headers: str) -> int:
    """The status of a handshake that fails."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=server.tls)) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(
                f"https://127.0.0.1:{server.port}{PATH}?{query}",
                headers=login_of(login) | {name.replace("_", "-"): text for name, text in headers.items()},
            )
        return caught.value.status


async def test_who_may_run_nothing_opens_none(served: Serving) -> None:
    assert await refusal(served, login="looker@pve") == 403
    assert await refusal(served, login="nobody@pve") == 401


async def test_a_page_of_another_site_opens_none(served: Serving) -> None:
    assert await refusal(served, Origin="https://elsewhere.example") == 403


def header_of(**given: object) -> str:
    return base64.b64encode(json.dumps(given).encode()).decode()


@pytest.mark.parametrize(
    ("query", "given", "status"),
    [
        ("command=true", {"command": ["id"]}, 400),
        ("command=true", {"vmid": 101}, 400),
        ("command=true", {"user": "nobody"}, 400),
        ("", {"command": []}, 400),
        ("", {"env": ["A=1"]}, 400),
        ("", {"command": ["/nowhere/program"]}, 500),
    ],
)
async def test_a_header_has_secrets_and_arguments_alone(
    served: Serving, query: str, given: dict[str, object], status: int
) -> None:
    assert await refusal(served, query=query, Guestwire_Secrets=header_of(**given)) == status


@contextlib.asynccontextmanager
async def overheard(server: Serving) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port that leads to a server, as a proxy does that ends TLS, and the first line of each connection there."""
    heard: list[bytes] = []
    tasks: set[asyncio.Task[Any] | None] = set()
    state = server.folder / "state"
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(state / "server.pem", state / "server.key")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        there, to_there = await asyncio.open_connection("127.0.0.1", server.port, ssl=server.tls)
        heard.append(await reader.readline())
        to_there.write(heard[-1])
        await asyncio.gather(copy(reader, to_there), copy(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=own) as listening:
        yield listening.sockets[0].getsockname()[1], heard
        serving = [task for task in tasks if task]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@pytest.mark.parametrize("argument", ["secret", "secret\udcff", "secret" * 1500])
async def test_arguments_stand_in_no_address(served: Serving, argument: str) -> None:
    async with overheard(served) as (port, heard):
        host = await connect(f"https://127.0.0.1:{port}", token=served.token, ca=ca_of(served))
        async with host, (await host.guest("web")).start(["printf", "%s", argument]) as process:
            assert (await process.stdout.read()).decode("utf-8", "surrogateescape") == argument
    assert heard
    assert not any(b"secret" in line for line in heard)


async def test_variables_are_refused_in_an_address(served: Serving) -> None:
    assert await refusal(served, query="command=true&env=A%3D1") == 400
    assert await refusal(served, Guestwire_Secrets="no base64") == 400


@pytest.mark.parametrize("message", ["{", '{"unknown": 1}', '{"resize": [0, 1]}', '{"signal": 999}', b"\x05x"])
async def test_a_client_that_says_what_it_may_not_loses_its_program(served: Serving, message: Any) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=served.tls)) as session:
        socket = await session.ws_connect(
            f"https://127.0.0.1:{served.port}{PATH}?command=sleep&command=1000",
            headers=login_of("ann@pve"),
        )
        pid = json.loads(await socket.receive_str())["pid"]
        await (socket.send_bytes if isinstance(message, bytes) else socket.send_str)(message)
        async with asyncio.timeout(20):
            while (said := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert said.type is aiohttp.WSMsgType.CLOSE
    async with await over_https(served) as host:
        guest = await host.guest("web")
        async with asyncio.timeout(20):
            while (await guest.run(["kill", "-0", str(pid)])).ok:
                await asyncio.sleep(0.1)


async def test_a_right_that_is_withdrawn_ends_it(served: Serving) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=served.tls)) as session:
        socket = await session.ws_connect(
            f"https://127.0.0.1:{served.port}{PATH}?command=sleep&command=1000", headers=login_of("gone@pve")
        )
        await socket.receive_str()
        async with await over_https(served) as root:
            await root.raw("DELETE", "/access/users/gone@pve")
        async with asyncio.timeout(20):
            said = ""
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                said += message.data
    assert "the right to it was withdrawn" in said


@pytest.mark.parametrize("options", [("-i",), ("-t",)])
async def test_a_client_that_is_killed_leaves_no_handle_in_a_real_agent(options: tuple[str, ...]) -> None:
    async with (
        Serving.of(site(vm(100, "web"))) as server,
        SandboxedAgent(server.folder / "100.qga") as agent,
        await over_https(server) as host,
    ):
        guest = await host.guest("web")
        number = (await guest.run(["pgrep", "-x", "qemu-ga"])).output
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "guestwire", *options_for(server), "exec", *options, "web", "--", "sh", "-c", "echo up; cat",
            env=dict(os.environ), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert client.stdout
        assert client.stdin
        async with asyncio.timeout(20):
            assert (await client.stdout.readline()).split() == [b"up"]
            client.stdin.write(b"here\n")
            assert (await client.stdout.readline()).split() == [b"here"]
        assert len(agent.handles(below="/run/guestwire-")) >= 2

        client.kill()
        await client.wait()

        await until(lambda: not agent.handles(below="/run/guestwire-"), within=20)
        assert (await guest.run(["pgrep", "-x", "qemu-ga"])).output == number, "it was not started anew"
