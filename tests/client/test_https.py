"""What happens to calls when a server hangs up, or its tickets end: nothing is done twice, and nobody has to log in again."""

import asyncio
import contextlib
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from guestwire.client import Host, connect
from guestwire.client.carriers import https
from guestwire.client.endpoints import Endpoints
from guestwire.client.errors import CallFailed, CertificateNotTrusted, LoginFailed, Unreachable, WrongParameters
from guestwire.contract import Effect
from guestwire.contract.endpoints import agent
from guestwire.errors import ConfigurationError

HANG_UP = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a server got; names of headers in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """Answers as it is told to: an answer is a status line's end and what stands under `data`; None hangs up."""

    answer: Callable[[Request], tuple[str, Any] | None]
    got: list[Request] = field(default_factory=list)
    port: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await self._request(reader)
                self.got.append(request)
                if (answer := self.answer(request)) is HANG_UP:
                    break
                status, data = answer
                body = json.dumps({"data": data}).encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader) -> Request:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = line.split(" ")
        return Request(method, path.removeprefix("/api2/json"), headers, json.loads(body) if body else None)

    async def host(self, **credentials: str) -> Host:
        return await connect(f"http://127.0.0.1:{self.port}", **(credentials or {"token": "a@b!c=d"}))

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path.rpartition('/')[2]}" for request in self.got]


# A connection that breaks

READS = {endpoint.name for endpoint in agent.endpoints if endpoint.effect is Effect.READS}
ARGUMENTS: dict[str, list[Any]] = {
    "exec": [["true"]],
    "exec-status": [1],
    "file-read": ["/x"],
    "file-write": ["/x", ""],
    "set-user-password": ["root", "secret"],
}


@pytest.mark.parametrize("name", sorted({endpoint.name for endpoint in agent.endpoints} - {"agent"}))
async def test_only_what_reads_is_sent_again_when_the_server_hung_up_after_the_request(name: str) -> None:
    async with Server(lambda _: HANG_UP).running() as server, await server.host() as host:
        call = getattr(await host.guest("pve1/100"), name.replace("-", "_"))
        with pytest.raises(Unreachable) as failed:
            await call(*ARGUMENTS.get(name, []))

    assert len(server.got) == (2 if name in READS else 1)
    assert ("the call may have been executed" in str(failed.value)) == (name not in READS)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_that_changes_something_is_sent_twice(method: str) -> None:
    async with Server(lambda _: HANG_UP).running() as server, await server.host() as host:
        with pytest.raises(Unreachable, match="the call may have been executed"):
            await host.raw(method, "/access/users/a@pve")

    assert len(server.got) == 1


async def test_http_to_a_port_for_https_is_told_so() -> None:
    moved = "301 Moved Permanently\r\nLocation: https://127.0.0.1/"
    async with Server(lambda _: (moved, None)).running() as server, await server.host() as host:
        with pytest.raises(Unreachable, match=f"speaks HTTPS; name the host as https://127.0.0.1:{server.port}$"):
            await host.guests()
    async with Server(lambda _: HANG_UP).running() as server, await server.host() as host:
        with pytest.raises(Unreachable, match="perhaps this port speaks HTTPS"):
            await host.guests()


async def test_a_name_that_is_not_known_is_told_so() -> None:
    host = await connect("https://host.invalid:8006", token="a@b!c=d")
    async with host:
        with pytest.raises(Unreachable, match=r"host\.invalid:8006: unknown host name; check the address"):
            await host.guests()


async def test_what_could_not_be_sent_says_to_check_the_address_and_not_that_it_may_have_been_executed() -> None:
    async with Server(lambda _: ("200 OK", {"pid": 1})).running() as server:
        port = server.port
    host = await connect(f"http://127.0.0.1:{port}", token="a@b!c=d")
    async with host:
        with pytest.raises(Unreachable, match="check the address"):
            await (await host.guest("pve1/100")).exec(["true"])


# Tickets


