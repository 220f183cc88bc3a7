"""The rights of an assistant: decided here, before anything happens, and without input or output.

A policy is a list of rules. The first whose guests match decides; the last one matches every guest.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from guestwire.contract.faces import Level
from guestwire.errors import GuestwireError
from guestwire.mcp.patterns import GuestPattern, PathPattern, ProgramPattern

EVERYTHING: Final = frozenset(Level)


def levels(words: list[str]) -> frozenset[Level]:
    """The levels that these words name; `all` is each of them.

    Raises:
        ValueError: a word names none.
    """
    found = {_level(word) for word in words if word != "all"}
    if "all" in words:
        return EVERYTHING
    return frozenset(found | {Level.READ}) if found else frozenset()


def _level(word: str) -> Level:
    try:
        return Level(word)
    except ValueError:
        raise ValueError(f"'{word}' is no level: {', '.join(level.value for level in Level)}, all") from None


class Refused(GuestwireError):
    """The policy does not allow it; nothing was sent to the guest."""

    exit_code = 6


class TooMany(Refused):
    """The caller's calls of this minute are used up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits: seconds of a call, characters of an answer, bytes of a file, calls a minute of a caller.

    `cancelled_ends`: the program of a call that is cancelled is ended, and not left running.
    """

    seconds: float = 60.0
    characters: int = 20_000
    bytes: int = 64 * 1024 * 1024
    calls_per_minute: int = 120
    cancelled_ends: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """The rights in the guests that it names.

    Attributes:
        guests: by which it is chosen.
        levels: none hides the guests.
        source: where it stands, for people: `policy.toml, line 12`.
        without: tools that are not allowed although their level is.
        ask: levels and tools for which a person is asked first.
        read: paths that may be read; None: all.
        write: paths that may be written; None: all.
        run: programs that may be run; None: all.
    """

    guests: tuple[GuestPattern, ...]
    levels: frozenset[Level]
    source: str
    without: frozenset[str] = frozenset()
    ask: frozenset[str] = frozenset()
    read: tuple[PathPattern, ...] | None = None
    write: tuple[PathPattern, ...] | None = None
    run: tuple[ProgramPattern, ...] | None = None

    def allows(self, tool: str, level: Level) -> bool:
        """True if the tool may be used at all."""
        return level in self.levels and tool not in self.without

    def asks(self, tool: str, level: Level) -> bool:
        """True if a person must say yes first."""
        return tool in self.ask or level.value in self.ask

    def check_tool(self, tool: str, level: Level) -> None:
        """Refuses a tool that is not allowed.

        Raises:
            Refused: it is not.
        """
        if tool in self.without:
            raise Refused(f"{tool} is switched off for this guest ({self.source}, without)")
        if level not in self.levels:
            raise Refused(f"{tool} needs '{level.value}', which is not allowed for this guest ({self.source}, allow)")

    def check_program(self, argv: list[str], *, has_input: bool = False, env: list[str] | None = None) -> None:
        """Refuses a program that may not be run so.

        Args:
            argv: program and arguments, each for itself.
            has_input: whether it is given standard input.
            env: names of environment variables that it is given.

        Raises:
            Refused: no pattern allows it.
        """
        if self.run is None:
            return
        fitting = [pattern for pattern in self.run if pattern.matches(argv)]
        if not fitting:
            known = "; ".join(map(str, self.run))
            raise Refused(f"no pattern allows these arguments ({self.source}, run); allowed are: {known}")
        may = any((one.input or not has_input) and set(env or ()) <= set(one.env) for one in fitting)
        if not may:
            what = "standard input" if has_input else "these environment variables"
            raise Refused(f"this program may not be given {what} ({self.source}, run)")

    def check_directory(self, cwd: str | None) -> None:
        """Refuses to choose a working directory where programs are restricted.

        Relative arguments would mean something else there.

        Raises:
            Refused: they are.
        """
        if cwd is not None and self.run is not None:
            raise Refused(f"a working directory can't be chosen where only some programs may run ({self.source}, run)")

    def check_read(self, path: str) -> None:
        """Refuses a path that may not be read; no link must be left in it.

        Raises:
            Refused: it may not.
        """
        self._check_path(self.read, "read", path)

    def check_write(self, path: str) -> None:
        """Refuses a path that may not be written; no link must be left in it.

        Raises:
            Refused: it may not.
        """
        self._check_path(self.write, "write", path)

    def _check_path(self, patterns: tuple[PathPattern, ...] | None, key: str, path: str) -> None:
        if patterns is not None and not any(pattern.matches(path) for pattern in patterns):
            allowed = ", ".join(pattern.text for pattern in patterns)
            raise Refused(f"the path leads outside of the paths that may be used ({self.source}, {key}): {allowed}")


@dataclass(frozen=True, slots=True)
class Policy:
    """All of it.

    Attributes:
        rules: the last one matches every guest.
        every: whether all tools are listed that are allowed; else those that most work needs.
        limits: of each call.
        dry_run: what would change something is shown and not done.
        copy_folders: on this side; files are copied to and from them alone.
    """

    rules: tuple[Rule, ...]
    every: bool = False
    limits: Limits = field(default_factory=Limits)
    dry_run: bool = False
    copy_folders: tuple[Path, ...] = ()

    def rule_for(self, vmid: int, name: str) -> Rule:
        """The rule that decides for a VM."""
        return next(rule for rule in self.rules if any(pattern.matches(vmid, name) for pattern in rule.guests))

    def allows_anywhere(self, tool: str, level: Level) -> bool:
        """True if any guest's rule allows the tool: one that is never allowed is not listed."""
        return any(rule.allows(tool, level) for rule in self.rules)

    def asks_anywhere(self, tool: str, level: Level) -> bool:
        """True if any guest's rule wants a person's yes: it decides for tools that are about none."""
        return any(rule.asks(tool, level) for rule in self.rules)


