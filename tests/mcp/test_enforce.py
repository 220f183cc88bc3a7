"""The policy's questions, asked of every parameter."""

from typing import Annotated

import pytest

from guestwire.client import connect
from guestwire.contract import Parameters, Role, parameter
from guestwire.mcp.caller import Caller
from guestwire.mcp.enforce import enforce
from guestwire.mcp.patterns import ProgramPattern
from guestwire.mcp.policy import EVERY_GUEST, Policy, Refused, Rule
from guestwire.mcp.tool import Call


class Two(Parameters, frozen=True, kw_only=True):
    """Two programs in one call."""

    first: Annotated[list[str], parameter("A program.", Role.ARGUMENTS)]
    second: Annotated[list[str], parameter("Another.", Role.ARGUMENTS)]


@pytest.mark.parametrize(("first", "second"), [("id", "true"), ("true", "id")])
async def test_each_of_two_argument_lists_is_checked(first: str, second: str) -> None:
    rule = Rule(EVERY_GUEST, frozenset(), "here", run=(ProgramPattern(("true",)),))

    async with await connect("unix:/none.qga") as host:
        call = Call(Caller(host), Policy((rule,)), rule=rule)

        with pytest.raises(Refused, match="no pattern allows these arguments"):
            await enforce(call, Two(first=[first], second=[second]))
