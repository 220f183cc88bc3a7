"""The OpenAPI document: whole, consistent, and nothing but what the registry says."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest

from guestwire import __version__
from guestwire.access.checks import Privileges
from guestwire.contract import Endpoint, rules
from guestwire.contract.openapi import SECRETS_HEADER, openapi
from guestwire.contract.registry import ENDPOINTS

DOCUMENT: Final = openapi(ENDPOINTS)
PREFIX: Final = "/api2/json"
AGENT: Final = PREFIX + "/nodes/{node}/qemu/{vmid}/agent"
OPERATIONS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    (method.upper(), path): operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
}
BY_KEY: Final = {(endpoint.method, PREFIX + endpoint.path): endpoint for endpoint in ENDPOINTS}

TYPES: Final = {"string", "integer", "boolean", "array", "object", "null", "number"}

each_endpoint = pytest.mark.parametrize("key", BY_KEY, ids=" ".join)


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in the document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from parts(item)


def found(reference: str) -> Any:
    place: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        place = place[step]
    return place


@each_endpoint
def test_each_operation_names_its_refusals_and_what_they_say(key: tuple[str, str]) -> None:
    responses = OPERATIONS[key]["responses"]

    assert responses.keys() == {"200", "400", "401", "403", "500", "501"}
    for code in ("400", "403", "500", "501"):
        reference = responses[code]["content"]["application/json"]["schema"]["$ref"]
        assert found(reference)["properties"].keys() == {"data", "message", "errors"}


def body_schemas(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    content: dict[str, Any] = operation.get("requestBody", {"content": {}})["content"]
    return {kind: media["schema"] for kind, media in content.items()}


def schemas(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schema of every parameter, wherever it stands."""
    named = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    if header := named.pop(SECRETS_HEADER, None):
        named |= header["contentSchema"]["properties"]
    body: dict[str, Any] = body_schemas(operation).get("application/json", {"properties": {}})
    return {**named, **body["properties"]}


def required(operation: dict[str, Any]) -> set[str]:
    named = {parameter["name"] for parameter in operation["parameters"] if parameter["required"]} - {SECRETS_HEADER}
    headers = (one["schema"]["contentSchema"] for one in operation["parameters"] if one["name"] == SECRETS_HEADER)
    in_header = {name for schema in headers for name in schema.get("required", ())}
    return named | in_header | set(body_schemas(operation).get("application/json", {"required": ()})["required"])


def test_it_says_what_it_describes() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert (DOCUMENT["info"]["title"], DOCUMENT["info"]["version"]) == ("guestwire", __version__)


def test_it_has_every_endpoint_and_no_other() -> None:
    assert OPERATIONS.keys() == BY_KEY.keys()


def test_it_is_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(DOCUMENT)) == DOCUMENT


def test_every_reference_leads_somewhere() -> None:
    references = {part["$ref"] for part in parts(DOCUMENT) if "$ref" in part}

    assert references
    assert all(isinstance(found(reference), dict) for reference in references)


def test_every_component_is_used() -> None:
    references = {part["$ref"].rpartition("/")[2] for part in parts(DOCUMENT) if "$ref" in part}

    assert references == DOCUMENT["components"]["schemas"].keys()


def test_every_security_requirement_is_declared() -> None:
    assert {name for requirement in DOCUMENT["security"] for name in requirement} == set(
        DOCUMENT["components"]["securitySchemes"]
    )


def test_tokens_go_into_the_authorization_header() -> None:
    scheme = DOCUMENT["components"]["securitySchemes"]["token"]

    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "Authorization")


def test_operation_ids_are_distinct_words() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", one) for one in ids)


@each_endpoint
def test_path_parameters_are_those_in_the_path_and_required(key: tuple[str, str]) -> None:
    in_path = [parameter for parameter in OPERATIONS[key]["parameters"] if parameter["in"] == "path"]

    assert {parameter["name"] for parameter in in_path} == set(re.findall(r"{(\w+)}", key[1]))
    assert all(parameter["required"] is True for parameter in in_path)


@each_endpoint
def test_all_parameters_are_there_once_and_required_where_they_are(key: tuple[str, str]) -> None:
    operation, known = OPERATIONS[key], rules(BY_KEY[key].parameters)
    in_body = body_schemas(operation).get("application/json", {"properties": {}})["properties"]

    assert len(operation["parameters"]) + len(in_body) <= len(schemas(operation)) == len(known)
    assert len({one["name"] for one in operation["parameters"]}) == len(operation["parameters"])
    assert schemas(operation).keys() == known.keys()
    assert required(operation) == {rule.name for rule in known.values() if rule.required}


@each_endpoint
def test_every_parameter_has_a_known_type_and_a_default_of_it(key: tuple[str, str]) -> None:
    kinds = {"string": str, "integer": int, "boolean": bool}
    for schema in schemas(OPERATIONS[key]).values():
        assert schema["type"] in TYPES
        assert "default" not in schema or type(schema["default"]) is kinds[schema["type"]]


