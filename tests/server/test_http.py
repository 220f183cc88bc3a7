"""HTTP as clients really speak it: connections that are kept, long answers, slow clients, clients that leave."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import Client, Connection, agent, connected, site, vm
from serving import Serving
from waiting import until

from guestwire.contract.endpoint import Kind
from guestwire.contract.registry import ENDPOINTS
from guestwire.testing import FakeGuest

KIB = 1024
MIB = 1024 * KIB
VERSION = "/api2/json/version"
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100), vm(101))) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
async def idle(server: Serving) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two connections for the last test, one that was used: a silent one has fifteen seconds, in which the other tests run."""
    client = Client(server)
    async with client.connection() as silent, client.connection() as used:
        used.send(client.request("GET", VERSION))
        assert (await used.answer()).status == 200
        yield silent, used


@pytest.fixture
def client(server: Serving) -> Client:
    return Client(server)


@pytest.fixture
async def guest(server: Serving) -> AsyncIterator[FakeGuest]:
    """VM 100's; VM 101 has none."""
    async with FakeGuest(server.folder / "100.qga") as guest:
        yield guest


# Connections


async def test_many_calls_go_over_one_connection(client: Client, guest: FakeGuest) -> None:
    async with client.connection() as connection:
        for _ in range(100):
            connection.send(client.request("GET", agent("get-host-name")))
            assert (await connection.answer()).data == {"result": {"host-name": "fake"}}

    assert guest.names() == ["guest-get-host-name"] * 100


async def test_errors_do_not_end_a_connection(client: Client, guest: FakeGuest) -> None:
    targets = {agent("ping"): 501, agent("get-users"): 200, agent("exec-status"): 400, agent("get-time", 101): 500, VERSION: 200}  # fmt: skip
    async with client.connection() as connection:
        for target, status in [*targets.items()] * 3:
            connection.send(client.request("GET", target))
            answer = await connection.answer()
            assert answer.status == status, target
            assert answer.headers.get("connection", "keep-alive").lower() == "keep-alive"

    assert guest.names() == ["guest-get-users"] * 3


async def test_a_missing_login_does_not_end_a_connection(client: Client) -> None:
    async with client.connection() as connection:
        for _ in range(2):
            connection.send(b"GET /api2/json/version HTTP/1.1\r\nHost: x\r\n\r\n")
            refused = await connection.answer()
            assert (refused.status, refused.reason, refused.body) == (401, "No ticket", b"")
            assert "content-type" not in refused.headers
            connection.send(client.request("GET", VERSION))
            assert (await connection.answer()).status == 200


async def test_requests_sent_ahead_are_answered_in_order(client: Client, guest: FakeGuest) -> None:
    guest.delay["guest-get-host-name"] = 0.05
    calls = [("GET", agent("get-host-name"), None), ("GET", VERSION, None), ("POST", agent("ping"), b""), ("GET", "/api2/json/none", None)]  # fmt: skip
    async with client.connection() as connection:
        connection.send(b"".join(client.request(method, path, body) for method, path, body in calls * 5))
        answers = [await connection.answer() for _ in calls * 5]

    assert [answer.status for answer in answers] == [200, 200, 200, 501] * 5
    assert answers[0].data == {"result": {"host-name": "fake"}}
    assert set(answers[1].data) == {"guestwire", "release", "repoid", "version"}
    assert answers[2].data == {"result": {}}


async def test_a_connection_can_be_closed_by_request(client: Client) -> None:
    async with client.connection() as connection:
        connection.send(client.request("GET", VERSION, headers=["Connection: close"]))

        assert (await connection.answer()).status == 200
        assert await connection.rest() == b""


async def test_http_1_0_is_answered_and_the_connection_closed(client: Client) -> None:
    async with client.connection() as connection:
        connection.send(client.request("GET", VERSION, version="1.0"))

        assert (await connection.answer()).status == 200
        assert await connection.rest() == b""


