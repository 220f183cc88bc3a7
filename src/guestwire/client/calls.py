"""What the generated methods stand on: one call, its typed result, and the error inside an answer."""

from collections.abc import Mapping
from typing import Any

import msgspec

from guestwire.client.carriers.base import Carrier
from guestwire.client.errors import AgentRefused, CallFailed, Place


class Calls:
    """Calls endpoints below one VM's agent."""

    def __init__(self, carrier: Carrier, node: str, vmid: int, place: Place) -> None:
        self.place = place
        self.node = node
        self.vmid = vmid
        self._carrier = carrier
        self._path = f"/nodes/{node}/qemu/{vmid}/agent"

    async def raw(
        self, method: str, name: str, parameters: Mapping[str, Any] | None = None, *, repeatable: bool = False
    ) -> Any:
        """The answer of an endpoint below the VM's agent as it came: what the API has under `data`.

        Raises:
            CallFailed: see `client.errors`.
        """
        path = f"{self._path}/{name}".rstrip("/")
        return await self._carrier.call(method, path, parameters or {}, self.place, repeatable=repeatable)

    async def call(
        self,
        method: str,
        name: str,
        answer: Any,
        parameters: Mapping[str, Any],
        *,
        repeatable: bool,
        simple: bool = False,
    ) -> Any:
        """A typed result; `simple` for endpoints that hand on what the agent answered.

        Raises:
            AgentRefused: the agent answered with an error.
            CallFailed: see `client.errors`; also when the answer has another shape.
        """
        data = await self.raw(method, name, parameters, repeatable=repeatable)
        if simple:
            data = self._of_agent(data)
        if answer is None:
            return None
        try:
            return msgspec.convert(data, answer, strict=False)
        except msgspec.ValidationError as error:
            raise CallFailed(self.place, f"{name}: unexpected answer: {error}") from error

    def _of_agent(self, data: Any) -> Any:
        result = data.get("result") if isinstance(data, dict) else None
        if isinstance(result, dict) and isinstance(error := result.get("error"), dict):
            raise AgentRefused(self.place, str(error.get("class", "GenericError")), str(error.get("desc", "")))
        return result


def text_of_bytes(text: str) -> str:
    """What the API has to be given so that a guest gets UTF-8: one character for each byte."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
