"""Requests as Proxmox VE's server reads them: targets, queries, forms and JSON."""

from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire.errors import InvalidParameters
from guestwire.server import http1
from guestwire.server.http1 import Refusal, Target


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        ("/api2/json/version", Target("json", "/version", "")),
        ("/api2/json", Target("json", "/", "")),
        ("/api2/json/", Target("json", "/", "")),
        ("/api2/extjs/nodes?a=b?c", Target("extjs", "/nodes", "a=b?c")),
        ("/api2/json/a%2Fb%20c?x=%20", Target("json", "/a/b c", "x=%20")),
        ("https://host:8006/api2/json/version", Target("json", "/version", "")),
        ("HTTP://host/api2/json/version", Target("json", "/version", "")),
        ("/api2/png/version", Target("png", "/version", "")),
        ("/api2/json/x?", Target("json", "/x", "")),
    ],
)
def test_a_target_is_format_path_and_query(raw: str, target: Target) -> None:
    assert http1.target(raw) == target


@pytest.mark.parametrize(
    ("raw", "code", "text"),
    [
        ("/", 404, "no such file '/'"),
        ("", 404, "no such file ''"),
        ("/pve2/images/x.png", 404, "no such file '/pve2/images/x.png'"),
        ("/api2", 501, "no such uri"),
        ("/api2/", 501, "no such uri"),
        ("/api2/JSON/version", 501, "no such uri"),
        ("/api2json", 501, "no such uri"),
    ],
)
def test_what_is_no_target_of_the_api_is_refused(raw: str, code: int, text: str) -> None:
    with pytest.raises(Refusal) as refusal:
        http1.target(raw)

    assert (refusal.value.code, str(refusal.value)) == (code, text)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2", {"a": "1", "b": "2"}),
        ("a=1&a=2&a=3", {"a": ["1", "2", "3"]}),
        ("a=", {"a": ""}),
        ("a", {"a": None}),
        ("a=b=c", {"a": "b=c"}),
        ("&&a=1&;", {"a": "1"}),
        ("a=%20+%2B", {"a": "  +"}),
        ("%61=%E4%B8%AD", {"a": "\u4e2d"}),
        ("a=%FF", {"a": "\udcff"}),
    ],
)
def test_a_form_is_names_and_values(text: str, given: dict[str, Any]) -> None:
    assert http1.decode_form(text) == given


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
VALUES = st.text(st.characters(codec="utf-8"), max_size=20)


@given(pairs=st.dictionaries(NAMES, VALUES))
def test_what_a_client_encodes_is_decoded(pairs: dict[str, str]) -> None:
    assert http1.decode_form(urlencode(pairs)) == pairs


@given(name=NAMES, values=st.lists(VALUES, min_size=2, max_size=5))
def test_a_name_that_comes_more_than_once_is_a_list_in_order(name: str, values: list[str]) -> None:
    text = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for value in values)

    assert http1.decode_form(text) == {name: values}


@given(data=st.binary(max_size=30))
def test_any_bytes_as_a_form_are_decoded_somehow(data: bytes) -> None:
    assert isinstance(http1.decode_form(data.decode("utf-8", http1.KEEP_BYTES)), dict)


@pytest.mark.parametrize(("body", "given"), [(b"{}", {}), (b"null", {}), (b'{"a":[1,null]}', {"a": [1, None]})])
def test_a_json_object_is_parameters(body: bytes, given: dict[str, Any]) -> None:
    assert http1.decode_json(body) == given


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b'"a"', b"\xff", b'{"a":"\xff"}', b"[" * 100_000, b'{"a":}', b"true", b'{"a":1}x']
)
def test_another_body_is_a_wrong_parameter_and_its_content_is_not_repeated(body: bytes) -> None:
    with pytest.raises(InvalidParameters) as refusal:
        http1.decode_json(body)

    assert list(refusal.value.errors) == ["body"]
    assert len(refusal.value.errors["body"]) < 200
