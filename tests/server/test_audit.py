"""The audit trail: what it holds, what it never holds, and that a kill takes nothing from it whose answer was sent."""

import asyncio
import contextlib
import hashlib
import json
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from access_calls import stranger
from calling import Client, agent, site, vm
from persons import SECRET, authorization, person, settling
from serving import Serving
from waiting import until

from guestwire.access.authentication import secret_hash
from guestwire.access.control import Access
from guestwire.app.state import STORE
from guestwire.contract import Endpoint
from guestwire.contract.endpoints.agent import fsfreeze_thaw
from guestwire.contract.registry import ENDPOINTS
from guestwire.dispatch import audit
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.dispatch.stranger_limiter import PER_ADDRESS
from guestwire.errors import StoreError
from guestwire.inventory import Inventory
from guestwire.server import Gateway
from guestwire.server.http1 import Request, Response
from guestwire.stores import BEGUN, AuditFilter, AuditLog, AuditRecord, MemoryStore, SqliteStore, Token, User
from guestwire.testing import FakeGuest

AUDIT = "/api2/json/nodes/pve1/guestwire/audit"
USERS = "/api2/json/access/users"
PEOPLE = settling(person("ann@pve", ("/vms/100", "PVEVMUser")), person("eve@pve"))
REPLIES = {"guest-exec": {"pid": 7}, "guest-set-user-password": {}}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100)), prepare=PEOPLE) as server:
        yield server


@pytest.fixture
async def guest(server: Serving) -> AsyncIterator[FakeGuest]:
    async with FakeGuest(server.folder / "100.qga", replies=dict(REPLIES)) as guest:
        yield guest


@pytest.fixture
def client(server: Serving) -> Client:
    return Client(server)


def caller(server: Serving, userid: str) -> Client:
    """Somebody else than the administrator."""
    made = Client(server)
    made.authorization = authorization(userid)
    return made


async def last(client: Client) -> dict[str, Any]:
    """The last record."""
    records: list[dict[str, Any]] = (await client.get(AUDIT, limit=1)).data
    return records[-1]


@pytest.mark.usefixtures("guest")
async def test_a_process_is_recorded_with_its_command_line_and_without_its_input(client: Client) -> None:
    await client.post(agent("exec"), command=["/bin/sh", "-c", "id"], **{"input-data": "planted-input"})

    record = await last(client)

    assert record["endpoint"] == "POST /nodes/{node}/qemu/{vmid}/agent/exec"
    assert record["parameters"] == {"vmid": "100", "command": ["/bin/sh", "-c", "id"], "input-data-size": 13}
    assert (record["subject"], record["address"], record["vmid"]) == ("root@pam!admin", "127.0.0.1", 100)
    assert (record["status"], record["result"]) == (200, "OK")
    assert record["duration-ms"] > 0


@pytest.mark.parametrize(("content", "encode"), [("planted-content", 1), ("cGxhbnRlZC1jb250ZW50", 0)])
async def test_a_written_file_is_recorded_with_its_size_and_digest(
    client: Client, guest: FakeGuest, content: str, encode: int
) -> None:
    await client.post(agent("file-write"), file="/etc/motd", content=content, encode=encode)

    assert bytes(guest.files["/etc/motd"]) == b"planted-content"
    assert (await last(client))["parameters"] == {
        "vmid": "100",
        "file": "/etc/motd",
        "content-size": 15,
        "content-sha256": hashlib.sha256(b"planted-content").hexdigest(),
        "encode": encode,
    }


async def test_a_file_that_is_read_is_recorded_once_a_minute(client: Client, guest: FakeGuest) -> None:
    guest.files |= {"/etc/hostname": bytearray(b"web\n"), "/etc/motd": bytearray(b"hello")}
    await client.get(agent("file-read"), file="/etc/hostname")
    await until_recorded(client, "/etc/hostname")
    record = await last(client)
    for offset in (0, 1, 2):
        await client.get(agent("file-read"), file="/etc/hostname", offset=offset)
    await client.get(agent("file-read"), file="/etc/motd")
    await until_recorded(client, "/etc/motd")
    records = (await client.get(AUDIT)).data

    assert record["parameters"] == {"vmid": "100", "file": "/etc/hostname"}
    assert (record["subject"], record["status"], record["result"]) == ("root@pam!admin", 200, "OK, 4 bytes")
    assert [one["parameters"].get("file") for one in records].count("/etc/hostname") == 1


