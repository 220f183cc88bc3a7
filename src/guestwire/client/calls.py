"""The base of the generated methods: one call, its typed result, and the error inside an answer."""

import logging
from collections.abc import Mapping
from typing import Any, Final, get_args, get_origin

import msgspec

from guestwire.agent.results import NumberTooLarge, check_numbers
from guestwire.client.carriers.base import Carrier
from guestwire.client.errors import (
    AgentRefused,
    AgentTookTooLong,
    CallFailed,
    ErrorContext,
    NoSuchEndpoint,
    PrivilegeMissing,
)
from guestwire.contract import Effect, Endpoint
from guestwire.contract.endpoint import VM
from guestwire.contract.results import FileContent, Forwarded, client_result

log = logging.getLogger("guestwire.client")

RUNS: Final = "running"

NOT_ON_PROXMOX: Final = "Proxmox VE does not have it, but guestwire and an agent's own socket; there: {instead}"


class Calls:
    """Calls endpoints of one VM."""

    def __init__(self, carrier: Carrier, node: str, vmid: int, context: ErrorContext) -> None:
        self.context = context
        self.node = node
        self.vmid = vmid
        self._carrier = carrier

    async def raw(
        self, method: str, name: str, parameters: Mapping[str, Any] | None = None, *, repeatable: bool = False
    ) -> Any:
        """The answer of an endpoint as it came: the API's `data`. `name` is its path below the VM's, as `agent/ping`.

        Raises:
            CallFailed: see `client.errors`.
        """
        path = f"{self._path}/{name}"
        return await self._carrier.call(method, path, parameters or {}, self.context, repeatable=repeatable)

    @property
    def carrier(self) -> Carrier:
        """What carries its calls."""
        return self._carrier

    @property
    def _path(self) -> str:
        return f"/nodes/{self.node}/qemu/{self.vmid}"

    async def call(
        self,
        method: str,
        name: str,
        answer: Any,
        parameters: Mapping[str, Any],
        *,
        repeatable: bool,
        forwarded: bool = False,
        has_reply: bool = True,
        instead: str = "",
    ) -> Any:
        """A typed result; `forwarded` for endpoints that hand on the agent's answer under `result`.

        `has_reply` is False for a command that says nothing on success, as one that ends the guest; `instead` is what
        helps on a host that lacks the endpoint.

        Raises:
            AgentRefused: the agent answered with an error.
            CallFailed: see `client.errors`; also when the answer has another shape.
        """
        try:
            data = await self.raw(method, name, parameters, repeatable=repeatable)
        except AgentTookTooLong:
            # Proxmox VE waits for the answer also where a guest has none to give.
            if has_reply or not await self._has_left():
                raise
            return None
        except NoSuchEndpoint as missing:
            if instead:
                missing.advise(NOT_ON_PROXMOX.format(instead=instead))
            raise
        if forwarded:
            data = data.get("result") if isinstance(data, dict) else None
            if isinstance(data, dict) and isinstance(error := data.get("error"), dict):
                raise AgentRefused(self.context, str(error.get("class", "GenericError")), str(error.get("desc", "")))
        return None if answer is None else self._convert(name, data, answer)

    async def _has_left(self) -> bool:
        """Looks whether the VM runs no more, as after a command that suspends it; where that may not be seen, it is so."""
        try:
            found = await self.raw("GET", "status/current", repeatable=True)
        except PrivilegeMissing:
            log.warning("%s: it gave no answer, as a guest that obeys; VM.Audit lets see whether it did", self.context)
            return True
        except CallFailed:
            return False
        state = found if isinstance(found, dict) else {}
        return {RUNS} != {state.get(name, RUNS) for name in ("status", "qmpstatus")}

    def _convert(self, name: str, data: Any, answer: Any) -> Any:
        try:
            return check_numbers(msgspec.convert(data, answer, strict=False))
        except (msgspec.ValidationError, NumberTooLarge) as error:
            raise CallFailed(self.context, f"{name}: unexpected answer: {error}") from error

    async def read_bytes(self, file: str, *, offset: int, count: int) -> FileContent[bytes]:
        """A part of a file by file-read, on the shortest way that the host has: as it is, or else as base64.

        Base64 where JSON can't be helped: that takes a third less time than text of any bytes.

        Raises:
            CallFailed: as for `call`.
        """
        parameters = {"file": file, "count": count, "offset": offset, "decode": False}
        path = f"{self._path}/agent/file-read"
        data = await self._carrier.call("GET", path, parameters, self.context, repeatable=True, as_bytes=True)
        content: FileContent[bytes] = self._convert("file-read", data, FileContent[bytes])
        return content

    async def call_endpoint(self, endpoint: Endpoint, parameters: Mapping[str, Any] | None = None) -> Any:
        """The typed result of an endpoint of a VM by its record; the generated methods do the same.

        Raises:
            CallFailed: as for `call`.
        """
        is_forwarded = get_origin(endpoint.returns) is Forwarded
        return await self.call(
            endpoint.method,
            endpoint.path.removeprefix(f"{VM}/"),
            client_result(endpoint.returns),
            parameters or {},
            repeatable=endpoint.effect is Effect.READS,
            forwarded=is_forwarded,
            has_reply=get_args(endpoint.returns) != (type(None),),
            instead=endpoint.instead,
        )


def text_of_bytes(text: str) -> str:
    """The text that makes a guest get UTF-8 from the API: one character for each byte."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