async def test_http_1_0_may_ask_to_keep_the_connection(client: Client) -> None:
    async with client.connection() as connection:
        for _ in range(3):
            connection.send(client.request("GET", VERSION, headers=["Connection: keep-alive"], version="1.0"))
            assert (await connection.answer()).status == 200


async def test_a_slow_client_is_heard_out_while_others_are_answered(client: Client, guest: FakeGuest) -> None:
    async with client.connection() as slow:
        for position, byte in enumerate(client.request("POST", agent("ping"), b"{}", [JSON])):
            slow.send(bytes([byte]))
            await slow.writer.drain()
            if position % 40 == 0:
                assert (await client.get(VERSION)).status == 200

        assert (await slow.answer()).data == {"result": {}}
    assert guest.names() == ["guest-ping"]


async def test_half_a_request_keeps_nobody(client: Client) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for length in range(1, 200, 20):
            connection = await stack.enter_async_context(client.connection())
            connection.send(client.request("POST", agent("ping"), b"{}", [JSON])[:length])

        assert (await client.get(VERSION)).status == 200


# Long answers


async def test_an_answer_is_compressed_only_when_it_is_long_and_that_is_asked_for(
    client: Client, guest: FakeGuest
) -> None:
    for size, asked, packed in [(2000, "gzip, deflate", True), (2000, "br", False), (2000, "", False), (500, "gzip", False)]:  # fmt: skip
        guest.replies["guest-get-host-name"] = {"host-name": "x" * size}
        answer = await client.get(agent("get-host-name"), [f"Accept-Encoding: {asked}"] if asked else [])

        assert ("content-encoding" in answer.headers) is packed
        assert answer.data == {"result": {"host-name": "x" * size}}
        assert (len(answer.body) < size) is packed


@pytest.mark.parametrize("size", [0, 1, KIB, 64 * KIB + 1, 256 * KIB, 256 * KIB + 1, 3 * MIB, 16 * MIB])
@pytest.mark.parametrize("headers", [[], ["Accept-Encoding: gzip"]], ids=["plain", "compressed"])
async def test_files_of_all_sizes_arrive_byte_for_byte(
    client: Client, guest: FakeGuest, size: int, headers: list[str]
) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    guest.files["/f"] = bytearray(content)

    data = (await client.get(agent("file-read"), headers, file="/f")).data

    assert data.pop("content").encode("latin-1") == content
    assert data == {"bytes-read": size} | ({"truncated": 1} if size == 16 * MIB else {})
    assert not guest.open_handles


AS_IT_IS = "Accept: application/octet-stream"


@pytest.mark.parametrize("size", [0, 1, 64 * KIB + 1, 3 * MIB, 16 * MIB])
@pytest.mark.parametrize("decode", [0, 1])
async def test_a_file_comes_as_it_is_to_a_client_that_asks_for_that(
    client: Client, guest: FakeGuest, size: int, decode: int
) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    guest.files["/f"] = bytearray(content)

    answer = await client.get(agent("file-read"), [AS_IT_IS], file="/f", decode=decode)

    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert answer.body == content
    assert answer.headers["guestwire-bytes-read"] == str(size)
    assert answer.headers["guestwire-truncated"] == ("1" if size == 16 * MIB else "0")
    assert not guest.open_handles


async def test_errors_and_all_other_results_are_json_whatever_is_asked_for(client: Client, guest: FakeGuest) -> None:
    missing = await client.get(agent("file-read"), [AS_IT_IS], file="/none")
    guest.files["/f"] = bytearray(b"x")
    other_wish = await client.get(agent("file-read"), ["Accept: application/json, */*"], file="/f")

    assert missing.status == 500
    assert missing.json["data"] is None
    assert other_wish.data == {"content": "x", "bytes-read": 1}
    assert (await client.get(VERSION, [AS_IT_IS])).data["guestwire"]


