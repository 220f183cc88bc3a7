"""The policy file: TOML, read strictly.

A key that is unknown, does not compile, or could never match keeps the server from starting.

allow = ["read"]                      # for guests that no table below names
[[guest]]
guest = ["web-*", 104]
allow = ["read", "files", "exec"]
read = ["/var/log/", "/etc/nginx/**"]
run = [["systemctl", "status", "*"], { argv = ["tee", "/etc/motd"], input = true }]
ask = ["exec"]
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from guestwire.client.settings import expand_home
from guestwire.contract.faces import Level
from guestwire.mcp.patterns import GuestPattern, PathPattern, ProgramPattern
from guestwire.mcp.policy import EVERY_GUEST, Limits, Policy, Rule, levels, unreachable
from guestwire.toml import Refuse, read_toml

T = TypeVar("T")
S = TypeVar("S")


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One program with what it may be given."""

    argv: list[str]
    input: bool = False
    env: list[str] = []


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[limits]`."""

    seconds: Annotated[float, Meta(gt=0, le=3600)] = Limits().seconds
    characters: Annotated[int, Meta(ge=1000, le=1_000_000)] = Limits().characters
    bytes: Annotated[int, Meta(ge=1)] = Limits().bytes
    calls_per_minute: Annotated[int, Meta(ge=1)] = Limits().calls_per_minute
    cancelled_ends: bool = Limits().cancelled_ends


class GuestConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[guest]]`."""

    guest: list[str | Annotated[int, Meta(ge=1)]]
    allow: list[str]
    without: list[str] = []
    ask: list[str] = []
    read: list[str] | None = None
    write: list[str] | None = None
    run: list[list[str] | RunConfig] | None = None


class PolicyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    allow: list[str] = msgspec.field(default_factory=lambda: [Level.READ.value])
    ask: list[str] = []
    tools: Literal["few", "every"] = "few"
    dry_run: bool = False
    copy_folders: list[str] = []
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    guest: list[GuestConfig] = []


NEEDS: Final = {"read": Level.FILES, "write": Level.FILES, "run": Level.EXEC}
"""Which level a key restricts."""


def read_policy(path: Path, tools: Mapping[str, Level]) -> Policy:
    """Reads and checks the file.

    Args:
        path: the file.
        tools: the level of each tool, by its name.

    Raises:
        ConfigurationError: with file, line and reason.
    """
    config, refuse = read_toml(path, PolicyConfig)
    rules = [
        _rule(path, position, table, _Checked(refuse, f"guest[{position}]"), tools)
        for position, table in enumerate(config.guest)
    ]
    for position, pattern in unreachable(rule.guests for rule in rules):
        raise refuse(f"guest[{position}]", "guest", f"'{pattern.text}' can never match: an earlier [[guest]] has it")
    return Policy(
        rules=(*rules, _last_rule(path, config, _Checked(refuse, ""), tools)),
        every=config.tools == "every",
        limits=msgspec.convert(config.limits, Limits, from_attributes=True),
        dry_run=config.dry_run,
        copy_folders=tuple(_Checked(refuse, "").each("copy_folders", config.copy_folders, _folder)),
    )


class _Checked:
    """Makes parts of a rule; what can't be made is refused with its line."""

    def __init__(self, refuse: Refuse, table: str) -> None:
        self._refuse = refuse
        self._table = table

    def each(self, key: str, texts: list[S], make: Callable[[S], T]) -> list[T]:
        """The result of `make` for each."""
        return [self.one(key, text, make) for text in texts]

    def one(self, key: str, text: S, make: Callable[[S], T]) -> T:
        """The result of `make`, whose ValueError becomes the refusal."""
        try:
            return make(text)
        except ValueError as error:
            raise self._refuse(self._table, key, str(error)) from None

    def that(self, key: str, is_so: bool, why: str) -> None:  # noqa: FBT001  # reads as a sentence
        """Refuses the key unless it is so."""
        if not is_so:
            raise self._refuse(self._table, key, why)


def _rule(path: Path, position: int, table: GuestConfig, checked: _Checked, tools: Mapping[str, Level]) -> Rule:
    checked.that("guest", bool(table.guest), "names no guest, and can never match")
    allowed = checked.one("allow", table.allow, levels)
    for key, level in NEEDS.items():
        given = getattr(table, key)
        checked.that(key, given is None or level in allowed, f"can never match: '{level.value}' is not in allow")
        checked.that(
            key,
            given is None or bool(given) or key == "write",
            "an empty list allows nothing; leave the level out of allow instead",
        )
    _check_asked(table.ask, allowed, checked, tools)
    checked.each("ask", table.ask, lambda name: _not_without(name, table.without))
    checked.each("without", table.without, lambda name: _tool(name, allowed, tools))
    return Rule(
        guests=tuple(checked.each("guest", table.guest, lambda text: GuestPattern(str(text)))),
        levels=allowed,
        source=f"{path.name}, [[guest]] {position + 1}",
        without=frozenset(table.without),
        ask=frozenset(table.ask),
        read=_all("read", table.read, PathPattern, checked),
        write=_all("write", table.write, PathPattern, checked),
        run=_all("run", table.run, _program, checked),
    )  # fmt: skip


def _last_rule(path: Path, config: PolicyConfig, checked: _Checked, tools: Mapping[str, Level]) -> Rule:
    allowed = checked.one("allow", config.allow, levels)
    _check_asked(config.ask, allowed, checked, tools)
    return Rule(EVERY_GUEST, allowed, f"{path.name}, for guests that no [[guest]] names", ask=frozenset(config.ask))


def _check_asked(names: list[str], allowed: frozenset[Level], checked: _Checked, tools: Mapping[str, Level]) -> None:
    known = {**tools, **{level.value: level for level in Level}}
    for name in names:
        checked.that("ask", name in known, f"'{name}' is neither a level nor a tool")
        checked.that("ask", known[name] in allowed, f"can never match: '{known[name].value}' is not in allow")


def _not_without(name: str, without: list[str]) -> None:
    if name in without and name not in {level.value for level in Level}:
        raise ValueError(f"can never match: '{name}' is in without")


def _tool(name: str, allowed: frozenset[Level], tools: Mapping[str, Level]) -> str:
    if name not in tools:
        raise ValueError(f"there is no tool '{name}'")
    if tools[name] not in allowed:
        raise ValueError(f"can never match: {name} needs '{tools[name].value}', which is not in allow")
    return name


def _program(given: list[str] | RunConfig) -> ProgramPattern:
    if isinstance(given, RunConfig):
        return ProgramPattern(tuple(given.argv), given.input, tuple(given.env))
    return ProgramPattern(tuple(given))


def _all(key: str, texts: list[S] | None, make: Callable[[S], T], checked: _Checked) -> tuple[T, ...] | None:
    return None if texts is None else tuple(checked.each(key, texts, make))


def _folder(text: str) -> Path:
    folder = expand_home(text)
    if not folder.is_absolute() or not folder.is_dir():
        raise ValueError(f"'{text}' is no folder on this machine, named by its absolute path")
    return folder.resolve()
