"""The log: one line a request, with an id, and never a secret."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from calling import Client, agent, connected, site, vm
from serving import Serving
from waiting import until

from guestwire.testing import CommandError, FakeGuest

LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO guestwire\.requests id=(?P<id>[0-9a-f]+) from=127\.0\.0\.1 subject=(?P<subject>\S+) "
    r"(?P<method>\S+) '(?P<path>[^']*)' status=(?P<status>\d+) ms=\d+\.\d( error=.+)?"
)

SECRET = "5e0c7e72b1Secret"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100))) as server:
        yield server


@pytest.fixture
async def guest(server: Serving) -> AsyncIterator[FakeGuest]:
    async with FakeGuest(server.folder / "100.qga") as guest:
        yield guest


@pytest.fixture
def client(server: Serving) -> Client:
    return Client(server)


async def lines(server: Serving, requests: int, before: int) -> list[dict[str, str]]:
    """The fields of the lines that so many requests left in the log."""
    await until(lambda: len(request_lines(server, before)) >= requests)
    found = [LINE.fullmatch(line) for line in request_lines(server, before)]
    assert all(found), server.log[before:]
    return [line.groupdict() for line in found if line]


def request_lines(server: Serving, before: int) -> list[str]:
    """The whole lines that are new, but for those of agents that come and go meanwhile."""
    whole = server.log[before:].rpartition("\n")[0]
    return [line for line in whole.splitlines() if " guestwire.channels " not in line]


async def test_a_request_is_one_line_with_an_id(server: Serving, client: Client, guest: FakeGuest) -> None:
    before = len(server.log)
    await client.post(agent("ping"))
    await client.get("/api2/json/none?a=b")
    async with connected(server.port, server.tls) as connection:
        connection.send(b"GET /api2/json/version HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.answer()

    ping, none, stranger = await lines(server, 3, before)

    assert guest.names() == ["guest-ping"]
    assert len({ping["id"], none["id"], stranger["id"]}) == 3
    assert [ping["subject"], none["subject"], stranger["subject"]] == ["root@pam!admin", "root@pam!admin", "-"]
    assert (ping["method"], ping["path"], ping["status"]) == ("POST", agent("ping"), "200")
    assert (none["path"], none["status"]) == ("/api2/json/none", "501")
    assert stranger["status"] == "401"


@pytest.mark.usefixtures("guest")
async def test_the_line_of_a_call_that_failed_says_why(server: Serving, client: Client) -> None:
    before = len(server.log)
    await client.get(agent("exec-status"), pid=99999)
    await client.get(agent("exec-status"), pid="x")
    await client.get(agent("ping", vmid=999))
    await client.post(agent("ping", vmid=101))

    async with asyncio.timeout(10):
        while len(written := request_lines(server, before)) < 4:
            await asyncio.sleep(0.01)

    assert [line.partition(" error=")[2] for line in written] == [
        "AgentError 'Agent error: The command guest-exec-status has not been found'",
        "InvalidParameters 'pid'",
        "NotImplementedHere",
        "VmNotFound \"Configuration file 'nodes/pve1/qemu-server/101.conf' does not exist\"",
    ]


async def test_no_request_can_write_lines_of_its_own(server: Serving, client: Client) -> None:
    before = len(server.log)
    paths = [
        "/api2/json/%0a2026-01-01%20INFO",
        "/api2/json/\x1b[31m",
        "/api2/json/\xe9\u2028",
        "/api2/json/" + "a" * 4000,
    ]
    for path in paths:
        async with client.connection() as connection:
            connection.send(client.request("GET", path))
            await connection.answer()
    await client.get("/api2/json/version")

    await until(lambda: any("/version" in line for line in request_lines(server, before)))
    written = request_lines(server, before)

    assert all(line.isascii() and line.isprintable() for line in written)
    assert max(map(len, written)) < 500
    assert all("guestwire.requests id=" in line for line in written)


async def send_all_secrets(client: Client) -> int:
    """Secrets in every place that a call has for them; returns how many requests that took."""
    password, file, process = agent("set-user-password"), agent("file-write"), agent("exec")
    named = {"username": "u", "password": SECRET}
    await client.post(password, **named)
    await client.post(password, **named, unknown=SECRET)
    await client.post(password, username="u", password="no")
    await client.post(f"{password}?username=u&password={SECRET}")
    await client.post(file, file="/f", content=SECRET)
    await client.post(file, file=f"/{SECRET}/f", content=SECRET)
    await client.post(process, command=["cat", SECRET], **{"input-data": SECRET})
    await client.get(agent("file-read"), file=f"/{SECRET}")
    form = f"username=u&password={SECRET}".encode()
    await client.send(client.request("POST", password, form, ["Content-Type: application/x-www-form-urlencoded"]))
    await client.send(
        client.request("POST", password, b'{"password":"' + SECRET.encode(), ["Content-Type: application/json"])
    )
    await client.send(
        client.request("GET", f"/api2/json/version?{quote(SECRET)}", None, ["Cookie: PVEAuthCookie=" + SECRET])
    )
    return 11


async def send_bad_credentials(client: Client) -> int:
    headers = [
        f"Authorization: PVEAPIToken=root@pam!admin={SECRET}", f"Authorization: PVEAPIToken={SECRET}",
        f"Authorization: Basic {SECRET}", f"CSRFPreventionToken: {SECRET}",
    ]  # fmt: skip
    for header in headers:
        async with client.connection() as connection:
            connection.send(f"GET /api2/json/version?x={SECRET} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
            assert (await connection.answer()).status == 401
    return len(headers)


async def test_no_secret_ever_stands_in_the_log(server: Serving, client: Client, guest: FakeGuest) -> None:
    guest.replies |= {"guest-set-user-password": {}, "guest-exec": {"pid": 1}}
    before = len(server.log)
    sent = await send_all_secrets(client) + await send_bad_credentials(client)

    assert len(await lines(server, sent, before)) == sent
    assert any(SECRET in str(request) for request in guest.received), "nothing reached the guest"
    assert SECRET not in server.log
    assert quote(SECRET) not in server.log
    assert server.token.partition("=")[2] not in server.log


async def test_what_an_agent_repeats_of_a_secret_is_left_out_of_the_log(
    server: Serving, client: Client, guest: FakeGuest
) -> None:
    def repeat(arguments: dict[str, str]) -> None:
        raise CommandError("GenericError", f"bad {arguments['password']} {SECRET} {chr(10)}2026-11-26 INFO it is")

    guest.replies["guest-set-user-password"] = repeat
    before = len(server.log)
    await client.post(agent("set-user-password"), username="u", password=SECRET)

    (line,) = await lines(server, 1, before)
    assert line["status"] == "500"
    answer = await client.get(agent("exec-status"), pid=1)
    assert answer.status == 500
    assert SECRET not in server.log
    assert base64.b64encode(SECRET.encode()).decode() not in server.log


async def test_an_agents_error_and_a_broken_agent_put_no_secret_into_the_log(
    server: Serving, client: Client, guest: FakeGuest
) -> None:
    guest.fault = lambda exchange: exchange.honest if exchange.is_sync else [f'{{"{SECRET}": 1}}\n'.encode()]

    answer = await client.get(agent("get-host-name"))

    assert answer.status == 500
    assert SECRET not in server.log


async def test_a_request_that_cannot_be_read_is_one_line_too(server: Serving) -> None:
    before = len(server.log)
    async with connected(server.port, server.tls) as connection:
        connection.send(b"GARBAGE\r\n\r\n")
        assert (await connection.answer()).status == 400
    pattern = r"INFO guestwire\.requests id=[0-9a-f]{12} from=127\.0\.0\.1 subject=- unparsable request: 400 [ -~]+\n"
    await until(lambda: re.search(pattern, server.log[before:]) is not None)
