"""The conformance check of dispatchers, without a test framework.

Each check raises `AssertionError` where a dispatcher fails.

    for check in dispatcher_checks():
        await check(make_dispatcher)

`make_dispatcher` takes a registry of probing endpoints and serves them: in this process, over HTTPS, or in any other
way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Final

from guestwire.access.checks import Privileges
from guestwire.contract import ByteText, Effect, Registry, Role, VmParameters, parameter
from guestwire.contract.results import FileContent
from guestwire.errors import AccessRefused
from guestwire.stores import AuditRecord

PATH: Final = "/nodes/{node}/qemu/{vmid}/guestwire"
WITHIN: Final = 10.0
"""Seconds that a check waits for what comes by itself."""

LIMIT: Final = 0.3
"""Seconds that the endless endpoint may take."""


@dataclass(frozen=True)
class CheckedDispatcher:
    """A dispatcher that serves the probes.

    Attributes:
        call: calls method and path of a probe's record with all parameters, those of the path too; gives the result as
            JSON has it.
        status: the HTTP status of an error that a call ended with.
        records: the audit records so far; None where calls leave none.
        authorises: False where its caller may do everything.
    """

    call: Callable[[str, str, Mapping[str, Any]], Awaitable[Any]]
    status: Callable[[Exception], int]
    records: Callable[[], Awaitable[Sequence[AuditRecord]]] | None = None
    authorises: bool = False


MakeDispatcher = Callable[[Registry], AbstractAsyncContextManager[CheckedDispatcher]]
DispatcherCheck = Callable[[MakeDispatcher], Coroutine[Any, Any, None]]


class Probe(VmParameters, frozen=True, kw_only=True):
    """Parameters of a probe."""

    text: Annotated[str, parameter("A text.", Role.TEXT, max_length=100)] = ""
    secret: Annotated[str, parameter("A secret.", Role.SECRET)] | None = None
    content: Annotated[str, parameter("A file's content.", Role.CONTENT)] | None = None


class Probes:
    """Endpoints that show what a dispatcher does with them."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.running = asyncio.Event()
        self.cancelled = asyncio.Event()
        add = self.registry.endpoint

        @add("GET", f"{PATH}/echo", Probe)
        async def echo(_context: object, parameters: Probe) -> dict[str, Any]:
            """Answers with its text."""
            await asyncio.sleep(0)
            return {"text": parameters.text, "vmid": parameters.vmid}

        @add("GET", f"{PATH}/bytes", Probe)
        async def all_bytes(_context: object, _parameters: Probe) -> FileContent[ByteText]:
            """Answers with every byte."""
            return FileContent(ByteText([bytes(range(128)), bytes(range(128, 256))]), 256)

        @add("POST", f"{PATH}/change", Probe, effect=Effect.WRITES)
        async def change(_context: object, _parameters: Probe) -> None:
            """Changes nothing."""

        @add("POST", f"{PATH}/refuse", Probe, effect=Effect.WRITES)
        async def refuse(_context: object, _parameters: Probe) -> None:
            """Refuses."""
            raise AccessRefused("no such thing")

        @add("POST", f"{PATH}/break", Probe, effect=Effect.WRITES)
        async def break_down(_context: object, _parameters: Probe) -> None:
            """Has a fault of its own."""
            raise RuntimeError("planted-fault")

        @add("POST", f"{PATH}/endless", Probe, effect=Effect.WRITES, timeout=LIMIT)
        async def endless(_context: object, _parameters: Probe) -> None:
            """Never ends by itself."""
            await self._wait()

        @add("POST", f"{PATH}/wait", Probe, effect=Effect.WRITES, timeout=60)
        async def wait(_context: object, _parameters: Probe) -> None:
            """Waits to be cancelled."""
            await self._wait()

        @add("GET", f"{PATH}/guarded", Probe, check=Privileges("/vms/{vmid}", ("VM.Allocate",)))
        async def guarded(_context: object, _parameters: Probe) -> None:
            """Needs a privilege that the checked caller lacks."""

    async def _wait(self) -> None:
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


_checks: list[DispatcherCheck] = []


def dispatcher_checks() -> Sequence[DispatcherCheck]:
    """All checks; the name of each is a sentence."""
    return tuple(_checks)


def _check(check: Callable[[CheckedDispatcher, Probes], Coroutine[Any, Any, None]]) -> DispatcherCheck:
    """Registers a check, which is given a dispatcher that serves probes."""

    async def run(make_dispatcher: MakeDispatcher) -> None:
        probes = Probes()
        async with asyncio.timeout(WITHIN * 3), make_dispatcher(probes.registry) as dispatcher:
            await check(dispatcher, probes)

    run.__name__ = check.__name__
    run.__doc__ = check.__doc__
    _checks.append(run)
    return run


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise AssertionError(what)


async def _call(dispatcher: CheckedDispatcher, method: str, name: str, **given: Any) -> Any:
    return await dispatcher.call(method, f"{PATH}/{name}", {"node": "localhost", "vmid": 100, **given})


async def _failure(dispatcher: CheckedDispatcher, method: str, name: str, **given: Any) -> tuple[int, str]:
    try:
        await _call(dispatcher, method, name, **given)
    except Exception as error:  # noqa: BLE001  # each dispatcher has errors of its own
        return dispatcher.status(error), str(error)
    raise AssertionError(f"{method} {name} succeeded")


async def _records(dispatcher: CheckedDispatcher, name: str) -> list[AuditRecord]:
    records = await dispatcher.records() if dispatcher.records else []
    return [record for record in records if record.endpoint.endswith(f"/{name}")]


