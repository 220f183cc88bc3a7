"""What guests say of themselves is bounded, whatever they say."""

from typing import Any

import msgspec

from guestwire.agent.commands import TypedCommand
from guestwire.contract.guest_facts import LONGEST_TEXT, MOST, read_facts


async def test_the_zone_of_an_address_is_no_part_of_the_news() -> None:
    hostile = ["2001:db8::1%\x1b[2J", "2001:db8::2%" + "x" * 1_000_000, "fe80::1%eth0", "no address", "192.0.2.1"]
    interfaces = [
        {"name": "eth0", "ip-addresses": [{"ip-address": one, "ip-address-type": "ipv6", "prefix": 64}]}
        for one in hostile
    ]

    async def read(command: TypedCommand[Any]) -> Any:
        is_it = command.command.name == "guest-network-get-interfaces"
        return msgspec.convert(interfaces, command.answer) if is_it else None

    facts = await read_facts(read, None)

    assert facts.addresses == frozenset({"2001:db8::1", "2001:db8::2", "192.0.2.1"})


async def test_names_and_lists_have_an_end() -> None:
    async def read(command: TypedCommand[Any]) -> Any:
        if command.command.name == "guest-get-users":
            users = [{"user": f"{number}" + "x" * 10_000, "login-time": 1.0} for number in range(10_000)]
            return msgspec.convert(users, command.answer)
        if command.command.name == "guest-get-host-name":
            return msgspec.convert({"host-name": "h" * 10_000}, command.answer)
        return None

    facts = await read_facts(read, None)

    assert facts.users
    assert facts.host_name
    assert len(facts.users) == MOST
    assert {len(one) for one in (*facts.users, facts.host_name)} == {LONGEST_TEXT}
