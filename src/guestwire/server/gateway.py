"""One HTTP request from beginning to end: authentication, then the dispatcher, then the answer in the format that was asked for.

The checks come in Proxmox VE's order: HTTP, authentication, format; the rest is the pipeline's.
"""

import asyncio
import base64
import functools
import logging
from collections.abc import AsyncGenerator, Collection
from typing import Final

import msgspec

from guestwire.access.authentication import parse_credentials
from guestwire.access.checks import Everybody
from guestwire.access.control import Access
from guestwire.contract import Endpoint, rules
from guestwire.contract.endpoint import Kind
from guestwire.contract.openapi import openapi
from guestwire.contract.registry import ENDPOINTS
from guestwire.contract.results import FileContent
from guestwire.dispatch import Call, Pipeline, Recorder, Router
from guestwire.dispatch.pipeline import ReadParameters
from guestwire.errors import (
    AgentNotRunning,
    CommandFailed,
    Forbidden,
    GuestwireError,
    InvalidParameters,
    NotAuthenticated,
    NotImplementedHere,
)
from guestwire.inventory import Inventory, Lease
from guestwire.server import answers, http1, process_socket
from guestwire.server.http1 import Refusal, Request, Response
from guestwire.server.refusal_log import RefusalLog

log = logging.getLogger("guestwire.requests")

OPENAPI_PATH: Final = "/api2/openapi.json"
METRICS_PATH: Final = "/metrics"
"""The pages beside the API."""

BEARER: Final = "Bearer "
"""What Prometheus can send, before an API token."""

SEES_METRICS: Final = ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted")

OK: Final = 200
CLIENT_LEFT: Final = 499
"""The status in the log when there was nobody left to answer."""

LONGEST_LOGGED_PATH: Final = 200

IN_PATH: Final = ("node", "vmid")
SHORTEST_HIDDEN: Final = 4
"""Characters of a parameter that is left out of the log, where it stands in an error's words."""