@_check
async def a_result_comes_back_as_json_has_it(dispatcher: CheckedDispatcher, _: Probes) -> None:
    """Results are plain objects."""
    found = await _call(dispatcher, "GET", "echo", text="grüße 世")
    _expect(found == {"text": "grüße 世", "vmid": 100}, f"the result is {found!r}")


@_check
async def bytes_come_back_one_character_each(dispatcher: CheckedDispatcher, _: Probes) -> None:
    """Texts of bytes lose none."""
    found = await _call(dispatcher, "GET", "bytes")
    _expect(found == {"content": "".join(map(chr, range(256))), "bytes-read": 256}, f"the result is {found!r}")


@_check
async def results_of_many_calls_are_never_mixed_up(dispatcher: CheckedDispatcher, _: Probes) -> None:
    """Calls run at once, and each gets its own result."""
    found = await asyncio.gather(*(_call(dispatcher, "GET", "echo", text=str(number)) for number in range(50)))
    _expect([one["text"] for one in found] == [str(number) for number in range(50)], "results were mixed up")


@_check
async def wrong_parameters_are_refused_by_name(dispatcher: CheckedDispatcher, _probes: Probes) -> None:
    """400, and the endpoint is not run."""
    status, _ = await _failure(dispatcher, "GET", "echo", text="x" * 101)
    _expect(status == 400, f"a text that is too long: {status}")  # noqa: PLR2004  # bad request


@_check
async def an_endpoints_refusal_keeps_its_words_and_is_recorded(dispatcher: CheckedDispatcher, _: Probes) -> None:
    """The audit trail has refusals, too."""
    status, text = await _failure(dispatcher, "POST", "refuse", secret="planted-secret")  # noqa: S106  # none
    _expect((status, "no such thing" in text) == (500, True), f"the refusal is {status}: {text}")
    if dispatcher.records:
        found = [(record.status, record.result) for record in await _records(dispatcher, "refuse")]
        _expect(found == [(500, "no such thing")], f"records of the refusal: {found}")


@_check
async def a_fault_of_an_endpoint_ends_its_call_alone(dispatcher: CheckedDispatcher, probes: Probes) -> None:
    """Its reason is not shown to strangers, and the next call works."""
    await _failure(dispatcher, "POST", "break")
    await a_result_of(dispatcher, probes)
    if dispatcher.records:
        found = [record.status for record in await _records(dispatcher, "break")]
        _expect(found == [500], f"records of the fault: {found}")


async def a_result_of(dispatcher: CheckedDispatcher, _: Probes) -> None:
    """A call that succeeds."""
    _expect(await _call(dispatcher, "GET", "echo", text="x"), "no result")


@_check
async def a_change_is_recorded_without_its_secrets(dispatcher: CheckedDispatcher, _: Probes) -> None:
    """Content is a size and a digest in the record, a secret nothing."""
    await _call(dispatcher, "POST", "change", text="t", secret="planted-secret", content="planted-content")  # noqa: S106  # none
    if not dispatcher.records:
        return
    (record,) = await _records(dispatcher, "change")
    _expect((record.status, record.vmid) == (200, 100), f"the record has {record.status}, {record.vmid}")
    names = {"text", "vmid", "content-size", "content-sha256"}
    _expect(record.parameters.keys() == names, f"the record has {sorted(record.parameters)}")
    _expect("planted" not in repr(record), "a secret is in the record")


@_check
async def a_call_that_reads_leaves_no_record(dispatcher: CheckedDispatcher, probes: Probes) -> None:
    """The trail is about changes and refusals."""
    await a_result_of(dispatcher, probes)
    _expect(not await _records(dispatcher, "echo"), "a read was recorded")


@_check
async def a_missing_privilege_is_refused_and_recorded(dispatcher: CheckedDispatcher, _probes: Probes) -> None:
    """403, in the trail as well."""
    if not dispatcher.authorises:
        return
    status, _ = await _failure(dispatcher, "GET", "guarded")
    _expect(status == 403, f"without the privilege: {status}")  # noqa: PLR2004  # forbidden
    if dispatcher.records:
        found = [record.status for record in await _records(dispatcher, "guarded")]
        _expect(found == [403], f"records of the refusal: {found}")


@_check
async def an_endless_call_ends_with_its_time(dispatcher: CheckedDispatcher, probes: Probes) -> None:
    """The endpoint's limit holds, and what it began is cancelled."""
    status, text = await _failure(dispatcher, "POST", "endless")
    _expect((status, "took longer than" in text) == (500, True), f"the end is {status}: {text}")
    await asyncio.wait_for(probes.cancelled.wait(), WITHIN)  # noqa: TID251  # a check is not cancelled
    if dispatcher.records:
        found = [record.status for record in await _records(dispatcher, "endless")]
        _expect(found == [500], f"records of the call: {found}")


@_check
async def a_call_that_is_cancelled_is_cancelled_to_its_end_and_recorded(
    dispatcher: CheckedDispatcher, probes: Probes
) -> None:
    """Cancelling reaches the endpoint's function."""
    call = asyncio.ensure_future(_call(dispatcher, "POST", "wait"))
    await asyncio.wait_for(probes.running.wait(), WITHIN)  # noqa: TID251  # a check is not cancelled
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    _expect(call.cancelled(), "the call was not cancelled")
    await asyncio.wait_for(probes.cancelled.wait(), WITHIN)  # noqa: TID251  # as above
    if dispatcher.records:
        async with asyncio.timeout(WITHIN):
            while not await _records(dispatcher, "wait"):  # noqa: ASYNC110  # only asking tells
                await asyncio.sleep(0.01)
        found = [record.status for record in await _records(dispatcher, "wait")]
        _expect(found == [499], f"records of the call: {found}")
