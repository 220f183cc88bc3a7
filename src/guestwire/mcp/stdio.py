"""Messages on standard input that are none: the SDK drops them, and their sender would wait for ever."""

from types import TracebackType
from typing import Any, Final, Self

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

REASONS: Final = {
    types.PARSE_ERROR: "this line is not JSON",
    types.INVALID_REQUEST: "this is no request or notification of JSON-RPC 2.0",
}


class AnsweringStream:
    """The messages that come; what is none is answered with an error.

    Args:
        messages: the SDK's stream of messages and exceptions; its type has no public name.
        answers: the SDK's stream of answers.
    """

    def __init__(self, messages: Any, answers: Any) -> None:
        self._messages = messages
        self._answers = answers

    async def receive(self) -> SessionMessage:
        """The next message.

        Raises:
            anyio.EndOfStream: there are no more.
        """
        while isinstance(item := await self._messages.receive(), Exception):
            await self._answers.send(SessionMessage(describe_bad_message(item)))
        message: SessionMessage = item
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._messages, name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Ends the stream."""
        await self._messages.aclose()

    async def __aenter__(self) -> Self:
        await self._messages.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        suppressed: bool | None = await self._messages.__aexit__(kind, error, trace)
        return suppressed


def describe_bad_message(error: Exception) -> types.JSONRPCError:
    """The answer to a message that can't be read, with its id where it has one."""
    found = error.errors(include_url=False, include_context=False) if isinstance(error, ValidationError) else []
    code = types.PARSE_ERROR if any(one["type"] == "json_invalid" for one in found) else types.INVALID_REQUEST
    ids = [one["input"].get("id") for one in found if isinstance(one["input"], dict)]
    number = next((one for one in ids if isinstance(one, int | str)), None)
    return types.JSONRPCError(jsonrpc="2.0", id=number, error=types.ErrorData(code=code, message=REASONS[code]))
