"""Messages that are none, and whose sender would wait for ever.

The SDK drops what is no message on standard input, and over HTTP takes a request whose id is null, a fraction or a
truth value for a notification, which nobody answers. JSON-RPC 2.0 wants an error; where the id can't be read, its id is
null.
"""

import fcntl
import json
import os
from http import HTTPStatus
from typing import Any, Final

import anyio
import mcp_types as types
from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE, RequestBodyLimitMiddleware
from mcp.shared.message import SessionMessage
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOT_JSON: Final = "this line is not JSON"
NO_MESSAGE: Final = "this is no request or notification of JSON-RPC 2.0"
BAD_ID: Final = "a request's id is a text or a whole number; a notification has none"
NO_UNICODE: Final = "a text in it is no Unicode: it has half of a surrogate pair, or a byte that is not UTF-8"


class AnsweringInput(anyio.AsyncFile[str]):
    """Standard input: lines that are no messages are answered with an error, and not handed on.

    Args:
        descriptor: of the process's standard input. It is diverted: children and libraries find nothing there.

    Attributes:
        answers: the SDK's stream of answers; set before the first line is read.
    """

    answers: Any

    def __init__(self, descriptor: int) -> None:
        own = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, descriptor)
        os.close(nothing)
        # A thread may still read from it at the end, so that it is never closed. Bytes that are not UTF-8 stay, so that
        # they are seen: with replacement characters a text would be written that nobody sent.
        super().__init__(open(own, encoding="utf-8", errors="surrogateescape", newline="\n", closefd=False))  # noqa: SIM115

    async def readline(self) -> str:
        """The next line that is a message; empty at the end."""
        while (line := await super().readline()) and (answer := answer_if_bad(line)):
            await self.answers.send(SessionMessage(answer))
        return line


class AnsweringApp:
    """An application over HTTP; requests that it would take for notifications are answered with an error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bounded = RequestBodyLimitMiddleware(self._post, DEFAULT_MAX_REQUEST_BODY_SIZE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        await (self._bounded if is_post else self._app)(scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        answer = answer_if_bad(body)
        # The SDK answers all others, after it has checked what else there is to check.
        if answer and answer.error.message in (BAD_ID, NO_UNICODE):
            text = answer.model_dump_json(by_alias=True, exclude_unset=True)
            await Response(text, HTTPStatus.BAD_REQUEST, media_type="application/json")(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)


def answer_if_bad(text: str | bytes) -> types.JSONRPCError | None:
    """The answer to what is no message, with its id where it has one; None for a message."""
    is_message = True
    try:
        message = types.jsonrpc_message_adapter.validate_json(text, by_name=False)
        if not isinstance(message, types.JSONRPCNotification):
            return None
    except ValidationError:
        is_message = False
    try:
        found = json.loads(text)  # it takes what can't be text as well, so that the id is found
    except (ValueError, RecursionError):
        return _error(types.PARSE_ERROR, NOT_JSON)
    has_id = isinstance(found, dict) and "id" in found
    number = found["id"] if has_id else None
    if has_id and not (isinstance(number, int | str) and not isinstance(number, bool) and _is_unicode(number)):
        return _error(types.INVALID_REQUEST, BAD_ID)
    if is_message:
        return None
    return _error(types.INVALID_REQUEST, NO_MESSAGE if _is_unicode(found) else NO_UNICODE, number)


def _error(code: int, message: str, number: int | str | None = None) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=number, error=types.ErrorData(code=code, message=message))


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
