"""What is known of the agents that systems carry."""

import datetime as dt
import re
import typing

import pytest

from guestwire.agent.packages import AS_OF, INSTALLATIONS, NEWEST, UNKNOWN, Family, check_version, numbers_of, system_of
from guestwire.agent.results import OsInfo


@pytest.mark.parametrize(
    ("id_", "version_id", "agent", "newest", "state"),
    [
        ("debian", "11", "5.2.0", "5.2.0", "newest"),
        ("debian", "12", "7.2.22", "7.2.22", "newest"),
        ("debian", "12", "7.2.7", "7.2.22", "older"),
        ("debian", "12", "7.2.100", "7.2.22", "newer"),
        ("debian", "13", "10.0.13", "10.0.13", "newest"),
        ("debian", "13", "9.2.4", "10.0.13", "older"),
        ("debian", None, "11.1.3", None, "not known"),
        ("ubuntu", "20.04", "4.2.1", "4.2", "newest"),
        ("ubuntu", "22.04", "6.2.0", "6.2", "newest"),
        ("ubuntu", "24.04", "8.2.2", "8.2.2", "newest"),
        ("ubuntu", "24.10", "9.0.2", None, "not known"),
        ("rhel", "8.10", "6.2.0", "6.2.0", "newest"),
        ("rocky", "9.4", "8.2.0", "10.1.0", "older"),
        ("almalinux", "9.8", "10.1.0", "10.1.0", "newest"),
        ("centos", "10", "10.1.0", "10.1.0", "newest"),
        ("centos", "7", "2.12.0", None, "not known"),
        ("fedora", "43", "10.1.2", "10.1", "newest"),
        ("sles", "15.6", "8.2.10", "8.2", "newest"),
        ("opensuse-leap", "15.5", "7.1.0", "7.1", "newest"),
        ("opensuse-tumbleweed", "20261101", "11.1.0", None, "not known"),
        ("alpine", "3.22.5", "10.0.0", "10.0", "newest"),
        ("alpine", "3.99.0", "10.0.0", None, "not known"),
        ("mswindows", "2022", "110.2.3", "110.2.3", "newest"),
        ("mswindows", "10", "107.0.1", "110.2.3", "older"),
        ("freebsd", "14.1", "10.2.2", None, "not known"),
        (None, None, "10.0.13", None, "not known"),
        ("debian", "12", "none", "7.2.22", "not known"),
    ],
)
def test_a_version_is_compared_with_what_the_system_carries(
    id_: str | None, version_id: str | None, agent: str, newest: str | None, state: str
) -> None:
    system = system_of(OsInfo(id=id_, version_id=version_id))

    found = check_version(agent, system)

    assert (found.agent, found.newest, found.state, found.as_of) == (agent, newest, state, AS_OF)
    assert (found.update is not None) == (state == "older")
    if found.update:
        assert system.family
        assert found.update == INSTALLATIONS[system.family].update


@pytest.mark.parametrize(
    ("id_", "family"),
    [
        ("debian", "debian"), ("ubuntu", "debian"), ("linuxmint", "debian"), ("rhel", "rhel"), ("ol", "rhel"),
        ("fedora", "rhel"), ("sles", "suse"), ("opensuse-leap", "suse"), ("alpine", "alpine"), ("mswindows", "windows"),
        ("freebsd", None), ("arch", None),
    ],
)  # fmt: skip
def test_a_system_belongs_to_a_family(id_: str, family: str | None) -> None:
    assert system_of(OsInfo(id=id_)).family == family


@pytest.mark.parametrize("value", ["a" * 33, "Debian", "debian\n", "x;y", "\x1b[2J", "", "../x"])
def test_an_id_or_a_version_of_another_form_counts_as_not_known(value: str) -> None:
    system = system_of(OsInfo(id=value, version_id=value, pretty_name="x" * 1000))

    assert (system.id, system.release, system.packages, system.family) == ("", "", "", None)
    assert len(system.name) == 80
    assert check_version("1" * 1000, system).state == "not known"
    assert len(check_version("x" * 1000, system).agent) == 80


def test_a_system_that_says_nothing_is_not_known() -> None:
    assert system_of(None) == UNKNOWN
    assert system_of(OsInfo()) == UNKNOWN


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("7.2.22", (7, 2, 22)),
        ("8", (8,)),
        ("9.1 (in Windows 11.0)", (9, 1)),
        ("1.2.3.4", (1, 2, 3)),
        ("v1", ()),
        ("", ()),
    ],
)
def test_a_version_has_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert numbers_of(version) == numbers


def test_the_table_has_its_day_and_versions_alone() -> None:
    assert dt.date.fromisoformat(AS_OF) >= dt.date(2026, 11, 27)
    for releases in NEWEST.values():
        for release, version in releases.items():
            assert re.fullmatch(r"(\d+(\.\d+)?)?", release)
            assert re.fullmatch(r"\d+\.\d+(\.\d+)?", version)


def test_every_family_has_an_installation_and_every_system_of_the_table_a_family() -> None:
    assert tuple(INSTALLATIONS) == typing.get_args(Family)
    for packages in NEWEST:
        assert system_of(
            OsInfo(id="mswindows" if packages == "windows" else "sles" if packages == "suse" else packages)
        ).family
    for one in INSTALLATIONS.values():
        kind = "#ps1_sysnative" if one.system == "windows" else "#cloud-config"
        assert one.cloud_init.startswith(f"{kind}\n")
        assert one.virt_customize.startswith("virt-customize -a DISK.qcow2 ")
        assert one.systems
        assert one.install
        assert one.update