class Cluster:
    """Gives tickets, takes the newest one, and the password."""

    def __init__(self) -> None:
        self.tickets = 0
        self.ended = False

    def __call__(self, request: Request) -> tuple[str, Any] | None:
        if request.path == "/access/ticket":
            if request.body["password"] not in ("secret", *([] if self.ended else [self.ticket])):
                return "401 authentication failure", None
            self.tickets += 1
            self.ended = False
            return "200 OK", {"ticket": self.ticket, "CSRFPreventionToken": f"csrf{self.tickets}"}
        cookie = unquote(request.headers.get("cookie", "")).removeprefix("PVEAuthCookie=")
        if cookie != self.ticket or self.ended:
            return "401 permission denied - invalid PVE ticket", None
        if request.method != "GET" and request.headers.get("csrfpreventiontoken") != f"csrf{self.tickets}":
            return "401 Permission denied - invalid csrf token", None
        return "200 OK", {"pid": 1}

    @property
    def ticket(self) -> str:
        return f"PVE:a@pam:{self.tickets}::+/="


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def server(cluster: Cluster) -> AsyncIterator[Server]:
    async with Server(cluster).running() as server:
        yield server


@pytest.fixture
async def logged_in(server: Server) -> AsyncIterator[Endpoints]:
    async with await server.host(user="a@pam", password="secret") as host:
        yield await host.guest("pve1/100")


async def test_one_login_is_enough_for_many_calls(logged_in: Endpoints, server: Server) -> None:
    await asyncio.gather(*(logged_in.exec(["true"]) for _ in range(5)))

    assert server.paths() == ["POST ticket", *["POST exec"] * 5]
    assert server.got[0].body == {"username": "a@pam", "password": "secret"}
    assert "secret" not in str([request.headers for request in server.got])


