"""One request from beginning to end, with the checks in Proxmox VE's order.

HTTP, authentication, route, conflicting path parameters, permission, node, parameters; then the endpoint's own: VM, agent.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from typing import Final

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse

from guestwire.access import Subject, credentials
from guestwire.access.checks import Everybody
from guestwire.access.control import Access
from guestwire.contract import Endpoint, openapi, rules, validate
from guestwire.contract.auditing import shown_parameters
from guestwire.contract.registry import ENDPOINTS
from guestwire.errors import Forbidden, GuestError, GuestwireError, NotAuthenticated, NotImplementedHere, UnknownNode
from guestwire.inventory import Inventory, Lease
from guestwire.server import answers, requests
from guestwire.server.audit import Trail, is_audited
from guestwire.server.ids import next_id
from guestwire.server.refusals import Refusal
from guestwire.server.router import Route, Router
from guestwire.server.strangers import Strangers
from guestwire.stores import AuditRecord

log = logging.getLogger("guestwire.requests")

OPENAPI_PATH: Final = "/api2/openapi.json"
THIS_NODE: Final = "localhost"

NOBODY: Final = Subject("")

CLIENT_LEFT: Final = 499
"""The status in the log when there was nobody left to answer."""

LONGEST_LOGGED_PATH: Final = 200
LONGEST_VMID: Final = 9


class Gateway:
    """Answers requests: a handler for aiohttp's `Server`."""

    def __init__(
        self, inventory: Inventory, access: Access, trail: Trail, endpoints: Collection[Endpoint] = tuple(ENDPOINTS)
    ) -> None:
        self._inventory = inventory
        self._access = access
        self._trail = trail
        self._strangers = Strangers()
        self._router = Router(endpoints)
        self._openapi = msgspec.json.encode(openapi(endpoints))

    async def __call__(self, request: BaseRequest) -> StreamResponse:
        """Answers one request, and logs a line about it."""
        record = _Record(request)
        try:
            response = await self._answer(request, record)
        except ConnectionError:  # in the middle of the answer
            record.write(CLIENT_LEFT)
            raise
        except Exception:
            log.exception("id=%s unexpected error", record.id)
            await self._audit(record, 500, "internal error")
            response = answers.refusal(Refusal(500, f"internal error, see the log for {record.id}"))
        except asyncio.CancelledError:
            self._note(record, CLIENT_LEFT, "the client left")
            record.write(CLIENT_LEFT)
            raise
        asyncio.get_running_loop().call_soon(record.write, response.status)  # the answer goes first
        return response

    async def _answer(self, request: BaseRequest, record: "_Record") -> StreamResponse:
        try:
            requests.check_http(request)
            target = _target(request)
            if target:
                record.found(self._router.find(request.method, target.path))
            subject = record.subject = self._who(request, record.route)
            if target is None:
                return Response(body=self._openapi, headers=answers.JSON_HEADERS)
            await _continue(request)
        except NotAuthenticated as error:
            await self._audit(record, error.status, str(error))
            return answers.refusal(error)
        except Refusal as error:
            return answers.refusal(error)
        if target.format not in answers.FORMATS:
            return answers.refusal(Refusal(501, f"no formatter for uri {target.path}, {target.format}"))
        return await self._in_format(request, target, record, subject)

    def _who(self, request: BaseRequest, route: Route | None) -> Subject:
        """Who calls; nobody, where nobody has to."""
        if route and isinstance(route.endpoint.check, Everybody):
            return NOBODY
        given = credentials(_header(request, "Cookie"), _header(request, "Authorization"))
        subject = self._access.authenticate(given)
        if given.ticket and request.method != "GET":
            self._access.check_csrf(subject, request.headers.get("CSRFPreventionToken", ""))
        return subject

    async def _in_format(
        self, request: BaseRequest, target: requests.Target, record: "_Record", subject: Subject
    ) -> StreamResponse:
        try:
            result = await self._call(request, target, record, subject)
        except GuestwireError as error:
            await self._audit(record, error.status, str(error))
            status, reason, body = answers.failure(target.format, error)
        else:
            await self._audit(record, 200, "OK")
            status, reason, body = 200, "OK", answers.success(target.format, result)
        return await answers.send(request, status, reason, body)

    async def _call(self, request: BaseRequest, target: requests.Target, record: "_Record", subject: Subject) -> object:
        route = record.route
        if route is None:
            raise NotImplementedHere(request.method, target.path)
        endpoint = route.endpoint
        given = requests.merge_path(await requests.parameters(request, target.query), route.in_path)
        record.given = given
        self._authorize(subject, endpoint, target, given)
        self._check_node(route.in_path)
        parameters = validate(endpoint.parameters, given)
        lease = Lease(self._inventory, self._access, subject, request.remote or "")
        try:
            if endpoint.is_bounded:
                return await endpoint.function(lease, parameters)
            async with asyncio.timeout(endpoint.timeout):
                return await endpoint.function(lease, parameters)
        except TimeoutError:
            raise GuestError(f"{endpoint.name} took longer than {endpoint.timeout:g} seconds") from None
        finally:
            lease.release()

    def _authorize(
        self, subject: Subject, endpoint: Endpoint, target: requests.Target, given: Mapping[str, object]
    ) -> None:
        if subject.token is not None and not endpoint.tokens:
            raise Forbidden(why=f"URI '{target.path}' not available with API token, need proper ticket.")
        self._access.require(subject, endpoint.check, given)

    async def _audit(self, record: "_Record", status: int, result: str) -> None:
        if due := self._due(record, status, result):
            await self._trail.write(due)

    def _note(self, record: "_Record", status: int, result: str) -> None:
        if due := self._due(record, status, result):
            self._trail.note(due)

    def _due(self, record: "_Record", status: int, result: str) -> AuditRecord | None:
        """What became of a call, once: what is to be said later is about its answer."""
        if record.noted or not is_audited(record.endpoint, status):
            return None
        record.noted = True
        if status == NotAuthenticated.status and not (record.subject and record.subject.user):
            left_out = self._strangers.admit(record.address, time.monotonic())
            if left_out is None:
                return None
            result = f"{result} (and {left_out} more before it)" if left_out else result
        return record.for_audit(status, result, commands=self._trail.commands)

    def _check_node(self, in_path: dict[str, str]) -> None:
        node = in_path.get("node", THIS_NODE)
        if node not in (self._inventory.node, THIS_NODE):
            raise UnknownNode(node)