async def until_recorded(client: Client, file: str) -> None:
    """A read does not wait for its record."""
    async with asyncio.timeout(10):
        while (await last(client))["parameters"].get("file") != file:
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("guest")
async def test_a_password_leaves_only_the_name_of_its_user(client: Client) -> None:
    await client.post(agent("set-user-password"), username="labuser", password="planted-password")

    assert (await last(client))["parameters"] == {"vmid": "100", "username": "labuser"}


async def test_a_change_of_access_is_recorded(client: Client) -> None:
    await client.post(USERS, userid="new@pve", password="planted-password", comment="hello")

    record = await last(client)

    assert record["endpoint"] == "POST /access/users"
    assert record["parameters"] == {"userid": "new@pve", "comment": "hello"}
    assert "vmid" not in record


async def test_a_refusal_is_recorded_whatever_was_asked_for(server: Serving, client: Client) -> None:
    refused = await caller(server, "eve@pve").get(agent("get-osinfo"))
    record = await last(client)

    assert (refused.status, record["status"]) == (403, 403)
    assert record["subject"] == "eve@pve!tok"
    assert record["result"] == "Permission check failed (/vms/100, VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)"


@pytest.mark.parametrize(
    ("name", "form", "size"),
    [("exec", "command=cat&input-data=%ff%fe", 2), ("file-write", "file=/x&content=%e2%82%ac%ff", 4)],
)
async def test_a_call_with_bytes_that_are_no_text_is_refused_and_recorded(
    client: Client, name: str, form: str, size: int
) -> None:
    refused = await client.send(client.request("POST", agent(name), form.encode()))
    record = await last(client)

    assert (refused.status, record["status"]) == (400, 400)
    assert size in (record["parameters"].get("input-data-size"), record["parameters"].get("content-size"))


async def test_no_parameter_is_too_deep_or_too_long_for_a_record(server: Serving, client: Client) -> None:
    deep: list[Any] = []
    for _ in range(700):
        deep = [deep]
    for command, shown in ((deep, ["list"]), (["x" * 3000] * 100, ["x" * 2000 + "…"] * 4 + ["…"])):
        refused = await caller(server, "eve@pve").post(agent("exec"), command=command)
        record = await last(client)

        assert (refused.status, record["status"]) == (403, 403)
        assert record["parameters"] == {"vmid": "100", "command": shown}


@pytest.mark.parametrize("name", ["since", "until", "vmid", "after"])
async def test_no_number_is_too_large_to_look_for(client: Client, name: str) -> None:
    found = (await client.get(f"{AUDIT}?{name}={10**30}")).data

    assert bool(found) == (name == "until")


@contextlib.asynccontextmanager
async def in_memory(endpoints: Sequence[Endpoint] = tuple(ENDPOINTS)) -> AsyncIterator[tuple[Gateway, MemoryStore]]:
    """A gateway without a VM, for the administrator, and its store, in which all is written at the end."""
    store = MemoryStore([User("root@pam"), Token("root@pam", "admin", secret_hash(SECRET), privsep=False)])
    inventory, writer = Inventory("pve1"), AuditWriter(store)
    yield Gateway(inventory, Access(store), AuditRecorder(writer), endpoints), store
    await writer.close()
    await inventory.close()


def request(method: str, path: str, send: Callable[[Response], Awaitable[None]]) -> Request:
    name, _, value = authorization("root@pam", "admin").partition(": ")
    return Request(method, path, {name.lower(): value}, send)


async def test_a_call_that_failed_as_nobody_expected_is_recorded() -> None:
    async def failing(*_: object) -> object:
        raise RuntimeError("unexpected")

    taken: list[Response] = []

    async def take(response: Response) -> None:
        taken.append(response)

    async with in_memory([replace(fsfreeze_thaw, function=failing)]) as (gateway, store):
        await gateway(request("POST", agent("fsfreeze-thaw"), take))

    (record,), (response,) = await store.audit(), taken
    assert (response.status, record.status, record.result) == (500, 500, "internal error")


async def test_a_caller_that_leaves_when_all_is_done_leaves_one_record() -> None:
    async def left(_: Response) -> None:
        raise asyncio.CancelledError

    async with in_memory() as (gateway, store):
        with pytest.raises(asyncio.CancelledError):
            await gateway(request("DELETE", f"{USERS}/ghost@pve", left))

    (record,) = await store.audit()
    assert (record.status, record.result) == (500, "no such user ('ghost@pve')")


