"""The formats that the endpoints' command views name: what people see of each value."""

from typing import Any

import pytest

from guestwire.cli.formats import FORMATS, print_result
from guestwire.contract.faces import Column, Facts, Line, Table
from guestwire.contract.registry import ENDPOINTS

DISK = {"name": "vda", "mountpoint": "/mnt", "total-bytes": 2048, "used-bytes": 512}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("text", "thawed", "thawed"),
        ("answers", None, "the agent answers"),
        ("yes-no", True, "yes"),
        ("size", 1536, "1.5 KiB"),
        ("zone", {"zone": "CET", "offset": 3600}, "CET +01:00"),
        ("zone", {"offset": -5400}, "unknown -01:30"),
        ("host-name", {"host-name": "web"}, "web"),
        ("addresses", [{"ip-address": "::1", "prefix": 128}], ["::1/128"]),
        ("agent-version", {"version": "7.2.0"}, "guest agent 7.2.0"),
        ("free-bytes", DISK, "1.5 KiB"),
        ("free-bytes", {"total-bytes": 1024}, "1.0 KiB"),
        ("use-percent", DISK, "25%"),
    ],
)
def test_a_format_makes_a_value_readable(name: str, value: Any, text: str | list[str]) -> None:
    assert FORMATS[name](value) == text


def test_every_view_names_formats_that_there_are() -> None:
    for endpoint in ENDPOINTS:
        match endpoint.command and endpoint.command.output:
            case Line(name):
                assert name in FORMATS
            case Table() as table:
                assert {column.format for column in table.columns} <= FORMATS.keys()
                assert not table.title or table.title in FORMATS


def test_a_table_has_its_title_and_the_rows_that_it_wants_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(
        (Column("WHERE", "mountpoint"), Column("FREE", "", "free-bytes")),
        sort="mountpoint", only="total-bytes", of="disks", title="agent-version",
    )  # fmt: skip

    print_result(table, {"version": "9", "disks": [DISK, {"mountpoint": "/proc"}, DISK | {"mountpoint": "/a"}]})

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["guest", "agent", "9"],
        ["WHERE", "FREE"],
        ["/a", "1.5", "KiB"],
        ["/mnt", "1.5", "KiB"],
    ]


def test_facts_that_are_not_there_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(Facts({"a": "first", "b": "second"}), {"b": "two\x1b"})

    assert capsys.readouterr().out.split() == ["second", "two\\x1b"]
