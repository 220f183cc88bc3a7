"""Which system a path is of, and how its paths are made."""

import pytest

from guestwire.agent.systems import UNIX, WINDOWS, system_of


@pytest.mark.parametrize("path", ["C:\\x\\y", "c:/x", "D:", "\\\\server\\share\\x"])
def test_windows_paths_are_known_by_their_beginning(path: str) -> None:
    assert system_of(path) is WINDOWS


@pytest.mark.parametrize("path", ["/x", "x", "./C:", "\\x", "/C:/x", ""])
def test_all_others_are_a_unixs(path: str) -> None:
    assert system_of(path) is UNIX


def test_beside_a_file_is_in_the_same_folder() -> None:
    assert UNIX.beside("/a/b", "n") == "/a/n"
    assert UNIX.beside("b", "n") == "n"
    assert WINDOWS.beside("C:\\a\\b", "n") == "C:\\a\\n"
    assert WINDOWS.beside("C:\\b", "n") == "C:\\n"
    assert WINDOWS.split("C:\\a/b.txt")[1] == "b.txt"