async def test_a_kill_leaves_no_effect_without_a_record() -> None:
    """In the middle of calls: whatever reached the guest had a record before."""
    for _ in range(5):
        async with (
            Serving.of(site(vm(100)), killed=True) as server,
            FakeGuest(server.folder / "100.qga", replies=dict(REPLIES)) as guest,
        ):
            client = Client(server)
            calls = [asyncio.create_task(client.post(agent("exec"), command=f"c{number}")) for number in range(60)]
            await until(lambda: guest.names().count("guest-exec") > 5, 20)
            server.signal(signal.SIGKILL)
            await server.process.wait()
            await asyncio.gather(*calls, return_exceptions=True)
            store = await SqliteStore.open(server.folder / "state" / STORE)
            records = await store.audit(AuditFilter(vmid=100))
            await store.close()
            done = {one["arguments"]["path"] for one in guest.received if one["execute"] == "guest-exec"}

        assert done <= {record.parameters["command"] for record in records}
        assert {record.status for record in records} <= {BEGUN, 200}


async def test_calls_that_a_kill_broke_off_are_counted_at_the_next_start() -> None:
    async with (
        Serving.of(site(vm(100))) as server,
        FakeGuest(server.folder / "100.qga", replies=dict(REPLIES), delay={"guest-exec": 60}) as guest,
    ):
        client = Client(server)
        call = asyncio.create_task(client.post(agent("exec"), command="broken-off"))
        await until(lambda: "guest-exec" in guest.names())
        await server.restart()
        await asyncio.gather(call, return_exceptions=True)
        found = (await client.get(AUDIT, status=BEGUN)).data

        assert "1 call had begun when the server was last ended" in server.log
        assert [(record["parameters"]["command"], record["result"]) for record in found] == [("broken-off", "begun")]


async def test_a_call_has_begun_before_it_has_an_effect_and_its_end_takes_that_place() -> None:
    seen: list[list[AuditRecord]] = []

    async def effect(*_: object) -> object:
        seen.append(await store.audit())
        return None

    async def take(_: Response) -> None:
        seen.append(await store.audit())

    async with in_memory([replace(fsfreeze_thaw, function=effect)]) as (gateway, store):
        await gateway(request("POST", agent("fsfreeze-thaw"), take))

    assert [[(record.status, record.result) for record in records] for records in seen] == [
        [(BEGUN, "begun")],
        [(200, "OK")],
    ]
    assert seen[0][0].request_id == seen[1][0].request_id
    assert seen[0][0].subject == "root@pam!admin"


async def test_what_a_full_disk_kept_out_is_written_when_there_is_room(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "RETRY", 0.01)
    monkeypatch.setattr(audit, "MOST_KEPT", 3)

    class FullDisk(MemoryStore):
        is_full = True

        async def append_audit(self, records: Sequence[AuditRecord]) -> None:
            if self.is_full:
                raise StoreError("database or disk is full")
            await super().append_audit(records)

    store = FullDisk()
    writer = AuditWriter(store)
    async with asyncio.timeout(5):
        for name, status in (("one", BEGUN), ("one", 200), ("two", 200), ("three", 200)):
            await writer.write_soon(AuditRecord(0, name, "", "", None, "", {}, status, "OK", 0))
        store.is_full = False
        while len(await store.audit()) < 2:
            await asyncio.sleep(0.01)
        await writer.write_soon(AuditRecord(0, "four", "", "", None, "", {}, 200, "OK", 0))
        await writer.close()

    assert [(record.request_id, record.status) for record in await store.audit()] == [
        ("one", 200),
        ("two", 200),
        ("four", 200),
    ]
    assert (
        "not written to the audit trail, kept until it can be (database or disk is full): AuditRecord(" in caplog.text
    )
    assert caplog.text.count("lost but for this line") == 1
    assert "3 audit records are written that could not be since" in caplog.text


async def test_what_could_never_be_written_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    writer = AuditWriter(store)
    await store.close()
    await writer.write_soon(AuditRecord(0, "one", "", "", None, "", {}, 200, "OK", 0))
    await writer.close()

    assert "never written to the audit trail: AuditRecord(time=0, request_id='one'" in caplog.text