class Gateway:
    """Answers requests: a handler for the listener's connections.

    Args:
        inventory: the VMs.
        access: the users.
        recorder: keeps what became of calls.
        endpoints: that are served.

    Attributes:
        refusals: which lines about callers without a login are written.
    """

    gives_octets = True
    """A file is given as it is to a client that asks for that."""

    def __init__(
        self,
        inventory: Inventory,
        access: Access,
        recorder: Recorder,
        endpoints: Collection[Endpoint] = tuple(ENDPOINTS),
    ) -> None:
        self.refusals = RefusalLog()
        self._inventory = inventory
        self._access = access
        self._openapi = msgspec.json.encode(openapi(endpoints))
        self._pipeline = Pipeline(
            Router(endpoints), lambda call: Lease(inventory, access, call.subject, call.address, call.hold),
            authorise=self._authorise, recorder=recorder, node=inventory.node,
        )  # fmt: skip

    async def __call__(self, request: Request) -> None:
        """Answers one request, and logs a line about it."""
        call = Call(request.method, "", parameters_in(request, ""), address=request.address, hold=request.hold)
        try:
            response = await self._answer(request, call)
        except asyncio.CancelledError:
            self._log(request, call, CLIENT_LEFT)
            raise
        except Exception:
            log.exception("id=%s unexpected error", call.id)
            response = answers.refusal(Refusal(500, f"internal error, see the log for {call.id}"))
        try:
            await request.send(response)
        except (ConnectionError, asyncio.CancelledError):  # in the middle of the answer
            self._log(request, call, CLIENT_LEFT)
            raise
        asyncio.get_running_loop().call_soon(self._log, request, call, response.status)  # the answer goes first

    async def _answer(self, request: Request, call: Call) -> Response:
        call.path = request.target.partition("?")[0]
        try:
            http1.check_http(request)
            target = None
            if call.path not in (OPENAPI_PATH, METRICS_PATH) or request.method != "GET":
                target = http1.target(request.target)
                call.path, call.read = target.path, parameters_in(request, target.query)
                self._pipeline.resolve(call)
            self._authenticate(request, call)
            if target and not call.subject.key:
                http1.check_login_size(request)
                call.read = parameters_in(request, target.query, http1.LOGIN_MAX_PARAMETERS)
        except NotAuthenticated as error:
            await self._pipeline.record(call, error.status, str(error))
            return answers.refusal(error)
        except Refusal as error:
            return answers.refusal(error)
        if target is None:
            return await self._page(request, call)
        if target.format not in answers.FORMATS:
            return answers.refusal(Refusal(501, f"no formatter for uri {target.path}, {target.format}"))
        return await self._respond(request, call, target.format)

    async def _respond(self, request: Request, call: Call, form: str) -> Response:
        """Runs the call; its answer."""
        is_process = False
        headers: dict[str, str] = {}
        if call.route and call.route.endpoint.kind is Kind.PROCESS:
            is_process = True
            try:
                headers = process_socket.handshake(request)
            except Refusal as error:
                return answers.refusal(error)
            call.read = process_socket.read_with_secrets(request, call.route.endpoint, call.read)
        try:
            result = await self._pipeline.call(call)
        except GuestwireError as error:
            call.failure = _in_words(call, error)
            status, reason, body = answers.failure(form, error)
        else:
            if is_process:
                endpoint = call.route.endpoint if call.route else None
                assert endpoint  # noqa: S101  # it was run
                check = functools.partial(self._authorise, call, endpoint)
                socket_of = functools.partial(process_socket.ProcessSocket, process=result, check=check)
                return Response(101, "Switching Protocols", headers, upgraded=lambda wire: socket_of(wire).serve())
            if isinstance(result, AsyncGenerator):
                return Response(OK, "OK", answers.EVENT_HEADERS, answers.as_events(result), closes=True)
            is_wanted_as_is = isinstance(result, FileContent) and self.gives_octets and _accepts_octets(request)
            body = answers.octets(result) if is_wanted_as_is else answers.success(form, result)
            status, reason = 200, "OK"
        return await answers.response(request, status, reason, body)

    async def _page(self, request: Request, call: Call) -> Response:
        """What is beside the API: its description, and the series of all guests whose agents the caller may ask."""
        if call.path == OPENAPI_PATH:
            return Response(OK, "OK", answers.JSON_HEADERS, self._openapi)
        exposition = self._inventory.exposition
        if exposition is None:
            return answers.refusal(Refusal(404, "guests are not polled: [metrics] in the configuration switches it on"))
        may = self._access.may
        vmids = [vmid for vmid in sorted(exposition.vmids) if may(call.subject, f"/vms/{vmid}", SEES_METRICS)]
        page = await exposition.page(vmids, is_open="application/openmetrics-text" in request.headers.get("accept", ""))
        body = answers.Body([*page.parts], {"Content-Type": page.type, "Server": "guestwire"})
        return await answers.response(request, OK, "OK", body)

    def _authenticate(self, request: Request, call: Call) -> None:
        """Finds out who calls; nobody, where no login is needed."""
        headers = request.headers
        authorization = headers.get("authorization", "")
        if call.path == METRICS_PATH and authorization.startswith(BEARER):
            authorization = f"PVEAPIToken={authorization.removeprefix(BEARER)}"
        found = parse_credentials(headers.get("cookie", ""), authorization)
        call.has_token = bool(found.token)
        if call.route and isinstance(call.route.endpoint.check, Everybody):
            return
        call.subject = self._access.authenticate(found)
        if found.ticket and request.method != "GET":
            self._access.check_csrf(call.subject, headers.get("csrfpreventiontoken", ""))
        request.is_known = True

    def _log(self, request: Request, call: Call, status: int) -> None:
        """One line, unless its caller has no login and had many; the query stays out of it, for it may hold content or passwords."""
        is_login = status == OK and request.method == "POST"
        if not (request.is_known or is_login or self.refusals.allow(request.address)):
            return
        path = request.target.partition("?")[0][:LONGEST_LOGGED_PATH]
        log.info(
            "id=%s from=%s subject=%s %s %r status=%d ms=%.1f%s",
            call.id, request.address, call.subject.key or "-", request.method, path, status, call.milliseconds,
            f" error={call.failure}" if call.failure else "",
        )  # fmt: skip

    def _authorise(self, call: Call, endpoint: Endpoint) -> None:
        if not endpoint.tokens and call.has_token:
            raise Forbidden(why=f"URI '{call.path}' not available with API token, need proper ticket.")
        self._access.require(call.subject, endpoint.check, call.parameters)


def _in_words(call: Call, error: GuestwireError) -> str:
    """The kind of an error and its words, bounded, on one line, and without what the caller sent."""
    known = rules(call.route.endpoint.parameters) if call.route else {}
    match error:
        case InvalidParameters():
            words = ", ".join(name for name in error.errors if name in known)
        case AgentNotRunning():
            words = error.why
        case CommandFailed():
            words = error.command
        case NotImplementedHere():
            words = ""  # the line has method and path
        case _:
            words = str(error)
    # An agent may repeat what it was sent, as it was sent: passwords and content in base64.
    for name, value in call.parameters.items():
        for text in value if isinstance(value, list) else [value]:
            if name not in IN_PATH and isinstance(text, str) and len(text) >= SHORTEST_HIDDEN:
                for form in (text, base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()):
                    words = words.replace(form, "***")
    return f"{type(error).__name__} {words[:LONGEST_LOGGED_PATH]!a}" if words else type(error).__name__


def parameters_in(request: Request, query: str, most: int = http1.MAX_PARAMETERS) -> ReadParameters:
    """Reads the parameters of a request, `most` at most, when they are wanted."""
    return lambda: http1.parameters(request, query, most)


def _accepts_octets(request: Request) -> bool:
    """Whether the client wants a file as it is. Clients of Proxmox VE never name this type."""
    return request.headers.get("accept") == answers.OCTETS