@each_endpoint
def test_a_get_has_no_body_and_others_have_no_query(key: tuple[str, str]) -> None:
    operation = OPERATIONS[key]

    if key[0] == "GET":
        assert "requestBody" not in operation
    else:
        assert {parameter["in"] for parameter in operation["parameters"]} <= {"path"}


@each_endpoint
def test_a_body_is_json_or_a_form_of_the_same_shape(key: tuple[str, str]) -> None:
    bodies = body_schemas(OPERATIONS[key])

    if bodies:
        assert bodies.keys() == {"application/json", "application/x-www-form-urlencoded"}
        assert bodies["application/json"] == bodies["application/x-www-form-urlencoded"]


@each_endpoint
def test_an_answer_is_data_and_every_refusal_is_described(key: tuple[str, str]) -> None:
    responses = OPERATIONS[key]["responses"]
    schema = responses["200"]["content"]["application/json"]["schema"]

    assert schema["required"] == ["data"]
    assert responses.keys() == {"200", "400", "401", "403", "500", "501"}
    assert all(response["description"] for response in responses.values())


@each_endpoint
def test_privileges_and_effect_are_those_of_the_endpoint(key: tuple[str, str]) -> None:
    endpoint, operation = BY_KEY[key], OPERATIONS[key]
    check = endpoint.check
    expected = {"path": check.path, "anyOf": list(check.any_of)} if isinstance(check, Privileges) else None

    assert operation.get("x-privileges") == expected
    assert operation["x-effect"] == endpoint.effect.value
    assert operation["summary"] == endpoint.summary


def secrets_of(endpoint: Endpoint) -> set[str]:
    return {rule.name for rule in rules(endpoint.parameters).values() if rule.is_secret}


def test_secrets_are_known() -> None:
    secrets = {(endpoint.name, name) for endpoint in ENDPOINTS for name in secrets_of(endpoint)}

    assert secrets == {
        ("set-user-password", "password"),
        ("exec", "input-data"),
        ("file-write", "content"),
        ("file-piece", "content"),
        ("file-append", "content"),
        ("exec-capture", "input-data"),
        ("exec-capture", "env"),
        ("stream", "env"),
        ("ticket", "password"),
        ("ticket", "otp"),
        ("ticket", "tfa-challenge"),
        ("users", "password"),
        ("users", "keys"),
        ("password", "password"),
        ("password", "confirmation-password"),
    }


@each_endpoint
def test_a_secret_is_never_part_of_a_url_and_has_no_default(key: tuple[str, str]) -> None:
    operation, secrets = OPERATIONS[key], secrets_of(BY_KEY[key])

    assert secrets.isdisjoint(parameter["name"] for parameter in operation["parameters"])
    assert all("default" not in schemas(operation)[name] for name in secrets)


@pytest.mark.parametrize(
    ("key", "name", "schema"),
    [
        (("GET", AGENT), "node", {"type": "string", "format": "pve-node"}),
        (
            ("GET", AGENT),
            "vmid",
            {"type": "integer", "format": "pve-vmid", "minimum": 100, "maximum": 999999999},
        ),
        (
            ("GET", AGENT + "/file-read"),
            "count",
            {"type": "integer", "default": 16777216, "minimum": 1, "maximum": 16777216},
        ),
        (("GET", AGENT + "/file-read"), "offset", {"type": "integer", "default": 0, "minimum": 0}),
        (("GET", AGENT + "/file-read"), "decode", {"type": "boolean", "default": True}),
        (
            ("POST", AGENT + "/exec"),
            "command",
            {"type": "array", "items": {"type": "string"}, "examples": [["systemctl", "is-active", "ssh"]]},
        ),
        (("POST", AGENT + "/exec"), "input-data", {"type": "string", "maxLength": 65536}),
        (
            ("POST", AGENT + "/set-user-password"),
            "password",
            {"type": "string", "format": "password", "minLength": 5, "maxLength": 1024},
        ),
        (("POST", AGENT + "/set-user-password"), "crypted", {"type": "boolean", "default": False}),
    ],
)
def test_a_schema_says_type_default_format_limits_and_examples(
    key: tuple[str, str], name: str, schema: dict[str, Any]
) -> None:
    assert {word: value for word, value in schemas(OPERATIONS[key])[name].items() if word != "description"} == schema


def test_the_commands_of_the_old_way_are_the_endpoints_that_only_forward() -> None:
    commands = schemas(OPERATIONS["POST", AGENT])["command"]["enum"]

    assert commands == sorted(commands)
    assert {f"{AGENT}/{command}" for command in commands} <= {path for _, path in OPERATIONS}


def test_text_made_of_bytes_is_a_string() -> None:
    content = found("#/components/schemas/FileContent")["properties"]["content"]

    assert content["type"] == "string"


def test_a_result_without_a_schema_is_refused() -> None:
    class Unknown:
        pass

    with pytest.raises(TypeError):
        openapi([replace(endpoint, returns=Unknown) for endpoint in ENDPOINTS])