@dataclass
class Log:
    """An audit log, and a sink, that can't write the first time."""

    written: list[str] = field(default_factory=list)
    handed_on: list[str] = field(default_factory=list)

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        self.take(self.written, records)

    def take(self, where: list[str], records: Sequence[AuditRecord]) -> None:
        where += [record.request_id for record in records]
        if len(where) == 1:
            raise ValueError("the first is one too many")


async def test_a_record_that_cannot_be_written_keeps_none_from_being_written(caplog: pytest.LogCaptureFixture) -> None:
    kept = Log()
    writer = AuditWriter(cast("AuditLog", kept), sink=partial(kept.take, kept.handed_on))
    async with asyncio.timeout(5):
        for name in ("one", "two"):
            await writer.write_soon(AuditRecord(0, name, "", "", None, "", {}, 200, "OK", 0))
        await writer.close()

    assert kept.written == kept.handed_on == ["one", "two"]
    assert "not written to the audit trail (the first is one too many)" in caplog.text


async def test_a_stranger_is_recorded_without_what_it_brought(server: Serving, client: Client) -> None:
    stranger = Client(server)
    stranger.authorization = "Authorization: PVEAPIToken=eve@pve!tok=planted-secret"
    await stranger.get(f"{agent('file-read')}?file=planted-path")

    record = await last(client)

    assert (record["status"], record["subject"], record["result"]) == (401, "", "Authentication failed!")
    assert "planted" not in json.dumps(record)


@pytest.mark.slow
@pytest.mark.parametrize(("proxies", "seen"), [('["127.0.0.0/8"]', "198.51.100.7"), ("[]", "127.0.0.1")])
async def test_the_client_of_a_trusted_proxy_is_named_in_trail_and_log_and_no_invention(
    proxies: str, seen: str
) -> None:
    async with Serving.of(site(server=f"trusted_proxies = {proxies}")) as server:
        client = Client(server)
        forwarded = "X-Forwarded-For: 203.0.113.66, 198.51.100.7"
        await client.send(client.request("POST", USERS, b"userid=x%40pve", [forwarded, "Content-Type: application/x-www-form-urlencoded"]))  # fmt: skip

        assert (await last(client))["address"] == seen
        await until(lambda: f"from={seen} subject=root@pam!admin POST" in server.log)
        assert "203.0.113.66" not in server.log


async def test_a_stranger_fills_no_log_and_how_often_it_came_is_said() -> None:
    async with Serving.of(site(server="tls = false")) as server:
        client = Client(server, tls=False)
        with contextlib.suppress(asyncio.IncompleteReadError):
            async with client.connection() as connection:
                for _ in range(500):
                    connection.send(b"GET /api2/json/version HTTP/1.1\r\n\r\n")
                    assert (await connection.answer()).status == 401
        for _ in range(100):
            await client.send(b"no request\r\n\r\n")
        await client.get("/api2/json/version")
        await server.stop()
        log = server.log

    assert log.count("from=127.0.0.1 subject=-") <= PER_ADDRESS
    assert re.search(r"5\d\d more connections and requests without a login, from 127.0.0.1 \(5\d\d\)", log)
    assert log.count("subject=root@pam!admin") == 1


@pytest.mark.slow
async def test_a_failed_login_is_recorded_with_the_name_that_was_tried(client: Client) -> None:
    await stranger(client.server).post("/api2/json/access/ticket", username="ann@pve", password="planted-password")

    record = await last(client)

    assert (record["status"], record["parameters"]) == (401, {"username": "ann@pve"})


@pytest.mark.usefixtures("guest")
async def test_a_call_that_only_reads_leaves_no_record(client: Client) -> None:
    before = await last(client)
    await client.post(agent("ping"))
    await client.get(agent("get-host-name"))

    assert await last(client) == before


async def test_a_change_that_failed_is_recorded_with_the_reason(client: Client) -> None:
    await client.post(agent("fsfreeze-freeze"))

    record = await last(client)

    assert (record["status"], record["result"]) == (500, "QEMU guest agent is not running")


async def test_a_caller_that_leaves_leaves_a_record(client: Client, guest: FakeGuest) -> None:
    guest.delay["guest-exec"] = 0.3
    async with client.connection() as connection:
        connection.send(
            client.request("POST", agent("exec"), b"command=left", ["Content-Type: application/x-www-form-urlencoded"])
        )
        async with asyncio.timeout(5):
            while "guest-exec" not in guest.names():
                await asyncio.sleep(0.01)
        connection.drop()
    async with asyncio.timeout(5):
        while (await last(client))["parameters"].get("command") != "left":
            await asyncio.sleep(0.02)

    assert (await last(client))["status"] == 499


