"""Endpoints of a VM as tools: those whose record has a tool view, made from the contract."""

from collections.abc import Iterable
from typing import Any, get_origin

import msgspec

from guestwire.client.errors import FreezeLost, FreezeUncertain
from guestwire.client.freezing import end_freeze, freeze, thaw
from guestwire.contract import Effect, Endpoint, Parameters, Role, rules
from guestwire.contract.guest_registry import CLIENT_ENDPOINTS
from guestwire.contract.results import Started, byte_text_fields, client_result
from guestwire.mcp.text_format import decode_output
from guestwire.mcp.tool import Call as ToolCall
from guestwire.mcp.tool import Function, GuestParameters, Registry, Tool

TEXT_FOR_GUEST = frozenset({Role.STANDARD_INPUT, Role.CONTENT, Role.SECRET})
"""Roles of texts that a guest gets as UTF-8; the API carries them as one character a byte."""


class Done(msgspec.Struct, frozen=True):
    """The call succeeded; there is no more to say."""

    done: bool = True


def endpoint_tools(endpoints: Iterable[Endpoint]) -> Registry:
    """A tool for each endpoint of a VM whose record has a tool view."""
    tools = Registry()
    undone = {endpoint.tool.undo for endpoint in endpoints if endpoint.tool}
    for endpoint in endpoints:
        if not (endpoint.tool and endpoint.is_about_guest):
            continue
        view, reads = endpoint.tool, endpoint.effect is Effect.READS
        disrupts = endpoint.effect is Effect.DISRUPTS
        answer = client_result(endpoint.returns)
        is_object = isinstance(get_origin(answer) or answer, type) and issubclass(
            get_origin(answer) or answer, msgspec.Struct
        )
        returns = (
            Done
            if answer is None
            else _with_note(answer)
            if byte_text_fields(endpoint.returns)
            else answer
            if is_object
            else msgspec.defstruct("Result", [("result", answer)], frozen=True)
        )
        tools.add(
            Tool(
                name=view.name or endpoint.name.replace("-", "_"),
                description=f"{endpoint.summary} {view.hint}".strip(),
                parameters=_parameters(endpoint),
                returns=returns,
                level=endpoint.level,
                effect=endpoint.effect,
                function=(
                    _freezing(returns)
                    if view.undo
                    else _thawing(returns)
                    if endpoint.name in undone
                    else _function(endpoint, answer, returns)
                ),
                idempotent=not disrupts if view.repeatable is None else view.repeatable,
                destroys=not reads if view.destroys is None else view.destroys,
                core=view.core,
            )
        )
    return tools


def _with_note(answer: Any) -> type[msgspec.Struct]:
    """A result with text of a guest, and a note about what of it was none."""
    fields = [
        (one.name, one.type) if one.default is msgspec.NODEFAULT else (one.name, one.type, one.default)
        for one in msgspec.structs.fields(answer)
    ]
    note = ("note", str | None, None)
    return msgspec.defstruct(
        get_origin(answer).__name__, [*fields, note], frozen=True, rename="kebab", omit_defaults=True
    )


def _parameters(endpoint: Endpoint) -> type[Parameters]:
    """The endpoint's parameters, with the guest in place of node and VMID."""
    known = rules(endpoint.parameters)
    own = [
        (field.name, field.type) if field.default is msgspec.NODEFAULT else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(endpoint.parameters)
        if f"{{{field.encode_name}}}" not in endpoint.path and not known[field.encode_name].means_nothing
    ]
    return msgspec.defstruct(
        endpoint.parameters.__name__, own, bases=(GuestParameters,), frozen=True, kw_only=True, rename="kebab"
    )  # type: ignore[return-value]  # GuestParameters is one


def _function(endpoint: Endpoint, answer: Any, returns: Any) -> Function:
    known = [
        rule
        for rule in rules(endpoint.parameters).values()
        if f"{{{rule.name}}}" not in endpoint.path and not rule.means_nothing
    ]
    texts = byte_text_fields(endpoint.returns)

    async def function(call: ToolCall, parameters: Any) -> Any:
        given = {}
        for rule in known:
            value = getattr(parameters, rule.attribute)
            is_text = rule.role in TEXT_FOR_GUEST and value is not None
            given[rule.name] = value.encode().decode("latin-1") if is_text else value
        result = await call.guest.call_endpoint(endpoint, given)
        if answer is None:
            return Done()
        if isinstance(result, Started):
            call.note_process(result.pid)
        if texts:
            decoded, notes = {}, []
            for name in texts:
                if value := getattr(result, name):
                    decoded[name], note = decode_output(value.encode("latin-1"))
                    notes += [f"{name}: {note}"] if note else []
            return returns(**(msgspec.structs.asdict(result) | decoded), note="; ".join(notes) or None)
        return result if returns is answer else returns(result)

    return function


def _freezing(returns: Any) -> Function:
    """Freezes, and keeps for the caller what was frozen; a freeze that is cancelled is thawed."""

    async def function(call: ToolCall, _: Any) -> Any:
        count = await freeze(call.guest)
        call.caller.frozen[call.guest.vm.node, call.guest.vm.vmid] = call.guest, count
        return returns(count)

    return function


def _thawing(returns: Any) -> Function:
    """Thaws, and judges whether what the caller froze was frozen until now."""

    async def function(call: ToolCall, _: Any) -> Any:
        frozen, key = call.caller.frozen, (call.guest.vm.node, call.guest.vm.vmid)
        _guest, count = frozen.get(key, (None, None))
        try:
            thawed = await end_freeze(call.guest) if count is None else await thaw(call.guest, count)
        except (FreezeLost, FreezeUncertain):
            frozen.pop(key, None)
            raise
        # After any other error it may be frozen still: then its caller's end thaws it.
        frozen.pop(key, None)
        return returns(thawed)

    return function


tools = endpoint_tools(CLIENT_ENDPOINTS)