def _target(request: BaseRequest) -> requests.Target | None:
    """What the request is for; None for the API's description."""
    raw = request.raw_path
    if raw.partition("?")[0] == OPENAPI_PATH and request.method == "GET":
        return None
    return requests.target(raw)


def _header(request: BaseRequest, name: str) -> str:
    """The header's value, "" when it is not there; several count as one list, as HTTP has it."""
    return ", ".join(request.headers.getall(name, ()))


async def _continue(request: BaseRequest) -> None:
    """Tells a client that waits for it to send its body."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


class _Record:
    """What log and audit trail say of one request; the query stays out of the log, for it may hold content or passwords."""

    __slots__ = ("_began", "_request", "given", "id", "noted", "route", "subject")

    def __init__(self, request: BaseRequest) -> None:
        self._request = request
        self._began = time.perf_counter()
        self.id = next_id()
        self.noted = False
        self.subject: Subject | None = None
        self.route: Route | None = None
        self.given: Mapping[str, object] = {}

    def found(self, route: Route | None) -> None:
        """What the request is for."""
        self.route = route
        self.given = route.in_path if route else {}

    @property
    def address(self) -> str:
        """The client's."""
        return self._request.remote or ""

    @property
    def endpoint(self) -> Endpoint | None:
        """What was called, when there is such a thing."""
        return self.route.endpoint if self.route else None

    def for_audit(self, status: int, result: str, *, commands: bool) -> AuditRecord:
        """The record to keep."""
        endpoint = self.endpoint
        path = endpoint.path if endpoint else self._path
        vmid = str(self.given.get("vmid", ""))
        return AuditRecord(
            time=time.time(),
            request_id=self.id,
            subject=str(self.subject or ""),
            address=self.address,
            vmid=int(vmid) if vmid.isascii() and vmid.isdigit() and len(vmid) <= LONGEST_VMID else None,
            endpoint=f"{self._request.method} {path}",
            parameters=shown_parameters(rules(endpoint.parameters) if endpoint else {}, self.given, commands=commands),
            status=status,
            result=result.partition("\n")[0][:LONGEST_LOGGED_PATH],
            duration_ms=round((time.perf_counter() - self._began) * 1000, 3),
        )

    @property
    def _path(self) -> str:
        return self._request.raw_path.partition("?")[0][:LONGEST_LOGGED_PATH]

    def write(self, status: int) -> None:
        """One line."""
        if not log.isEnabledFor(logging.INFO):
            return
        took = (time.perf_counter() - self._began) * 1000
        log.info(
            "id=%s from=%s subject=%s %s %r status=%d ms=%.1f",
            self.id, self._request.remote, self.subject if self.subject and self.subject.user else "-", self._request.method, self._path, status, took,
        )  # fmt: skip
