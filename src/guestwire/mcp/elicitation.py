"""Asking a person through their client, in both generations of the protocol.

Up to 2025-11-25 the server asks in the middle of a call. Since 2026-07-28 it answers the call with a question, and the
client makes the call again with the answer: a token ties both to the same tool, arguments, caller and VM, once, and for
ten minutes.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp_types import (
    CallToolRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from guestwire.mcp.gate import ApprovalRequired
from guestwire.mcp.policy import Refused

SECONDS: Final = 600
KEY: Final = "yes"
SCHEMA: Final = {
    "type": "object",
    "properties": {"confirm": {"type": "boolean", "title": "Do it"}},
    "required": ["confirm"],
}
UNABLE: Final = "a person must say yes to this, and your client can't ask; do without, or ask the operator to change the policy (ask)"


class ApprovalTokens:
    """Ties a question to its call, and to the VM that it named.

    Another VM may have the same name later.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._used: dict[str, float] = {}

    def issue(self, about: str, where: str, now: float) -> str:
        """A state that opens once, for the same call."""
        plain = f"{secrets.token_hex(8)}.{now + SECONDS:.0f}.{where.encode().hex()}"
        return f"{plain}.{self._signature(plain, about)}"

    def redeem(self, token: str, about: str, now: float) -> str | None:
        """The VM that the question named; None for a seal that is not valid.

        A seal is valid once, in time, and for this call only.
        """
        plain, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(plain, about).encode()):
            return None
        self._used = {used: end for used, end in self._used.items() if end > now}
        _, end, where = plain.split(".")
        if float(end) < now or plain in self._used:
            return None
        self._used[plain] = float(end)
        return bytes.fromhex(where).decode()

    def _signature(self, plain: str, about: str) -> str:
        return hmac.digest(self._key, f"{plain}\n{about}".encode(), "sha256").hex()


def _about(caller: str, params: CallToolRequestParams) -> str:
    """The call that a question is about, in a form that is the same only for the same call."""
    text = json.dumps([caller, params.name, params.arguments or {}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def approved_for(
    context: ServerRequestContext[Any], caller: str, params: CallToolRequestParams, tokens: ApprovalTokens
) -> str | None:
    """The VM for which this call brings a person's yes to itself; None when its protocol has no such answers.

    Raises:
        Refused: it brings a no, or an answer to something else.
    """
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return None
    where = tokens.redeem(params.request_state or "", _about(caller, params), time.time())
    if where is None or not params.input_responses:
        raise Refused("this yes is not for this call, or too old; make the call again without it")
    _require_yes(params.input_responses.get(KEY))
    return where


async def ask(
    context: ServerRequestContext[Any],
    caller: str,
    params: CallToolRequestParams,
    needed: ApprovalRequired,
    tokens: ApprovalTokens,
) -> InputRequiredResult | None:
    """Asks; returns what the client must be answered so that it asks, or None after a yes.

    Raises:
        Refused: the person said no, or the client can't ask.
    """
    session = context.session
    if not session.client_capabilities or session.client_capabilities.elicitation is None:
        raise Refused(UNABLE)
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        request = ElicitRequest(params=ElicitRequestFormParams(message=str(needed), requested_schema=SCHEMA))
        state = tokens.issue(_about(caller, params), needed.where, time.time())
        return InputRequiredResult(input_requests={KEY: request}, request_state=state)
    if not session.can_send_request:
        raise Refused(UNABLE)
    try:
        async with asyncio.timeout(SECONDS):
            _require_yes(await session.elicit_form(str(needed), SCHEMA, context.request_id))
    except TimeoutError:
        raise Refused("there was no yes in time; ask the person before you try again") from None
    return None


def _require_yes(found: object) -> None:
    """Refuses everything but a yes.

    Raises:
        Refused: it is none.
    """
    accepted = found.content if isinstance(found, ElicitResult) and found.action == "accept" else None
    if (accepted or {}).get("confirm") is not True:
        raise Refused("the person said no; do not try it another way")
