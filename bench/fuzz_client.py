"""Command lines, settings, targets and environments at random: `python -m bench.fuzz_client 100000`.

Each try runs the command in this process, as a user would type it, and must end with an exit code of the table and
sentences on standard error; an exception that gets out is a find, which is printed with what led to it.
"""

import contextlib
import io
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from guestwire.cli import main

CODES: Final = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 69, 74, 78, 124, 130})

ODD: Final = (
    "", " ", "-", "--", "-x", "--json", "~", "~nosuch/x", "/", ".", "..", "/dev/null", "/dev/full", "a\nb", "\x1b[31m", "\u202e", "世界", "\udcff", "é",
    "%s", "{}", "{0}", "$HOME", "`id`", "x" * 5000, "0", "-1", "1e999", "nan", "99999999999999999999", "100", "pve1/100", "web", "web:", ":x", "web:/etc/x",
    "web:relative", "C:\\x", "[bold]x[/bold]", "true", "'", '"', "\\", "\t", "a=b", "=", "A=", "=B", "https://", "unix:", "*", "null",
)  # fmt: skip
TARGETS: Final = (
    "https://127.0.0.1:9", "http://127.0.0.1:9", "unix:/no/such.qga", "unix:", "unix:/dev/null", "https://user@h", "https://h?x", "https://[::1]:9", "[::1]",
    "https://h:0", "https://h:99999", "ftp://x", "127.0.0.1:9", "https://127.0.0.1:9/x/y", "https://\udcff", "unix:/" + "x" * 200, "unix:relative.qga",
)  # fmt: skip
VARIABLES: Final = (
    "GUESTWIRE_HOST", "GUESTWIRE_TOKEN", "GUESTWIRE_TOKEN_FILE", "GUESTWIRE_USER", "GUESTWIRE_PASSWORD", "GUESTWIRE_CA", "GUESTWIRE_FINGERPRINT",
    "GUESTWIRE_PROFILE", "HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "HTTPS_PROXY", "NO_PROXY", "COLUMNS", "TERM", "EDITOR", "SSL_CERT_FILE", "TZ",
)  # fmt: skip
PROFILES: Final = (
    "", "[lab]\nhost = 5\n", "[lab]\nhost = 'https://127.0.0.1:9'\n", "not toml", "[default]\nverify = 'x'\n", "\xff", "[lab]\nnope = 1\n",
    "lab = 1\n", "[default]\nca = '~nosuch/x'\ntoken = 'x'\n", "[default]\nhost = 'unix:\\u0000'\n",
)  # fmt: skip
COMMANDS: Final = (
    "ls", "df", "hostname", "info", "ip", "osinfo", "ping", "time", "users", "vcpus", "memory", "exec", "status", "shell", "cat", "cp", "edit", "freeze",
    "thaw", "trim", "passwd", "shutdown", "suspend", "wait", "doctor", "raw", "api", "completion", "access", "audit", "mcp", "freeze-status", "timezone",
    "nosuch", "",
)  # fmt: skip
WORDS: Final = (
    "--help", "--json", "--yes", "-y", "--timeout", "--wait", "--stdin", "-i", "-t", "-e", "-w", "--detach", "-r", "--check", "--allow", "--ask", "--policy",
    "--records", "--copy-folder", "--tools", "GET", "POST", "/version", "/nodes", "user", "token", "acl", "role", "list", "add", "remove", "--host", "--profile",
    "--token-file", "--ca", "--fingerprint", "--insecure", "--version", "--state-dir", "--config", "ram", "disk", "bash", "zsh", "--vmid", "--limit",
)  # fmt: skip


