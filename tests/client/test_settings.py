"""Which host, and with which credentials: what is given, then the environment, then a profile; and secrets that others can read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from guestwire.client.settings import ENVIRONMENT, LibvirtUri, Settings, parse_target, settings_for
from guestwire.errors import ConfigurationError

FINGERPRINT = ":".join(["AB"] * 32)
PROFILE = (
    '[lab]\nhost = "profile"\ntoken = "profile-token"\n[default]\nhost = "default"\nuser = "u@pam"\npassword = "p"\n'
)

Wrote = Callable[..., dict[str, str]]


@pytest.fixture
def wrote(tmp_path: Path) -> Wrote:
    """Writes profiles; gives the environment in which they are found."""

    def write(text: str = PROFILE, mode: int = 0o600) -> dict[str, str]:
        path = tmp_path / "guestwire" / "config.toml"
        path.parent.mkdir()
        path.write_text(text)
        path.chmod(mode)
        return {"XDG_CONFIG_HOME": str(tmp_path)}

    return write


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_each_setting_can_come_from_the_environment(name: str, tmp_path: Path) -> None:
    found = settings_for({}, environ={"HOME": str(tmp_path), f"GUESTWIRE_{name.upper()}": "value"})

    assert getattr(found, name) == "value"


def test_what_is_given_comes_before_the_environment_and_that_before_the_default_profile(wrote: Wrote) -> None:
    environ = wrote() | {"GUESTWIRE_USER": "environment", "GUESTWIRE_PASSWORD": "environment"}

    found = settings_for({"user": "given"}, environ=environ)

    assert (found.host, found.user, found.password) == ("default", "given", None)


def test_a_profile_that_is_named_is_where_its_words_lead_whatever_the_environment_says(wrote: Wrote) -> None:
    environ = wrote() | {"GUESTWIRE_HOST": "environment", "GUESTWIRE_TOKEN": "t", "GUESTWIRE_CA": "ca"}

    found = settings_for({}, profile="lab", environ=environ)

    assert (found.host, found.token, found.ca) == ("profile", "profile-token", "ca")


def test_a_password_alone_is_for_the_user_of_the_profile(wrote: Wrote) -> None:
    environ = wrote('[lab]\nhost = "h"\nuser = "u@pam"\n') | {"GUESTWIRE_PASSWORD": "p"}

    found = settings_for({}, profile="lab", environ=environ)

    assert (found.user, found.password) == ("u@pam", "p")


@pytest.mark.parametrize(
    ("given", "other"),
    [("ca", {"GUESTWIRE_FINGERPRINT": FINGERPRINT}), ("fingerprint", {"GUESTWIRE_CA": "c"}), ("verify", {"GUESTWIRE_CA": "c"})],
)  # fmt: skip
def test_whose_certificate_is_taken_is_not_mixed_either(wrote: Wrote, given: str, other: dict[str, str]) -> None:
    value = False if given == "verify" else "given"
    environ = wrote('[default]\nhost = "h"\nverify = false\n') | other

    found = settings_for({given: value}, environ=environ)

    assert (found.ca or found.fingerprint or found.verify) == value
    assert found.verify is (given != "verify")


@pytest.mark.parametrize("name", ["token", "token_file", "user"])
def test_who_is_given_is_not_mixed_with_who_is_in_the_environment(name: str, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "GUESTWIRE_TOKEN": "t", "GUESTWIRE_PASSWORD": "p", "GUESTWIRE_TOKEN_FILE": "f"}

    found = settings_for({"host": "h", name: "given"}, environ=environ)

    assert [found.token, found.user, found.password, found.token_file].count(None) == 3


def test_the_default_profile_is_taken_when_no_host_is_named(wrote: Wrote) -> None:
    environ = wrote()

    assert settings_for({}, environ=environ).host == "default"
    assert settings_for({"host": "given"}, environ=environ).user is None
    assert settings_for({}, environ={**environ, "GUESTWIRE_PROFILE": "lab"}).token == "profile-token"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
@pytest.mark.parametrize("profile", ["lab", None])
def test_a_profile_whose_secrets_others_can_read_is_refused(wrote: Wrote, mode: int, profile: str | None) -> None:
    environ = wrote(mode=mode)

    with pytest.raises(ConfigurationError, match=r"others can read the secrets in it; chmod 600 ") as refused:
        settings_for({}, profile=profile, environ=environ)
    assert "profile-token" not in str(refused.value)


def test_a_profile_without_secrets_may_be_read_by_others(wrote: Wrote) -> None:
    environ = wrote('[lab]\nhost = "h"\ntoken_file = "t"\n', 0o644)

    assert settings_for({}, profile="lab", environ=environ).token_file == "t"


@pytest.mark.parametrize(
    ("text", "says"),
    [('[lab]\nhots = "h"\n', "hots"), ("[lab]\nhost = 1\n", "host"), ("[", "config.toml"), ("[other]\n", "there are other")],
)  # fmt: skip
def test_a_profile_that_can_not_be_used_says_why(wrote: Wrote, text: str, says: str) -> None:
    environ = wrote(text)

    with pytest.raises(ConfigurationError, match=says):
        settings_for({}, profile="lab", environ=environ)


@pytest.mark.parametrize(("mode", "is_taken"), [(0o600, True), (0o400, True), (0o640, True), (0o604, False), (0o644, False)])  # fmt: skip
def test_a_token_file_that_everybody_can_read_is_refused(tmp_path: Path, mode: int, is_taken: bool) -> None:
    path = tmp_path / "token"
    path.write_text("a@pam!b=secret\n")
    path.chmod(mode)

    if is_taken:
        assert Settings(token_file=str(path)).credentials().token == "a@pam!b=secret"
    else:
        with pytest.raises(ConfigurationError, match=r"everybody can read the token in it; chmod o-r "):
            Settings(token_file=str(path)).credentials()


@pytest.mark.parametrize("token", ["a@pam!b=secret\nc", "a@pam!b=sec\x00ret", "a@pam!b=sec\udcffret"])
def test_what_can_be_no_token_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(token.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)

    for settings in (Settings(token=token), Settings(token_file=str(path))):
        with pytest.raises(ConfigurationError, match=r"USER@REALM!NAME=SECRET") as refused:
            settings.credentials()
        assert "sec" not in str(refused.value).replace(str(path), "")


@pytest.mark.parametrize("fingerprint", ["AB", "AB" * 32, FINGERPRINT + ":AB", FINGERPRINT.replace("A", "G")])
def test_what_is_no_fingerprint_is_refused(fingerprint: str) -> None:
    with pytest.raises(ConfigurationError, match="no SHA-256 fingerprint"):
        Settings(fingerprint=fingerprint).trust()


def test_no_secret_is_shown() -> None:
    settings = Settings(host="h", token="secret1", user="u", password="secret2")

    assert "secret" not in repr(settings) + repr(settings.credentials()) + str(settings)


@pytest.mark.parametrize(
    "uri", ["qemu:///system", "qemu:///session", "qemu+ssh://root@h/system?socket=/x", "test:///default"]
)
def test_a_libvirt_is_named_as_virsh_names_it(uri: str) -> None:
    assert parse_target(uri) == LibvirtUri(uri)


@pytest.mark.parametrize(
    "uri",
    ["qemu+ext:///system?command=/bin/evil", "qemu+ssh://h/system?command=/bin/evil", "qemu://a b", "xen:///system"],
)
def test_what_names_no_libvirt_or_a_program_to_run_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_target(uri)
