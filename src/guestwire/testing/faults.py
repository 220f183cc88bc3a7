"""Misbehaviour of guests, as `Fault`s: each function returns one.

Syncs are answered honestly unless it says otherwise.
"""

import itertools
from collections.abc import Iterable

from guestwire.testing.fake import CLOSE, Action, Exchange, Fault


def on_commands(fault: Fault) -> Fault:
    """The fault, and honest answers to syncs."""
    return lambda exchange: exchange.honest if exchange.is_sync else fault(exchange)


def silent() -> Fault:
    """Never answers, not even a sync."""
    return lambda _: []


def hangs() -> Fault:
    """Answers syncs until the first command comes; from then on nothing."""
    commands: list[Exchange] = []

    def fault(exchange: Exchange) -> Iterable[Action]:
        if not exchange.is_sync:
            commands.append(exchange)
        return [] if commands else exchange.honest

    return fault


def says(data: bytes) -> Fault:
    """Answers commands with `data`."""
    return on_commands(lambda _: [data])


def garbage() -> Fault:
    """Answers everything with text that is no JSON."""
    return lambda _: [b"hello, this is not JSON\n"]


def floods(piece: bytes, count: int) -> Fault:
    """Answers commands with `piece`, `count` times."""
    return on_commands(lambda _: itertools.repeat(piece, count))


def nests(depth: int) -> Fault:
    """Answers commands with a value nested `depth` times."""

    def fault(exchange: Exchange) -> Iterable[Action]:
        return [b'{"return": ' + b"[" * depth + b"]" * depth + b', "id": %d}\n' % exchange.request["id"]]

    return on_commands(fault)


def wrong_ids(shift: int = 1) -> Fault:
    """Answers commands with another id than theirs."""
    return on_commands(lambda exchange: [b'{"return": {}, "id": %d}\n' % (exchange.request["id"] + shift)])


def half_line() -> Fault:
    """Answers commands with half an answer, and no more."""
    return on_commands(lambda exchange: [(exchange.reply or b"")[: len(exchange.reply or b"") // 2]])


def closes_at(position: int) -> Fault:
    """Hangs up after `position` bytes of an answer to a command."""
    return on_commands(lambda exchange: [(exchange.reply or b"")[:position], CLOSE])


def closes_on_sync() -> Fault:
    """Hangs up instead of answering a sync."""
    return lambda exchange: [CLOSE] if exchange.is_sync else exchange.honest


def twice() -> Fault:
    """Gives every answer to a command twice."""
    return on_commands(lambda exchange: [*exchange.honest, *exchange.honest])