async def test_a_ticket_is_renewed_by_itself_before_it_ends(
    logged_in: Endpoints, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await logged_in.exec(["true"])
    monkeypatch.setattr(https, "RENEW_AFTER", -1.0)
    await logged_in.exec(["true"])

    assert https.RENEW_AFTER < 0
    assert server.paths() == ["POST ticket", "POST exec"] * 2
    assert server.got[2].body["password"] == "PVE:a@pam:1::+/="


def test_that_is_half_an_hour_before_it_would() -> None:
    assert https.RENEW_AFTER == 90 * 60


async def test_a_ticket_that_ended_while_this_machine_slept_is_asked_for_with_the_password(
    logged_in: Endpoints, server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await logged_in.exec(["true"])
    cluster.ended = True
    monkeypatch.setattr(https, "RENEW_AFTER", -1.0)
    await logged_in.exec(["true"])

    assert server.paths() == ["POST ticket", "POST exec", "POST ticket", "POST ticket", "POST exec"]


async def test_a_ticket_that_is_refused_in_the_middle_is_renewed_once(
    logged_in: Endpoints, server: Server, cluster: Cluster
) -> None:
    await logged_in.exec(["true"])
    cluster.ended = True
    await asyncio.gather(*(logged_in.exec(["true"]) for _ in range(3)))

    assert server.paths().count("POST ticket") == 2
    assert [request.headers["csrfpreventiontoken"] for request in server.got if "exec" in request.path][-3:] == [
        "csrf2"
    ] * 3


async def test_a_ticket_that_never_was_good_is_not_asked_for_again() -> None:
    def refusing(request: Request) -> tuple[str, Any]:
        given = {"ticket": "t", "CSRFPreventionToken": "c"}
        return ("200 OK", given) if request.path == "/access/ticket" else ("401 No ticket", None)

    async with Server(refusing).running() as server, await server.host(user="a@pam", password="secret") as host:
        with pytest.raises(LoginFailed):
            await host.raw("GET", "/version")

    assert server.paths() == ["POST ticket", "GET version"]


async def test_a_wrong_password_is_asked_for_once_and_never_shown(server: Server) -> None:
    async with await server.host(user="a@pam", password="wrong!") as host:
        with pytest.raises(LoginFailed) as failed:
            await host.raw("GET", "/version")

    assert server.paths() == ["POST ticket"]
    assert "wrong!" not in str(failed.value) + repr(host) + repr(vars(host._carrier))


async def test_a_token_that_is_refused_is_not_tried_again() -> None:
    async with Server(lambda _: ("401 no such token", None)).running() as server, await server.host() as host:
        with pytest.raises(LoginFailed, match=r"USER@REALM!NAME=SECRET"):
            await host.raw("GET", "/version")

    assert server.paths() == ["GET version"]


async def test_a_user_with_a_second_factor_is_told_to_take_a_token() -> None:
    half = {"ticket": "PVE:!tfa!", "CSRFPreventionToken": "c", "NeedTFA": 1}
    async with (
        Server(lambda _: ("200 OK", half)).running() as server,
        await server.host(user="a@pam", password="s") as host,
    ):
        with pytest.raises(LoginFailed, match="second factor; give an API token instead"):
            await host.raw("GET", "/version")


@pytest.mark.parametrize("data", [None, {}, {"ticket": "t"}, "t"])
async def test_a_login_without_a_ticket_is_an_error(data: Any) -> None:
    async with (
        Server(lambda _: ("200 OK", data)).running() as server,
        await server.host(user="a@pam", password="s") as host,
    ):
        with pytest.raises(CallFailed, match="no ticket"):
            await host.raw("GET", "/version")


# What is sent


async def test_a_path_can_not_end_its_line() -> None:
    async with Server(lambda _: ("200 OK", {})).running() as server, await server.host() as host:
        await host.raw("GET", "/version\r\nX: y#z \udcff/%2fa?b=c")

    assert [request.path for request in server.got] == ["/version%0D%0AX:%20y%23z%20%FF/%2fa?b=c"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_no_text_is_not_sent(method: str) -> None:
    async with Server(lambda _: ("200 OK", {})).running() as server, await server.host() as host:
        with pytest.raises(WrongParameters, match="not UTF-8 text"):
            await host.raw(method, "/version", a="\udcff")

    assert not server.got


async def test_names_of_parameters_can_be_given_as_they_are() -> None:
    async with Server(lambda _: ("200 OK", {})).running() as server, await server.host() as host:
        await host.raw("PUT", "/x", {"a_b": 1, "c-d": 2}, e_f=3)

    assert [request.body for request in server.got] == [{"a_b": 1, "c-d": 2, "e-f": 3}]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_list_in_a_query_is_a_key_that_is_repeated(method: str) -> None:
    async with Server(lambda _: ("200 OK", {})).running() as server, await server.host() as host:
        await host.raw(method, "/x", {"file": ["/a b", "/c"], "count": 1})

    assert [request.path.partition("?")[2] for request in server.got] == ["file=%2Fa%20b&file=%2Fc&count=1"]


async def test_credentials_do_not_follow_a_redirect() -> None:
    async with Server(lambda _: ("200 OK", {})).running() as other:
        leading = f"302 Found\r\nLocation: http://127.0.0.1:{other.port}/api2/json/version"
        async with Server(lambda _: (leading, None)).running() as server, await server.host() as host:
            with pytest.raises(CallFailed):
                await host.raw("GET", "/version")

    assert not other.got


# Answers that are none


async def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "LARGEST_ANSWER", 100_000)
    async with Server(lambda _: ("200 OK", "x" * 200_000)).running() as server, await server.host() as host:
        with pytest.raises(CallFailed, match="longer than 100000 bytes"):
            await host.raw("GET", "/version")


async def test_a_file_without_a_certificate_is_no_ca(folder: Path) -> None:
    (folder / "ca").write_text("no certificate")

    with pytest.raises(ConfigurationError, match="there is no certificate in it"):
        await connect("https://127.0.0.1:1", token="a@b!c=d", ca=str(folder / "ca"))


@pytest.mark.parametrize("answer", ["200 OK", "500 got no worker", "302 Found", "595 Errors during connection"])
async def test_an_answer_that_is_none_of_the_apis_is_an_error(answer: str) -> None:
    async with Server(lambda _: (answer, "<html>")).running() as server, await server.host() as host:
        with pytest.raises(CallFailed):
            await (await host.guest("pve1/100")).get_osinfo()


# Certificates


def self_signed(folder: Path, address: str, days: int) -> Path:
    """A file with a certificate for an address that ends in so many days, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pve1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = folder / "server.pem"
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return path


@pytest.mark.parametrize(
    ("address", "days", "says"),
    [("127.0.0.1", -1, "expired; renew it on the host"), ("127.0.0.9", 9, "mismatch.*; name the host as its certificate does")],
)  # fmt: skip
async def test_where_a_trusted_ca_does_not_help_the_error_says_what_does(
    folder: Path, address: str, days: int, says: str
) -> None:
    path = self_signed(folder, address, days)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]

    async with server, await connect(f"https://127.0.0.1:{port}", token="a@b!c=d", ca=str(path)) as host:
        with pytest.raises(CertificateNotTrusted, match=says):
            await host.raw("GET", "/version")