EVERY_GUEST: Final = (GuestPattern("*"),)


def simple_policy(allow: list[str], *, ask: list[str] | None = None, **more: object) -> Policy:
    """One rule for every guest, as the command line gives it.

    Args:
        allow: levels.
        ask: levels and tools.
        more: other attributes of `Policy`.

    Raises:
        ValueError: a word names no level.
    """
    rule = Rule(EVERY_GUEST, levels(allow), f"--allow {','.join(allow)}", ask=frozenset(ask or ()))
    return Policy((rule,), **more)  # type: ignore[arg-type]  # checked where the words are read


def unreachable(rules: Iterable[tuple[GuestPattern, ...]]) -> Iterator[tuple[int, GuestPattern]]:
    """Patterns of guests that can never decide, since an earlier rule has them: position of the rule, and pattern."""
    seen: list[GuestPattern] = []
    for position, patterns in enumerate(rules):
        for pattern in patterns:
            if any(earlier.covers(pattern) for earlier in seen):
                yield position, pattern
        seen += patterns


INTERPRETERS: Final = re.compile(
    r"((ba|da|z|k|fi|c|tc|a)?sh|busybox|env|xargs|sudo|su|doas|nohup|timeout|nice|stdbuf|setsid|strace|script|watch|at|batch|crontab|ssh"
    r"|systemd-run|chroot|unshare|nsenter|docker|podman|find|tar|rsync|git|make|less|more|man|vim?|ed|emacs|gdb|[gm]?awk|sed|perl|ruby|node"
    r"|php|lua|tclsh|expect|socat|screen|tmux|apt(-get)?|dnf|yum|rpm|dpkg|npm|pip[0-9.]*|python[0-9.]*|pwsh|powershell|cmd)(\.exe)?"
)
"""Programs that run what their arguments or their standard input say; those that come to mind, there are more."""


STEERING: Final = frozenset({
    "BASH_ENV", "EDITOR", "ENV", "GIT_SSH_COMMAND", "IFS", "LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD", "LESSOPEN", "NODE_OPTIONS", "PAGER",
    "PATH", "PERL5LIB", "PERL5OPT", "PYTHONPATH", "PYTHONSTARTUP", "RUBYOPT", "SYSTEMD_PAGER", "VISUAL",
})  # fmt: skip
"""Environment variables that name programs or code to be run."""


def unenforced(rule: Rule) -> Iterator[str]:
    """The effects that the rule can't prevent, for a person who checks a policy."""
    if Level.EXEC in rule.levels and rule.run is None:
        yield "a caller that may run any program may do everything in the guest; path rules don't hold against it"
    for pattern in rule.run or ():
        program = pattern.argv[0].rpartition("/")[2]
        if steering := STEERING.intersection(pattern.env):
            yield f"'{pattern}' may be given {', '.join(sorted(steering))}, by which any program can be run in its place"
        if pattern.has_wildcard_program:
            yield f"'{pattern}' names no one program: a shell among those that it matches may do everything in the guest"
        elif INTERPRETERS.fullmatch(program) and (pattern.input or pattern.has_wildcard):
            yield f"{program} takes commands from its arguments or its input: who may run '{pattern}' may do everything in the guest"
        elif pattern.has_rest:
            yield f"'{pattern}' takes any arguments, options too: whatever {program} can read, write or run with them is allowed"
        elif pattern.has_path_wildcard:
            yield f"'{pattern}' matches names: links that they lead to are followed by the program"
    if Level.FILES in rule.levels and rule.write is None:
        yield "a caller that may write any file may do everything in the guest, soon or at its next start"
