"""Calls of `/access` and `/pools` by users of a server, as tests of several folders make them."""

import json
from urllib.parse import urlencode

from calling import Answer, Client
from persons import authorization
from serving import Serving

ACCESS = "/api2/json/access"
POOLS = "/api2/json/pools"
PASSWORD = "correct-horse-9"


class As(Client):
    """Calls as somebody."""

    def __init__(self, server: Serving, userid: str = "boss@pve", secret: str = "") -> None:
        super().__init__(server)
        self.authorization = secret or authorization(userid)

    async def call(self, method: str, path: str, /, **parameters: object) -> Answer:
        if method == "GET":
            return await self.get(f"{path}?{urlencode(parameters)}" if parameters else path)
        body = json.dumps(parameters).encode() if method != "DELETE" else None
        return await self.send(self.request(method, path, body, ["Content-Type: application/json"] if body else []))


def stranger(server: Serving) -> Client:
    """A client without credentials."""
    client = Client(server)
    client.authorization = "X-None: 1"
    return client


async def made_user(boss: As, name: str, **fields: object) -> str:
    userid = f"{name}@pve"
    assert (await boss.call("POST", f"{ACCESS}/users", userid=userid, **fields)).data is None
    return userid


async def made_token(boss: As, userid: str, name: str = "t1", **fields: object) -> As:
    """A client with a new token of the user."""
    answer = await boss.call("POST", f"{ACCESS}/users/{userid}/token/{name}", **fields)
    header = f"Authorization: PVEAPIToken={answer.data['full-tokenid']}={answer.data['value']}"
    return As(boss.server, secret=header)


async def logged_in(server: Serving, userid: str, password: str) -> tuple[str, str]:
    """A ticket, and the token that goes with it."""
    answer = await stranger(server).post(f"{ACCESS}/ticket", username=userid, password=password)
    return answer.data["ticket"], answer.data["CSRFPreventionToken"]
