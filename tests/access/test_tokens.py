"""API tokens: who is let in, with which words others are refused, and where the administrator's token lies."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire.access import Subject, Tokens, admin_token
from guestwire.errors import ConfigurationError, NotAuthenticated

SECRET: Final = "01234567-89ab-4cde-8f01-23456789abcd"
NAME: Final = "root@pam!admin"
OTHER: Final = "alice@pve!ci=fedcba98-7654-4210-8fed-cba987654321"


@pytest.fixture
def tokens() -> Tokens:
    made = Tokens()
    made.add(f"{NAME}={SECRET}")
    made.add(OTHER)
    return made


@pytest.mark.parametrize("separator", ["=", " "])
def test_a_token_is_its_subject(tokens: Tokens, separator: str) -> None:
    assert tokens.authenticate(f"PVEAPIToken{separator}{NAME}={SECRET}") == Subject("root@pam", "admin")


def test_every_token_is_its_own_subject(tokens: Tokens) -> None:
    assert tokens.authenticate(f"PVEAPIToken={OTHER}") == Subject("alice@pve", "ci")


def test_a_subject_is_shown_as_its_token_is_named() -> None:
    assert str(Subject("root@pam", "admin")) == NAME


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "PVEAPIToken",
        "PVEAPIToken=",
        "PVEAPIToken ",
        f"PVEAPIToken:{NAME}={SECRET}",
        f"PVEAPIToken\t{NAME}={SECRET}",
        f"pveapitoken={NAME}={SECRET}",
        f" PVEAPIToken={NAME}={SECRET}",
        f"x PVEAPIToken={NAME}={SECRET}",
        f"{NAME}={SECRET}",
        f"Bearer {NAME}={SECRET}",
        "Basic cm9vdEBwYW06eA==",
        "PVEAuthCookie=PVE:root@pam:00000000::x",
    ],
)
def test_what_is_no_token_is_no_ticket_either(tokens: Tokens, header: str | None) -> None:
    with pytest.raises(NotAuthenticated, match=r"^No ticket$"):
        tokens.authenticate(header)


@pytest.mark.parametrize(
    "token",
    [
        f"{NAME}=wrong",
        f"{NAME}={SECRET.upper()}",
        f"{NAME}={SECRET[:-1]}",
        f"{NAME}={SECRET}x",
        f"{NAME}={SECRET} ",
        f"{NAME}={SECRET}\n",
        f"{NAME}=={SECRET}",
        f"{NAME}=",
        NAME,
        f"root@pam={SECRET}",
        f"root@pam!other={SECRET}",
        f"Root@pam!admin={SECRET}",
        f"alice@pve!ci={SECRET}",
        f"nobody@pve!x={SECRET}",
        f"={SECRET}",
        "=",
        "nobody@pve!x",
        "nobody@pve!x=",
        f"{NAME}=ü",
        f"{NAME}=世界",
        f"{NAME}=\udcff",
        f"r\udcf6\udc80ot@pam!admin={SECRET}",
        f"rööt@pam!admin={SECRET}",
        "\0",
    ],
)
def test_a_wrong_token_is_refused_without_saying_what_is_wrong(tokens: Tokens, token: str) -> None:
    with pytest.raises(NotAuthenticated, match=r"^Authentication failed!$"):
        tokens.authenticate(f"PVEAPIToken={token}")


def test_nobody_is_let_in_where_no_token_is_known() -> None:
    with pytest.raises(NotAuthenticated):
        Tokens().authenticate("PVEAPIToken==")


@given(st.binary() | st.binary().map(lambda rest: b"PVEAPIToken=" + rest))
def test_any_bytes_in_the_header_are_refused(header: bytes) -> None:
    known = Tokens()
    known.add(f"{NAME}={SECRET}")

    with pytest.raises(NotAuthenticated):
        known.authenticate(header.decode("utf-8", "surrogateescape"))


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_secret_is_known_again_and_no_other(secret: str) -> None:
    known = Tokens()
    known.add(f"{NAME}={secret}")

    assert known.authenticate(f"PVEAPIToken={NAME}={secret}") == Subject("root@pam", "admin")
    with pytest.raises(NotAuthenticated):
        known.authenticate(f"PVEAPIToken={NAME}={secret}x")


def test_a_token_that_is_added_again_has_the_new_secret_only(tokens: Tokens) -> None:
    tokens.add(f"{NAME}=new")

    assert tokens.authenticate(f"PVEAPIToken={NAME}=new").user == "root@pam"
    with pytest.raises(NotAuthenticated):
        tokens.authenticate(f"PVEAPIToken={NAME}={SECRET}")


def test_secrets_are_neither_kept_nor_shown(tokens: Tokens) -> None:
    subject = tokens.authenticate(f"PVEAPIToken={NAME}={SECRET}")
    with pytest.raises(NotAuthenticated) as refusal:
        tokens.authenticate(f"PVEAPIToken={NAME}x={SECRET}")

    shown = [repr(tokens), repr(vars(tokens)), repr(subject), str(subject), repr(refusal.value)]
    assert not [text for text in shown if SECRET in text]


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_the_first_start_makes_a_token_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    token = admin_token(tmp_path)
    [file] = tmp_path.iterdir()

    assert file.name == "admin-token"
    assert file.read_text() == token + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_token_is_a_random_uuid_of_the_administrator(tmp_path: Path) -> None:
    token = admin_token(tmp_path)

    assert re.fullmatch(r"root@pam!admin=[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", token)


def test_the_token_lets_the_administrator_in(tmp_path: Path) -> None:
    token, tokens = admin_token(tmp_path), Tokens()
    tokens.add(token)

    assert tokens.authenticate(f"PVEAPIToken={token}") == Subject("root@pam", "admin")


def test_the_second_start_keeps_the_token(tmp_path: Path) -> None:
    token = admin_token(tmp_path)
    before = (tmp_path / "admin-token").stat()

    assert admin_token(tmp_path) == token
    assert (tmp_path / "admin-token").stat().st_mtime_ns == before.st_mtime_ns
    assert (tmp_path / "admin-token").stat().st_ino == before.st_ino


def test_two_hosts_have_two_tokens(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert admin_token(tmp_path / "a") != admin_token(tmp_path / "b")


@pytest.mark.parametrize("content", [OTHER, OTHER + "\n", f"\n  {OTHER}\r\n\n"])
def test_a_token_of_ones_own_is_taken_with_or_without_a_newline(tmp_path: Path, content: str) -> None:
    (tmp_path / "admin-token").write_text(content, newline="")

    assert admin_token(tmp_path) == OTHER


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hunter2hunter2",
        b"root@pam=hunter2hunter2",
        b"root!admin=hunter2hunter2",
        b"root@pam!admin",
        b"root@pam!admin=",
        b"root@pam!admin=hunter2 hunter2",
        b"root@pam!admin=a=b",
        b"root@pam!admin=hunter2hunter2\nroot@pam!other=hunter2hunter2\n",
        b"PVEAPIToken=root@pam!admin=hunter2hunter2",
        b"\xff\xfe",
    ],
)
def test_a_file_with_something_else_is_refused_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "admin-token"
    file.write_bytes(content)

    with pytest.raises(ConfigurationError) as refusal:
        admin_token(tmp_path)
    assert file.read_bytes() == content
    assert (
        str(refusal.value)
        == f"{file}: not one line of the form USER@REALM!NAME=SECRET; remove the file to get a new token"
    )


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        admin_token(tmp_path / "none")
    assert str(refusal.value) == (
        f"{tmp_path}/none/admin-token: No such file or directory; guestwire keeps its administrator's token there"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "admin-token").mkdir()

    with pytest.raises(ConfigurationError, match=r"/admin-token: Is a directory; guestwire keeps"):
        admin_token(tmp_path)


def test_a_start_that_failed_leaves_nothing_unfinished_that_counts(tmp_path: Path) -> None:
    (tmp_path / f"admin-token.{os.getpid()}").write_text("half a tok")

    token = admin_token(tmp_path)

    assert [file.read_text() for file in tmp_path.iterdir()] == [token + "\n"]
