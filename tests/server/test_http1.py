"""Reading what a request begins with: all that HTTP allows, and nothing that another reader could take for something else."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guestwire.server import http1
from guestwire.server.http1 import MAX_HEAD, MAX_HEADERS, MAX_LINE, Head, Refusal, Response, check_beginning, parse_head

LINE = b"POST /api2/json/version?x=1 HTTP/1.1"


def head(*headers: bytes, line: bytes = LINE) -> Head:
    return parse_head(b"\r\n".join((line, *headers)))


def refused(*headers: bytes, line: bytes = LINE) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        head(*headers, line=line)
    return caught.value.code, str(caught.value)


def test_a_head_is_read() -> None:
    found = head(b"Host: x", b"Content-Length:\t5 ", b"X-Empty:", b"x-name: \xc3\xa9 \xff")

    assert (found.method, found.target, found.length) == ("POST", "/api2/json/version?x=1", 5)
    assert found.headers == {"host": "x", "content-length": "5", "x-empty": "", "x-name": "\xe9 \udcff"}


def test_a_header_that_comes_twice_is_a_list() -> None:
    assert head(b"Cookie: a=1", b"COOKIE: b=2").headers == {"cookie": "a=1, b=2"}


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"TE ,\tClose", False),
        (b"1.1", b"closed", True),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_a_connection_is_kept_as_the_client_says(version: bytes, connection: bytes, keeps: bool) -> None:
    assert head(b"Connection: " + connection, line=b"GET / HTTP/" + version).keeps is keeps


def test_white_space_after_credentials_is_kept_and_dropped_elsewhere() -> None:
    found = head(b"Authorization: PVEAPIToken=a \t", b"Cookie: a=1 \t")

    assert found.headers == {"authorization": "PVEAPIToken=a%20", "cookie": "a=1"}


@pytest.mark.parametrize(
    "line",
    [
        b"", b"GET", b"GET /", b"GET  / HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET / HTTP/", b"GET / http/1.1",
        b"GET /\tx HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\xe9 HTTP/1.1", b"G\xcbT / HTTP/1.1", b"G(T / HTTP/1.1",
        b"GET / HTTP/1.1\nX: y", b"GET / HTTP/1.1\r", b"GET / HTTP/1.10", b"\x16\x03\x01\x02",
    ],
)  # fmt: skip
def test_another_request_line_is_refused(line: bytes) -> None:
    assert refused(line=line) == (400, "bad request line")


@pytest.mark.parametrize("version", ["2.0", "0.9", "3.1"])
def test_another_version_of_the_protocol_is_named(version: str) -> None:
    assert refused(line=f"GET / HTTP/{version}".encode()) == (506, f"http protocol version {version} not supported")


@pytest.mark.parametrize(
    "header",
    [
        b"", b"X", b": y", b"X : y", b" X: y", b"\tfolded", b" folded: x", b"X: a\nY: b", b"X: a\rY: b", b"X: a\x00", b"X\x00: a", b"X: \x7f", b"X: a\x0bb",
        b"X\xe9: y", b"X(: y", b"Content-Length : 5", b"\x0bContent-Length: 5",
    ],
)  # fmt: skip
def test_another_header_is_refused(header: bytes) -> None:
    assert refused(b"Host: x", header) == (400, "bad header")


@pytest.mark.parametrize(
    "length", [b"", b"-1", b"+5", b"5, 5", b"5,5", b"0x5", b"5 5", b"1e3", b"5.0", b"\xd9\xa5", b"9" * 19]
)
def test_a_length_is_a_plain_number(length: bytes) -> None:
    assert refused(b"Content-Length: " + length) == (400, "bad Content-Length")


@pytest.mark.parametrize("second", [b"Content-Length: 5", b"content-length: 6", b"CONTENT-LENGTH:"])
def test_there_is_one_length(second: bytes) -> None:
    assert refused(b"Content-Length: 5", second) == (400, "bad Content-Length")


@pytest.mark.parametrize("coding", [b"chunked", b"identity", b"", b"gzip, chunked", b"\xff"])
def test_with_a_transfer_encoding_no_other_request_follows(coding: bytes) -> None:
    assert head(b"Content-Length: 5", b"transfer-Encoding: " + coding).keeps is False


def test_there_are_limits() -> None:
    longest = b"X: " + b"y" * (MAX_LINE - 3)
    long_line = b"GET /" + b"x" * (MAX_LINE - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"

    assert len(head(longest, *[b"X: y"] * (MAX_HEADERS - 1), line=long_line).headers["x"]) > MAX_LINE
    assert refused(longest + b"y") == (431, "a header is longer than 8190 bytes")
    assert refused(*[b"X: y"] * (MAX_HEADERS + 1)) == (431, "more than 64 headers")
    assert refused(line=long_line + b" ") == (414, "the URL is longer than 8190 bytes")


@pytest.mark.parametrize(
    ("beginning", "status"),
    [
        (b"", None), (b"G", None), (b"GET / HTTP/1.1", None), (b"GET / HTTP/1.1\r", None), (LINE + b"\r\nX: y", None), (b"x" * MAX_LINE, None),
        (b"GET / HTTP/1.1\n", 400), (b"\n", 400), (b"\x16\x03\x01", 400), (b"GET /\rx", 400), (b"x" * (MAX_LINE + 1), 414),
        (LINE + b"\r\n" + b"x" * MAX_HEAD, 431),
    ],
)  # fmt: skip
def test_what_can_become_no_request_is_refused_before_its_end(beginning: bytes, status: int | None) -> None:
    code = None
    try:
        check_beginning(bytearray(beginning))
    except Refusal as refusal:
        code = refusal.code

    assert code == status


PIECES = st.sampled_from([b"GET / HTTP/1.1", b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"X", b"Content-Length", b"5", b",", b"\x00", b"\xff"])  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join))
@example(b"GET / HTTP/1.1\r\nContent-Length: 5\r\n Content-Length: 6")
def test_whatever_is_read_says_the_same_when_it_is_written_again(data: bytes) -> None:
    """A proxy that writes it anew passes on what was read here: there is no second meaning."""
    try:
        found = parse_head(data)
    except Refusal:
        return
    lines = [f"{found.method} {found.target} HTTP/1.{0 if found.is_old else 1}"]
    lines += [f"{name}: {value}" for name, value in found.headers.items()]

    assert parse_head("\r\n".join(lines).encode("utf-8", "surrogateescape")) == found
    assert data.count(b"\n") == data.count(b"\r") == data.count(b"\r\n")


def test_an_answer_begins_with_its_status_and_length() -> None:
    lines = Response(404, "no such file '/x'", {"Server": "guestwire"}, b"abc").head("close").decode().split("\r\n")

    assert lines[:3] == ["HTTP/1.1 404 no such file '/x'", "Server: guestwire", "Content-Length: 3"]
    assert lines[3].startswith("Date: ")
    assert lines[4:] == ["Connection: close", "", ""]


def test_white_space_costs_no_more_the_longer_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With work in the square of it, this would take hours."""
    monkeypatch.setattr(http1, "MAX_LINE", 1 << 21)

    refused(b"A:" + b" " * (1 << 20) + b"\x01")
    assert head(b"Connection: a" + b" " * (1 << 20) + b"b").keeps