@pytest.mark.usefixtures("guest")
async def test_records_are_found_by_each_of_their_fields(server: Serving, client: Client) -> None:
    await caller(server, "ann@pve").post(agent("fstrim"))
    whole = await last(client)
    fields = {"user": "ann@pve", "subject": "ann@pve!tok", "endpoint": whole["endpoint"], "request-id": whole["request-id"], "vmid": 100, "since": int(whole["time"]), "status": 200}  # fmt: skip

    for name, value in fields.items():
        assert whole in (await client.get(f"{AUDIT}?{urlencode({name: value})}")).data, name
    assert (await client.get(AUDIT, user="nobody@pve")).data == []
    assert [record["number"] for record in (await client.get(AUDIT, after=0, limit=2)).data] == [
        2,
        4,
    ]  # what had only begun is gone


async def test_the_trail_is_for_auditors(server: Serving) -> None:
    refused = await caller(server, "ann@pve").get(AUDIT)

    assert (refused.status, refused.reason) == (403, "Permission check failed (/nodes/pve1, Sys.Audit)")


async def test_nothing_secret_was_written_anywhere(server: Serving, client: Client) -> None:
    trail = json.dumps((await client.get(AUDIT, limit=10_000)).data)
    state = b"".join(path.read_bytes() for path in (server.folder / "state").glob(f"{STORE}*"))

    for text in (trail, server.log, state.decode("latin-1")):
        assert "planted" not in text
        assert SECRET not in text
        assert server.token.partition("=")[2] not in text


@pytest.mark.usefixtures("guest")
async def test_hundreds_of_clients_lose_no_record(client: Client) -> None:
    answers = await asyncio.gather(*(client.post(agent("exec"), command=f"many-{number}") for number in range(200)))
    commands = [record["parameters"].get("command") for record in (await client.get(AUDIT, limit=200)).data]

    assert {answer.status for answer in answers} == {200}
    assert set(commands) == {f"many-{number}" for number in range(200)}


async def test_a_kill_takes_no_record_whose_answer_was_sent() -> None:
    async with (
        Serving.of(site(vm(100)), killed=True) as server,
        FakeGuest(server.folder / "100.qga", replies=dict(REPLIES)),
    ):
        client, answered = Client(server), []

        async def call(number: int) -> None:
            if (await client.post(agent("exec"), command=f"c{number}")).status == 200:
                answered.append(f"c{number}")
                if len(answered) == 20:
                    server.signal(signal.SIGKILL)

        await asyncio.gather(*(call(number) for number in range(60)), return_exceptions=True)
        await server.process.wait()
        store = await SqliteStore.open(server.folder / "state" / STORE)
        records = await store.audit(AuditFilter(vmid=100))
        await store.close()

    assert len(answered) >= 20
    assert set(answered) <= {record.parameters["command"] for record in records}


def lines(where: str, *, commands: str = "true") -> Any:
    made = site(vm(100))

    def config(folder: Path, port: int) -> str:
        return made(folder, port) + f'[audit]\ncommands = {commands}\nlines = "{where.format(folder=folder)}"\n'

    return config


async def test_records_go_to_a_file_of_lines_too_and_hide_commands_where_that_is_wanted() -> None:
    async with Serving.of(lines("{folder}/audit.jsonl", commands="false")) as server:
        async with FakeGuest(server.folder / "100.qga", replies=dict(REPLIES)):
            await Client(server).post(agent("exec"), command="hidden")
        path = server.folder / "audit.jsonl"
        [record] = [json.loads(line) for line in path.read_text().splitlines()]
        assert path.stat().st_mode & 0o777 == 0o600

    assert record["endpoint"] == "POST /nodes/{node}/qemu/{vmid}/agent/exec"
    assert record["parameters"] == {"vmid": "100"}


async def test_records_go_to_standard_error_where_a_journal_takes_them() -> None:
    async with Serving.of(lines("stderr")) as server:
        await Client(server).post(USERS, userid="x@pve")
        found = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]

    assert [record["endpoint"] for record in found] == ["POST /access/users"]
