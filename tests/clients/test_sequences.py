"""What clients ask for that can't be run here, as recorded exchanges of our own making: each answer has the fields that they read."""

import asyncio
import json
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from calling import Answer, Client, site, vm
from foreign import DETAILS
from serving import Serving

from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

CLIENTS = tomllib.loads((Path(__file__).parent / "sequences.toml").read_text())["client"]
OTHER = f"""[[vm]]
vmid = 102
name = "other"
agent = "unix:{{folder}}/102.qga"
[vm.power]
start = ["{sys.executable}", "-c", "import socket; socket.socket(socket.AF_UNIX).bind('{{folder}}/102.qga')"]
shutdown = ["rm", "{{folder}}/102.qga"]
"""
"""It runs while its agent's socket is there."""

KINDS: dict[str, type | tuple[type, ...]] = {"int": int, "number": (int, float), "str": str, "list": list, "dict": dict}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    vms = (vm(100, "web") + DETAILS, vm(101, running="false"), OTHER)
    async with Serving.of(site(*vms)) as server, SandboxedAgent(server.folder / "100.qga", name="inside"):
        yield server


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client["name"])
async def test_every_answer_has_what_the_client_reads(server: Serving, client: dict[str, Any]) -> None:
    caller = Client(server)
    kept: dict[str, str] = {}
    for request in client["requests"]:
        answer = await asked(caller, request, kept)
        where = f"{request.get('get') or request.get('post')}: {answer.body.decode()[:500]}"
        assert answer.status == 200, f"{where}, {answer.reason}"
        for field in request["reads"]:
            check(answer.json["data"], field, where)
        if isinstance(answer.json["data"], dict) and "pid" in answer.json["data"]:
            kept["pid"] = str(answer.json["data"]["pid"])
        if "keep" in request:
            kept[request["keep"]] = quote(answer.json["data"])


async def asked(caller: Client, request: dict[str, Any], kept: dict[str, str]) -> Answer:
    """The answer; of a request that is repeated until a field is there, the last one."""
    async with asyncio.timeout(20):
        while True:
            answer = await sent(caller, request, kept)
            if "until" not in request or answer.status != 200 or answer.json["data"].get(request["until"]):
                return answer
            await asyncio.sleep(0.05)


async def sent(caller: Client, request: dict[str, Any], kept: dict[str, str]) -> Answer:
    method, path = ("GET", request["get"]) if "get" in request else ("POST", request["post"])
    path = "/api2/json" + re.sub(r"\{(\w+)\}", lambda name: kept[name[1]], path)
    if method == "GET":
        return await caller.send(caller.request("GET", path))
    if "json" in request:
        return await caller.send(
            caller.request("POST", path, json.dumps(request["json"]).encode(), ["Content-Type: application/json"])
        )
    body = urlencode(request["form"], doseq=True).encode()
    return await caller.send(caller.request("POST", path, body, ["Content-Type: application/x-www-form-urlencoded"]))


def check(data: Any, field: str, where: str) -> None:
    path, sign, wanted = re.fullmatch(r"([^:=]*)([:=])(.*)", field, re.DOTALL).groups()  # type: ignore[union-attr]
    optional = sign == ":" and wanted.endswith("?")
    found = list(values(data, [step for step in re.split(r"\.|(?=\[\])", path) if step], optional))
    assert found or optional, f"{field} is not in {where}"
    for value in found:
        if sign == "=":
            assert value == wanted, f"{field}: {value!r} in {where}"
        else:
            kind = KINDS[wanted.rstrip("?")]
            assert isinstance(value, kind), f"{field}: {value!r} in {where}"
            assert not isinstance(value, bool), f"{field}: {value!r} in {where}"


def values(data: Any, steps: list[str], optional: bool) -> Iterator[Any]:
    """What stands at a path; a field that one of a list lacks is a fault, unless it may be missing."""
    if not steps:
        yield data
    elif steps[0] == "[]":
        for one in data:
            yield from values(one, steps[1:], optional)
    elif steps[0] in data:
        yield from values(data[steps[0]], steps[1:], optional)
    elif not optional:
        raise AssertionError(f"{steps[0]} is not in {data}")
