"""What hostile callers try on `/access`: nothing of it passes, nothing of it is an error of the server's own, nothing is lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from calling import Client, agent, site, vm
from hypothesis import given, settings
from hypothesis import strategies as st
from persons import authorization, person, settling
from serving import Serving

from guestwire.contract import Effect
from guestwire.contract.parameters import rules
from guestwire.contract.registry import ENDPOINTS

SETTINGS = settings(max_examples=300, deadline=None)
ACCESS = "/api2/json/access"
PEOPLE = settling(person("boss@pve", ("/", "Administrator")), person("nobody@pve"))


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100), server="tls = false"), prepare=PEOPLE) as server:
        yield server


def caller(server: Serving, userid: str) -> Client:
    made = Client(server, tls=False)
    made.authorization = authorization(userid)
    return made


FORM = "Content-Type: application/x-www-form-urlencoded"
MANY = "&".join(f"k{number}" for number in range(95_000)).encode()


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([FORM], MANY[: 512 * 1024], 501),
        ([FORM], MANY[: 16 * 1024], 400),
        ([FORM], MANY[: 16 * 1024].replace(b"&", b";"), 400),
        (["Content-Type: application/json"], json.dumps(dict.fromkeys(map(str, range(1000)))).encode(), 400),
    ],
)
async def test_a_login_of_many_parameters_is_refused_in_fewer_bytes_than_it_has(
    server: Serving, headers: list[str], body: bytes, status: int
) -> None:
    stranger = Client(server, tls=False)
    stranger.authorization = "X: y"
    request = stranger.request("POST", f"{ACCESS}/ticket", body, headers)
    async with stranger.connection() as connection:
        connection.send(request)
        answer = await connection.answer()

    assert answer.status == status
    assert len(answer.body) + len(answer.reason) < 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_query_of_many_parameters_is_refused_before_login(server: Serving, method: str) -> None:
    stranger = Client(server, tls=False)
    stranger.authorization = "X: y"
    answer = await stranger.send(stranger.request(method, f"{ACCESS}/ticket?{'&'.join('abcdefgh' * 500)}"))

    assert (answer.status, answer.json["errors"]) == (400, {"body": "more than 64 parameters"})
    assert len(answer.body) < 200


async def test_a_refusal_names_some_of_many_unknown_parameters(server: Serving) -> None:
    boss = caller(server, "boss@pve")
    many: list[dict[str, Any]] = [{f"k{number}": 1 for number in range(900)}, {"command": [[]] * 100_000}]
    for parameters in many:
        answer = await boss.post(agent("exec"), **parameters)

        assert answer.status == 400
        assert 1 < len(answer.json["errors"]) <= 32

    answer = await boss.post(agent("exec"), **{f"k{number}": 1 for number in range(1001)})
    assert answer.json["errors"] == {"body": "more than 1000 parameters"}


NAMES = st.sampled_from(
    [
        "nobody@pve", "boss@pve", "root@pam", "nobody@pve!tok", "boss@pve!tok", "ghost@pve", "..", "{userid}", "nobody@pve/../boss@pve", "%2e%2e",
        "nobody%40pve", "NOBODY@pve", "nobody@pve\0", "nobody@pve ", "n\u043ebody@pve", "", "a@b@c", "x" * 3000, "/", "//", "'\"", "${x}", "1e9",
    ]
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = (
    NAMES
    | st.sampled_from(
        [
            "/",
            "/vms/100",
            "/vms/../",
            "/access",
            "//vms//100",
            "/vms/0100",
            "Administrator",
            "NoAccess",
            "staff",
            "0",
            "1",
            "-1",
            "Permissions.Modify",
        ]
    )
    | st.integers(-(2**70), 2**70)
    | st.booleans()
    | st.none()
    | st.lists(NAMES, max_size=3)
    | st.dictionaries(NAMES, NAMES, max_size=2)
    | st.text(max_size=20)
)
OF_ACCESS = [endpoint for endpoint in ENDPOINTS if endpoint.path.startswith(("/access", "/pools", "/nodes"))]
FREE = ("/access/ticket", "/access/domains")
OWN = ("/access/users/{userid}/token", "/access/users/{userid}/token/{tokenid}")
"""Where users may change what is their own."""

KEYS = sorted({name for endpoint in OF_ACCESS for name in rules(endpoint.parameters)})


@given(
    endpoint=st.sampled_from([one for one in OF_ACCESS if one.path not in FREE]),
    in_path=st.lists(NAMES.filter(bool), min_size=4, max_size=4),
    parameters=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5),
)
@SETTINGS
def test_nobody_changes_anything_whatever_is_sent(
    server: Serving, endpoint: Any, in_path: list[str], parameters: dict[str, Any]
) -> None:
    path = "/api2/json" + "/".join(
        quoted(in_path[position % 4]) if step.startswith("{") else step
        for position, step in enumerate(endpoint.path.split("/"))
    )
    client = caller(server, "nobody@pve")
    body = json.dumps(parameters).encode() if endpoint.method in ("POST", "PUT") else None
    answer = asyncio.run(
        client.send(client.request(endpoint.method, path, body, ["Content-Type: application/json"] if body else []))
    )

    assert "internal error" not in answer.reason
    if endpoint.effect is not Effect.READS and endpoint.path not in OWN:
        assert answer.status != 200, (answer.reason, path, parameters)


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


async def test_the_log_holds_no_error_of_the_servers_own(server: Serving) -> None:
    assert "unexpected error" not in server.log
    assert "Traceback" not in server.log


async def test_nobody_still_may_nothing_afterwards(server: Serving) -> None:
    client = caller(server, "nobody@pve")
    permissions = (await client.get(f"{ACCESS}/permissions")).data

    assert permissions == {}
    assert (await client.post(agent("ping"))).status == 403


async def test_two_userids_in_one_request_are_not_taken_for_one(server: Serving) -> None:
    client = caller(server, "nobody@pve")
    for query in ("userid=nobody@pve&userid=boss@pve", "userid=boss@pve&userid=nobody@pve"):
        body = b'{"password": "a-new-password-1"}'
        headers = ["Content-Type: application/json"]
        answer = await client.send(client.request("PUT", f"{ACCESS}/users/nobody@pve/token/x?{query}", body, headers))
        assert answer.status in (400, 403)
    conflicting = await client.send(client.request("DELETE", f"{ACCESS}/users/boss@pve/token/tok?userid=nobody@pve"))
    assert conflicting.status == 400
    assert (await caller(server, "boss@pve").get("/api2/json/version")).status == 200


async def test_of_two_who_make_the_same_user_one_is_told(server: Serving) -> None:
    boss = caller(server, "boss@pve")

    answers = await asyncio.gather(*(boss.post(f"{ACCESS}/users", userid="twin@pve") for _ in range(8)))

    assert sorted(answer.status for answer in answers) == [200] + [500] * 7
    assert {answer.reason for answer in answers} == {"OK", "create user failed: user 'twin@pve' already exists"}


async def test_changes_of_many_administrators_at_once_are_all_there(server: Serving) -> None:
    boss = caller(server, "boss@pve")
    await boss.post(f"{ACCESS}/groups", groupid="crowd")
    names = [f"u{number}@pve" for number in range(30)]

    answers = await asyncio.gather(*(boss.post(f"{ACCESS}/users", userid=name, groups="crowd") for name in names))

    assert {answer.status for answer in answers} == {200}
    assert (await boss.get(f"{ACCESS}/groups/crowd")).data["members"] == sorted(names)