class Fuzzer:
    """Makes tries from one seed; what it finds is in `finds`."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._random = random.Random(seed)  # nothing secret
        self._folder = folder
        self.codes: Counter[int] = Counter()
        self.finds: list[str] = []

    def word(self) -> str:
        """One word of a command line."""
        kind = self._random.random()
        if kind < 0.35:
            return self._random.choice(WORDS)
        if kind < 0.75:
            return self._random.choice(ODD)
        if kind < 0.85:
            return self._random.choice(TARGETS)
        return os.fsdecode(bytes(self._random.choices(range(1, 256), k=self._random.randrange(1, 12))))

    def line(self) -> list[str]:
        """A command line: options, a command, and words."""
        words: list[str] = []
        if self._random.random() < 0.8:
            words += ["--host", self._random.choice(TARGETS)]
        if self._random.random() < 0.6:  # most people write no stray options
            count = self._random.choice((0, 1, 1, 2, 2, 3))
            return [*words, self._random.choice(COMMANDS), *(self._random.choice(ODD) for _ in range(count))]
        words += [self.word() for _ in range(self._random.choice((0, 0, 0, 1, 2)))]
        words.append(self._random.choice(COMMANDS))
        return words + [self.word() for _ in range(self._random.randrange(6))]

    def environment(self) -> dict[str, str]:
        """Variables, and a folder with profiles."""
        env = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(self._folder), "XDG_STATE_HOME": str(self._folder)}
        for name in self._random.sample(VARIABLES, self._random.choice((0, 0, 1, 2, 4))):
            value = self.word().replace("\0", "")
            if self._random.random() < 0.2:
                env.pop(name, None)
            else:
                env[name] = value
        profiles = self._folder / "guestwire" / "config.toml"
        profiles.parent.mkdir(exist_ok=True)
        profiles.write_text(self._random.choice(PROFILES), "latin-1")
        profiles.chmod(self._random.choice((0o600, 0o644, 0o666)))
        return env

    def run_one(self) -> None:
        """One try."""
        words, env = self.line(), self.environment()
        # A shell on standard input, and servers, have tests of their own.
        if {"mcp", "serve"} & set(words) and "--check" not in words:
            words.append("--check")
        if "wait" in words:  # two minutes are its default
            place = words.index("wait") + 1
            words[place:place] = ["--timeout", "0.01"]
        code, errors, trace = run(words, env)
        self.codes[code] += 1
        if trace or code not in CODES or "Traceback" in errors or "Unclosed" in errors:
            self.finds.append(f"{words!r}\n{env!r}\ncode {code}\n{errors[-2000:]}\n{trace}")


def run(words: list[str], env: dict[str, str]) -> tuple[int, str, str]:
    """The exit code, standard error, and the trace of an exception that got out."""
    output, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    trace, code = "", 0
    with _replaced(words, env), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001  # that is what is looked for
            trace = traceback.format_exc()
        with contextlib.suppress(OSError, ValueError):
            errors.flush()
    said: Any = errors.buffer
    return code, said.getvalue().decode("utf-8", "replace"), trace


@contextlib.contextmanager
def _replaced(words: list[str], env: dict[str, str]) -> Iterator[None]:
    before, argv, stdin = dict(os.environ), sys.argv, sys.stdin
    with open(os.devnull) as nothing:  # noqa: PTH123
        sys.argv, sys.stdin = ["guestwire", *words], nothing
        os.environ.clear()
        os.environ.update(env)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            sys.argv, sys.stdin = argv, stdin


def fuzz(tries: int, seed: int) -> Fuzzer:
    """Makes so many tries."""
    with tempfile.TemporaryDirectory() as name:
        fuzzer = Fuzzer(seed, Path(name))
        here = Path.cwd()
        os.chdir(name)  # some words are names of files
        try:
            for number in range(1, tries + 1):
                fuzzer.run_one()
                if number % 5000 == 0:
                    print(f"{number} tries, {len(fuzzer.finds)} finds", file=sys.stderr)
        finally:
            os.chdir(here)
    return fuzzer


if __name__ == "__main__":
    count, first = (int(word) for word in (*sys.argv[1:], "1000", "1")[:2])
    found = fuzz(count, first)
    print(f"{count} tries; exit codes {dict(sorted(found.codes.items()))}; {len(found.finds)} finds")
    for find in found.finds[:20]:
        print(f"----\n{find}")
    sys.exit(bool(found.finds))
