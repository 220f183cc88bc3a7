"""Every dispatcher passes the public conformance check: in this process, offline, over HTTP, on an agent's own socket."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guestwire.access import Subject
from guestwire.access.authentication import secret_hash
from guestwire.access.control import Access
from guestwire.addresses import UnixAddress
from guestwire.app.offline import OfflineAdmin
from guestwire.client.carriers.direct import DirectCarrier
from guestwire.client.carriers.https import HttpsCarrier
from guestwire.client.errors import CallFailed, ErrorContext
from guestwire.client.settings import Credentials, Https, Trust
from guestwire.contract import Registry
from guestwire.dispatch import Call, Pipeline, Router, parameters_given
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.errors import GuestwireError
from guestwire.inventory import Inventory, Lease
from guestwire.server import Gateway, Listener
from guestwire.stores import AuditRecord, MemoryStore, SqliteStore, Token, User
from guestwire.testing.dispatchers import CheckedDispatcher, DispatcherCheck, MakeDispatcher, dispatcher_checks

WEAK = User("weak@pve")


def status_of(error: Exception) -> int:
    return error.status if isinstance(error, GuestwireError) else 500


def path_of(template: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The path with its parameters filled in, and the others."""
    return template.format(**given), {name: value for name, value in given.items() if f"{{{name}}}" not in template}


@contextlib.asynccontextmanager
async def pipeline(registry: Registry) -> AsyncIterator[CheckedDispatcher]:
    """The pipeline itself, for a user who may do nothing."""
    store, inventory = MemoryStore([WEAK]), Inventory("pve1")
    access, writer = Access(store), AuditWriter(store)
    made = Pipeline(
        Router(registry), lambda call: Lease(inventory, access, call.subject, call.address),
        authorise=lambda call, endpoint: access.require(call.subject, endpoint.check, call.parameters),
        recorder=AuditRecorder(writer), node="pve1",
    )  # fmt: skip

    async def call(method: str, template: str, given: Any) -> Any:
        path, others = path_of(template, given)
        result = await made.call(Call(method, path, parameters_given(others), Subject(WEAK.userid)))
        return msgspec.to_builtins(result, enc_hook=str)

    try:
        yield CheckedDispatcher(call, status_of, store.audit, authorises=True)
    finally:
        await writer.close()
        await inventory.close()


@contextlib.asynccontextmanager
async def offline(registry: Registry) -> AsyncIterator[CheckedDispatcher]:
    """Offline administration, as root."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        store = await SqliteStore.open(Path(folder) / "access.db")
        writer = AuditWriter(store)
        admin = OfflineAdmin("pve1", store, AuditRecorder(writer), registry)
        try:
            yield CheckedDispatcher(admin.call, status_of, store.audit)
        finally:
            await writer.close()
            await store.close()


@contextlib.asynccontextmanager
async def http(registry: Registry) -> AsyncIterator[CheckedDispatcher]:
    """The client over HTTP, and the server behind it, for a user who may do nothing."""
    store = MemoryStore([WEAK, Token(WEAK.userid, "t", secret_hash("secret"), privsep=False)])
    inventory, writer = Inventory("pve1"), AuditWriter(store)
    listener = Listener(Gateway(inventory, Access(store), AuditRecorder(writer), list(registry)), "127.0.0.1", 0, None)
    await listener.bind()
    port = listener.start()
    carrier = HttpsCarrier(Https("http", "127.0.0.1", port), Credentials(f"{WEAK.userid}!t=secret"), Trust())

    async def call(method: str, template: str, given: Any) -> Any:
        path, others = path_of(template, given)
        return await carrier.call(method, path, others, ErrorContext("here"))

    async def records() -> list[AuditRecord]:
        return await store.audit()

    try:
        yield CheckedDispatcher(call, answered_of, records, authorises=True)
    finally:
        await carrier.close()
        await listener.stop()
        await writer.close()
        await inventory.close()


@pytest.fixture
def direct(folder: Path) -> MakeDispatcher:
    """The client on an agent's own socket, which leaves no record."""

    @contextlib.asynccontextmanager
    async def make(registry: Registry) -> AsyncIterator[CheckedDispatcher]:
        carrier = DirectCarrier(UnixAddress(folder / "none.qga"), registry)

        async def call(method: str, template: str, given: Any) -> Any:
            path, others = path_of(template, given)
            return await carrier.call(method, path, others, ErrorContext("here"))

        try:
            yield CheckedDispatcher(call, answered_of)
        finally:
            await carrier.close()

    return make


def answered_of(error: Exception) -> int:
    return error.http_status or 0 if isinstance(error, CallFailed) else 500


each_check = pytest.mark.parametrize("check", dispatcher_checks(), ids=lambda check: check.__name__)


@each_check
@pytest.mark.parametrize("make", [pipeline, offline, http])
async def test_in_this_process_offline_and_over_http(check: DispatcherCheck, make: MakeDispatcher) -> None:
    await check(make)


@each_check
async def test_on_an_agents_own_socket(check: DispatcherCheck, direct: MakeDispatcher) -> None:
    await check(direct)


async def test_a_dispatcher_that_records_no_refusals_is_found_out() -> None:
    @contextlib.asynccontextmanager
    async def forgetful(registry: Registry) -> AsyncIterator[CheckedDispatcher]:
        async with pipeline(registry) as dispatcher:

            async def records() -> list[AuditRecord]:
                assert dispatcher.records
                return [record for record in await dispatcher.records() if record.status == 200]

            yield CheckedDispatcher(dispatcher.call, dispatcher.status, records, authorises=True)

    (check,) = [one for one in dispatcher_checks() if one.__name__.startswith("an_endpoints_refusal")]
    with pytest.raises(AssertionError, match="records of the refusal"):
        await check(forgetful)