async def test_after_a_long_answer_the_connection_goes_on(client: Client, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(range(256)) * (4 * KIB)
    async with client.connection() as connection:
        for _ in range(3):
            connection.send(client.request("GET", agent("file-read?file=/f")) + client.request("GET", VERSION))
            assert (await connection.answer()).data["bytes-read"] == MIB
            assert (await connection.answer()).status == 200


async def test_a_reader_that_pauses_gets_all_of_it_and_delays_nobody(client: Client, guest: FakeGuest) -> None:
    guest.files["/f"] = bytearray(range(256)) * (32 * KIB)
    async with client.connection() as slow:
        slow.send(client.request("GET", agent("file-read?file=/f")))
        await until(lambda: "guest-file-close" in guest.names(), within=20)
        for _ in range(20):
            assert (await client.post(agent("ping"))).status == 200

        assert (await slow.answer()).data["content"].encode("latin-1") == bytes(guest.files["/f"])


# Clients that leave


@pytest.mark.parametrize("command", ["guest-file-open", "guest-file-read", "guest-file-close"])
async def test_a_client_that_leaves_in_the_middle_leaves_no_handle_open(
    server: Serving, client: Client, guest: FakeGuest, command: str
) -> None:
    guest.files["/f"] = bytearray(MIB)
    guest.delay[command] = 0.2
    before = len(server.log)
    async with client.connection() as connection:
        connection.send(client.request("GET", agent("file-read?file=/f")))
        await until(lambda: command in guest.names())
        connection.drop()

    await until(lambda: "status=499" in server.log[before:])
    await until(lambda: "guest-file-close" in guest.names() and not guest.open_handles)
    guest.delay.clear()
    assert (await client.get(agent("file-read"), file="/f")).data["bytes-read"] == MIB


async def test_a_client_that_leaves_before_its_turn_costs_the_guest_nothing(client: Client, guest: FakeGuest) -> None:
    guest.delay["guest-get-users"] = 0.3
    first = [asyncio.create_task(client.get(agent("get-users"))) for _ in range(4)]
    await until(lambda: "guest-get-users" in guest.names())
    async with client.connection() as connection:
        connection.send(client.request("GET", agent("get-host-name")))
        await connection.writer.drain()
        assert (await client.get(VERSION)).status == 200  # the server had time to take the other one up
        connection.drop()

    assert {answer.status for answer in await asyncio.gather(*first)} == {200}
    assert (await client.post(agent("ping"))).status == 200
    assert guest.names() == ["guest-get-users"] * 4 + ["guest-ping"]


async def leave_while_reading(client: Client, guest: FakeGuest) -> str:
    """Three clients leave in the middle of a long answer; returns what the server logged."""
    before = len(client.server.log)
    guest.files["/f"] = bytearray(16 * MIB)
    for number in range(1, 4):
        async with client.connection() as connection:
            connection.send(client.request("GET", agent("file-read?file=/f")))
            await connection.reader.readexactly(100 * KIB)
            connection.drop()
        await until(lambda: client.server.log[before:].count("/agent/file-read") >= number)  # noqa: B023  # asked at once
    return client.server.log[before:]


async def test_a_client_that_leaves_while_it_reads_breaks_nothing(client: Client, guest: FakeGuest) -> None:
    await leave_while_reading(client, guest)

    assert (await client.post(agent("ping"))).status == 200
    assert not guest.open_handles


async def test_a_client_that_leaves_while_it_reads_is_nothing_unexpected(client: Client, guest: FakeGuest) -> None:
    said = await leave_while_reading(client, guest)

    assert "unexpected error" not in said
    assert said.count("status=499") == 3


# Bodies


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(client: Client, guest: FakeGuest) -> None:
    request = client.request(
        "POST", agent("file-write"), b'{"file":"/f","content":"abc"}', [JSON, "Expect: 100-continue"]
    )
    head, body = request.split(b"\r\n\r\n")
    async with client.connection() as connection:
        for _ in range(2):
            connection.send(head + b"\r\n\r\n")
            assert (await connection.answer()).status == 100
            connection.send(body)
            assert (await connection.answer()).json == {"data": None}

    assert guest.files["/f"] == b"abc"


async def test_a_client_that_waits_for_100_continue_without_a_login_is_refused_at_once(server: Serving) -> None:
    async with connected(server.port, server.tls) as connection:
        connection.send(f"POST {agent('ping')} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode())  # fmt: skip

        assert (await connection.answer()).status == 401


async def test_a_body_of_512_kib_is_read_and_a_longer_one_refused(client: Client, guest: FakeGuest) -> None:
    def body(size: int) -> bytes:
        empty = len(json.dumps({"file": "/f", "content": ""}))
        return json.dumps({"file": "/f", "content": "x" * (size - empty)}).encode()

    longest = await client.send(client.request("POST", agent("file-write"), body(512 * KIB), [JSON]))
    longer = await client.send(client.request("POST", agent("file-write"), body(512 * KIB + 1), [JSON]))

    assert (longest.status, longest.json["errors"]) == (400, {"content": "value may only be 61440 characters long"})
    assert (longer.status, longer.reason) == (501, "for data too large")
    assert guest.received == []


async def test_a_refusal_reaches_a_client_that_sends_on(client: Client) -> None:
    async with client.connection() as connection:
        connection.send(
            client.request("POST", agent("file-write"), b"", [JSON]).replace(b"Length: 0", b"Length: 9000000")
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(30):
                connection.send(b"x" * 64 * KIB)
                await connection.writer.drain()

        assert (await connection.answer()).reason == "for data too large"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (["Content-Type: application/\xff"], b"x", 506),
        (["Content-Type: application/json;charset=\xff"], b"{", 400),
        (["Content-Encoding: gzip", JSON], b"{}", 200),
        (["Content-Encoding: \xff", JSON], b"{", 400),
        ([], b"\xff=1", 400),
        ([], b"%ff=1", 400),
    ],
)
async def test_what_is_no_text_is_refused_without_a_trace(
    client: Client, guest: FakeGuest, headers: list[str], body: bytes, status: int
) -> None:
    head = client.request("POST", agent("ping"), None, [*headers, f"Content-Length: {len(body)}"])
    answer = await client.send(head.decode().encode("latin-1") + body)

    assert answer.status == status
    assert "Traceback" not in client.server.log
    assert guest.names() == ["guest-ping"] * (status == 200)


async def test_no_bytes_of_one_request_are_taken_for_another(client: Client) -> None:
    inner = client.request("GET", VERSION)
    for headers in (
        ["Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", f"Content-Length: {len(inner)}"],
        ["Transfer-Encoding: identity"],
        ["Content-Length: 0", f"Content-Length: {len(inner)}"],
        ["Content-Length: 0", " folded"],
        ["Content-Length : 0"],
    ):
        async with client.connection() as connection:
            connection.send(client.request("POST", agent("ping"), None, headers) + inner)
            assert (await connection.answer()).status in (400, 501)
            assert await connection.rest() == b""


async def test_a_body_that_nobody_wanted_does_not_end_a_connection(client: Client) -> None:
    unknown = client.request("POST", "/api2/json/none", b"x" * 300 * KIB, [JSON])
    async with client.connection() as connection:
        connection.send(unknown + client.request("GET", VERSION))
        assert (await connection.answer()).status == 501
        assert (await connection.answer()).status == 200


def memory(server: Serving) -> int:
    """Bytes that a server had at most."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * KIB


async def test_what_a_client_sends_ahead_is_not_all_kept_while_a_call_goes_on(
    server: Serving, client: Client, guest: FakeGuest
) -> None:
    guest.delay["guest-get-host-name"] = 1.0
    before = memory(server)
    async with client.connection() as connection:
        connection.send(client.request("GET", agent("get-host-name")) + client.request("GET", VERSION) * 400_000)
        assert (await connection.answer()).status == 200
        assert (await connection.answer()).status == 200

    assert memory(server) - before < 16 * MIB


async def test_60_headers_are_taken_and_70_refused(client: Client) -> None:
    few, many = ([f"X-{number}: y" for number in range(count)] for count in (60, 70))

    assert (await client.get(VERSION, few)).status == 200
    assert (await client.get(VERSION, many)).status == 431


async def test_a_long_url_works_as_far_as_it_fits_and_is_refused_with_its_reason(client: Client) -> None:
    fits = await client.get(f"{VERSION}?_dc={'x' * 8000}")
    long = await client.get(f"{VERSION}?_dc={'x' * 9000}")

    assert fits.status == 200
    assert (long.status, long.reason) == (414, "the URL is longer than 8190 bytes")


# What is there


async def test_in_extjs_every_answer_is_200_with_its_status_inside(client: Client, guest: FakeGuest) -> None:
    good = await client.post(agent("ping", form="extjs"))
    down = await client.post(agent("ping", 101, form="extjs"))
    wrong = await client.get(agent("exec-status", form="extjs"))

    assert guest.names() == ["guest-ping"]
    assert good.json == {"data": {"result": {}}, "success": 1}
    assert (down.status, down.reason) == (200, "OK")
    assert down.json == {"data": None, "message": "QEMU guest agent is not running\n", "status": 500, "success": 0}
    assert (wrong.json["status"], list(wrong.json["errors"])) == ("400", ["pid"])


async def test_in_extjs_a_missing_login_stays_a_real_401(server: Serving) -> None:
    async with connected(server.port, server.tls) as connection:
        connection.send(b"GET /api2/extjs/version HTTP/1.1\r\nHost: x\r\n\r\n")

        assert (await connection.answer()).status == 401


async def test_the_node_is_also_called_localhost(client: Client, guest: FakeGuest) -> None:
    local = agent("ping").replace("pve1", "localhost")

    assert (await client.post(local)).data == {"result": {}}
    assert (await client.get("/api2/json/nodes/localhost/qemu")).data == (await client.get("/api2/json/nodes/pve1/qemu")).data  # fmt: skip
    assert (await client.post(agent("ping").replace("pve1", "pve2"))).status == 500
    assert guest.names() == ["guest-ping"]


async def test_the_description_of_the_api_needs_a_login(server: Serving, client: Client) -> None:
    async with connected(server.port, server.tls) as connection:
        connection.send(b"GET /api2/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await connection.answer()).status == 401

    assert (await client.get("/api2/openapi.json")).json["openapi"] == "3.1.0"


async def test_everything_that_is_described_is_there(client: Client) -> None:
    described = (await client.get("/api2/openapi.json")).json["paths"]
    calls = [(method.upper(), path) for path, operations in described.items() for method in operations]
    statuses = {}
    streams = {(one.method, f"/api2/json{one.path}") for one in ENDPOINTS if one.kind is Kind.STREAM}
    for method, path in set(calls) - streams:
        target = re.sub(r"\{\w+\}", "none", path.format_map(Known(node="pve1", vmid=999)))
        answer = await client.send(client.request(method, target, b"" if method in ("POST", "PUT") else None))
        statuses[method, path] = answer.status

    assert set(calls) == {(one.method, f"/api2/json{one.path}") for one in ENDPOINTS}
    assert {call: status for call, status in statuses.items() if status in (401, 404, 501)} == {}


class Known(dict[str, object]):
    """Values for the parameters of a path; one that is not there stays as it is."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"


@pytest.mark.slow
async def test_a_connection_that_says_nothing_is_ended_and_one_that_is_used_is_kept(
    client: Client, idle: tuple[Connection, Connection]
) -> None:
    silent, used = idle
    assert await silent.rest() == b""
    used.send(client.request("GET", VERSION))
    assert (await used.answer()).status == 200
