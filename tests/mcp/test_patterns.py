"""Patterns for paths, arguments and guests."""

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

    assert fits is not (argument.startswith("-") or ".." in argument.split("/"))


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
