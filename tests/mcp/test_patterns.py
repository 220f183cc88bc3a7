"""Patterns for paths, arguments and guests."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire.mcp.patterns import GuestPattern, PathPattern, ProgramPattern


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/etc/hosts", "/etc/hosts", True),
        ("/etc/hosts", "/etc/hostsx", False),
        ("/etc/*.conf", "/etc/a.conf", True),
        ("/etc/*.conf", "/etc/x/a.conf", False),
        ("/etc/**", "/etc/x/a.conf", True),
        ("/var/log/", "/var/log/syslog", True),
        ("/var/log/", "/var/log/a/b", True),
        ("/var/log/", "/var/logs", False),
        ("/var/log/", "/var/log/../../etc/shadow", False),
        ("/var/**", "/var/x//y", False),
        ("/a/[bc]", "/a/b", True),
        ("/a/[!bc]", "/a/b", False),
        ("/a/[!b]", "/a//", False),
        ("/a?", "/ab", True),
        ("/a?", "/a/", False),
        ("/etc/nginx", "/etc/ngіnx", False),  # a Cyrillic letter
        ("/a.b", "/axb", False),
        ("/a/**", "/a/x\ny", True),
    ],
)
def test_paths(pattern: str, path: str, fits: bool) -> None:
    assert PathPattern(pattern).matches(path) is fits


@pytest.mark.parametrize("pattern", ["etc/hosts", "", "/a/../b", "/a//b", "/a/./b", "/a/[b", "/a/..", "/a\0"])
def test_a_path_that_can_never_match_or_does_not_compile_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"can never match|is no pattern"):
        PathPattern(pattern)


@pytest.mark.parametrize(
    ("argv", "given_argv", "fits"),
    [
        (("df", "-h"), ["df", "-h"], True),
        (("df", "-h"), ["df"], False),
        (("df", "-h"), ["df", "-h", "/"], False),
        (("df", "-h"), ["/tmp/df", "-h"], False),
        (("systemctl", "status", "*"), ["systemctl", "status", "nginx"], True),
        (("systemctl", "status", "*"), ["systemctl", "status", "--host=evil"], False),
        (("systemctl", "status", "*"), ["systemctl", "stop", "nginx"], False),
        (("cat", "/var/log/*"), ["cat", "/var/log/syslog"], True),
        (("cat", "/var/log/**"), ["cat", "/var/log/../../etc/shadow"], False),
        (("cat", "/var/log/*"), ["cat", "/var/log/a/b"], False),
        (("ls", "..."), ["ls"], True),
        (("ls", "..."), ["ls", "-la", "/"], True),
        (("ls", "..."), ["lsof"], False),
        (("grep", "-c", "?", "/etc/passwd"), ["grep", "-c", "x", "/etc/passwd"], True),
        (("echo", "a b"), ["echo", "a", "b"], False),
        (("echo", ".."), ["echo", ".."], True),
        (("cat", "--file=**"), ["cat", "--file=../../etc/shadow"], False),
        (("cat", "--file=*"), ["cat", "--file=.."], False),
        (("type", "C:\\logs\\*"), ["type", "C:\\logs\\..\\secret"], False),
        (("type", "C:\\logs\\*"), ["type", "C:\\logs\\a..b"], True),
    ],
)
def test_programs(argv: tuple[str, ...], given_argv: list[str], fits: bool) -> None:
    assert ProgramPattern(argv).matches(given_argv) is fits


@pytest.mark.parametrize("argv", [(), ("...",), ("ls", "...", "-l"), ("ls", "[a")])
def test_a_program_that_can_never_match_or_does_not_compile_is_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"names a program|stands at the end|is no pattern"):
        ProgramPattern(argv)


@given(st.text(min_size=1))
def test_a_wildcard_never_reaches_an_option_or_climbs(argument: str) -> None:
    fits = ProgramPattern(("p", "**")).matches(["p", argument])

    climbs = any(re.split("[=:,]", part)[-1] == ".." for part in re.split(r"[/\\]", argument))
    assert fits is not (argument.startswith("-") or climbs)


@pytest.mark.parametrize(
    ("pattern", "vmid", "name", "fits"),
    [
        ("*", 100, "a/b", True),
        ("web-*", 100, "web-1", True),
        ("web-*", 100, "db-1", False),
        ("100", 100, "x", True),
        ("100", 101, "100", False),
        ("1*", 100, "x", False),
    ],
)
def test_guests(pattern: str, vmid: int, name: str, fits: bool) -> None:
    assert GuestPattern(pattern).matches(vmid, name) is fits


@pytest.mark.parametrize(
    ("pattern", "other", "covers"),
    [
        ("*", "1*", True),
        ("*", "100", True),
        ("100", "100", True),
        ("1*", "100", False),
        ("web-*", "web-1", True),
        ("web-*", "web-a*", True),
        ("web-?", "web-*", False),
        ("web-?", "web-a*", False),
        ("web-?*", "web-*", False),
        ("web-[a-c]", "web-b", True),
        ("web-[!a]*", "web-*", False),
        ("web-*", "web-**", False),
        ("*-*", "a-*-b", True),
    ],
)
def test_a_pattern_covers_what_surely_never_gets_beyond_it(pattern: str, other: str, covers: bool) -> None:
    assert GuestPattern(pattern).covers(GuestPattern(other)) is covers


FEW_LETTERS = st.text("ab/", max_size=4)
GLOBS = st.lists(st.sampled_from(["a", "b", "*", "?", "**", "[ab]", "[!a]"]), min_size=1, max_size=5).map("".join)


@given(GLOBS, GLOBS, st.lists(FEW_LETTERS, min_size=20, max_size=40))
def test_a_pattern_that_is_covered_matches_nothing_more(pattern: str, other: str, names: list[str]) -> None:
    if GuestPattern(pattern).covers(GuestPattern(other)):
        beyond = [
            name
            for name in names
            if GuestPattern(other).matches(1, name) and not GuestPattern(pattern).matches(1, name)
        ]
        assert not beyond
