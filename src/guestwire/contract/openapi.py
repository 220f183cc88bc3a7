"""The OpenAPI document, made from the registry."""

from collections.abc import Iterable
from typing import Any, Final, get_args, get_origin

import msgspec

import guestwire
from guestwire.access.checks import Everybody, Privileges
from guestwire.contract.endpoint import Endpoint, Kind
from guestwire.contract.guest_events import Event
from guestwire.contract.parameters import Role, Rule, rules
from guestwire.contract.results import AgentFault, Forwarded, Started
from guestwire.contract.text import ByteText

OPENAPI_VERSION: Final = "3.1.0"
PREFIX: Final = "/api2/json"
COMPONENT: Final = "#/components/schemas/{name}"

_REFUSALS: Final = {
    "400": "Parameters are wrong; `errors` names them.",
    "401": "No credentials, or bad ones.",
    "403": "The privilege is missing; `message` names it.",
    "500": "The guest or its agent is the reason; `message` says which.",
    "501": "There is no such method and path, or the body is longer than 512 KiB.",
}
"""Their bodies are of the schema `Refusal`, but for 401 and 501 of plain HTTP, which have none."""

_REFUSAL: Final = {
    "type": "object",
    "properties": {
        "data": {"type": "null"},
        "message": {"type": "string"},
        "errors": {
            "type": "object",
            "description": "By parameter, what is wrong with it.",
            "additionalProperties": {"type": "string"},
        },
    },
    "required": ["data", "message"],
}


def openapi(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document for the JSON format of the API."""
    endpoints = list(endpoints)
    (fault, *results), components = msgspec.json.schema_components(
        [AgentFault, *map(_answer, endpoints)], schema_hook=_schema_hook, ref_template=COMPONENT
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint, answer in zip(endpoints, results, strict=True):
        result = _forwarded_schema(answer, fault) if get_origin(endpoint.returns) is Forwarded else answer
        paths.setdefault(PREFIX + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, result)
    document = {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "guestwire",
            "version": guestwire.__version__,
            "description": "The guest agent API of Proxmox VE.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {"schemas": components | {"Refusal": _REFUSAL}, "securitySchemes": {"token": _TOKEN}},
    }
    # msgspec names a generic result after its arguments, too, which are the server's own affair.
    text = msgspec.json.encode(document).replace(b"_ByteText_", b"")
    return msgspec.json.decode(text)  # type: ignore[no-any-return]  # it was an object


SECRETS_HEADER: Final = "Guestwire-Secrets"

_TOKEN: Final = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "PVEAPIToken=USER@REALM!NAME=SECRET",
}


def _answer(endpoint: Endpoint) -> Any:
    """The type of the result; of a forwarded answer, the type that the agent's schema names."""
    if endpoint.kind is Kind.STREAM:  # what each of its events is
        return Event
    if endpoint.kind is Kind.PROCESS:  # what its first message is
        return Started
    return get_args(endpoint.returns)[0] if get_origin(endpoint.returns) is Forwarded else endpoint.returns


def _forwarded_schema(answer: dict[str, Any], fault: dict[str, Any]) -> dict[str, Any]:
    error = {"type": "object", "properties": {"error": fault}, "required": ["error"]}
    return {"type": "object", "properties": {"result": {"anyOf": [answer, error]}}, "required": ["result"]}


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is ByteText:
        return {"type": "string", "description": "One code point U+0000 to U+00FF for each byte."}
    raise NotImplementedError(kind)


def _operation(endpoint: Endpoint, result: dict[str, Any]) -> dict[str, Any]:
    known = rules(endpoint.parameters).values()
    in_path = [rule for rule in known if f"{{{rule.name}}}" in endpoint.path]
    others = [rule for rule in known if rule not in in_path]
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "parameters": [_parameter(rule, "path") for rule in in_path],
        "responses": _responses(result),
        "x-effect": endpoint.effect.value,
        "x-origin": endpoint.origin.value,
    }
    if isinstance(endpoint.check, Privileges):
        operation["x-privileges"] = {"path": endpoint.check.path, "anyOf": list(endpoint.check.any_of)}
    elif isinstance(endpoint.check, Everybody):
        operation["security"] = []
    else:
        operation["x-needs"] = str(endpoint.check).replace("`", "")
    if endpoint.method == "GET":
        in_header = [rule for rule in others if rule.is_private] if any(rule.is_secret for rule in others) else []
        operation["parameters"] += [_parameter(rule, "query") for rule in others if rule not in in_header]
        if in_header:
            operation["parameters"].append(_secrets_header(in_header))
    elif others:
        operation["requestBody"] = _body(others)
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    steps = [step for step in endpoint.path.split("/") if step]
    words = [step for step in steps if not step.startswith("{")]
    if steps and steps[-1].startswith("{"):
        words.append(f"by-{steps[-1].strip('{}')}")
    return "-".join([endpoint.method.lower(), *words])


def _responses(result: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"data": result}, "required": ["data"]}
    answer = {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    refusal = {"content": {"application/json": {"schema": {"$ref": COMPONENT.format(name="Refusal")}}}}
    refusals = {code: {"description": text} | ({} if code == "401" else refusal) for code, text in _REFUSALS.items()}
    return {"200": answer, **refusals}


def _parameter(rule: Rule, where: str) -> dict[str, Any]:
    return {
        "name": rule.name,
        "in": where,
        "required": rule.required,
        "description": rule.description,
        "schema": schema_of(rule),
    }


def _secrets_header(secrets: list[Rule]) -> dict[str, Any]:
    """Of a request that has no body: an address stands in logs."""
    return {
        "name": SECRETS_HEADER,
        "in": "header",
        "required": any(rule.required for rule in secrets),
        "description": "What should not stand in an address, which logs keep: an object of JSON, in base64.",
        "schema": {
            "type": "string",
            "contentEncoding": "base64",
            "contentMediaType": "application/json",
            "contentSchema": _object(secrets),
        },
    }


def _object(known: list[Rule]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {rule.name: schema_of(rule) | {"description": rule.description} for rule in known},
        "required": [rule.name for rule in known if rule.required],
        "additionalProperties": False,
    }


def _body(known: list[Rule]) -> dict[str, Any]:
    schema = _object(known)
    kinds = ("application/json", "application/x-www-form-urlencoded")
    return {"required": bool(schema["required"]), "content": {kind: {"schema": schema} for kind in kinds}}


_KEYWORDS: Final = {
    "default": "default",
    "minimum": "minimum",
    "maximum": "maximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "enum": "enum",
    "format": "format",
    "examples": "examples",
}


def schema_of(rule: Rule) -> dict[str, Any]:
    """The JSON schema of one parameter."""
    schema: dict[str, Any] = {"type": rule.kind}
    if rule.kind == "array":
        schema["items"] = {"type": "string"}
    if rule.role is Role.SECRET:
        schema["format"] = "password"
    for attribute, keyword in _KEYWORDS.items():
        if (value := getattr(rule, attribute)) is not None:
            schema[keyword] = list(value) if isinstance(value, tuple) else value
    return schema
