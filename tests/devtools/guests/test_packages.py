"""Packages: the host's own apt sources in both notations, and programs that fail with a reason."""

from pathlib import Path

import pytest

from devtools.guests.packages import Archive, Host, Source, run, sources, this_host, unpack
from guestwire.errors import GuestImageError

MIRROR = "http://mirror.example/debian"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (f"deb {MIRROR} bookworm main", Source(MIRROR, ("bookworm",), "")),
        (
            f"deb  [arch=amd64 signed-by=/k]  {MIRROR}  bookworm  main contrib",
            Source(MIRROR, ("bookworm",), "arch=amd64 signed-by=/k"),
        ),
    ],
)
def test_one_line_entries_are_read(folder: Path, line: str, source: Source) -> None:
    assert sources(written(folder, "sources.list", f"# a comment\n{line}\n")) == [source]


@pytest.mark.parametrize("line", ["", f"# deb {MIRROR} bookworm main", f"deb-src {MIRROR} bookworm main", "deb"])
def test_comments_and_sources_of_sources_are_not(folder: Path, line: str) -> None:
    assert sources(written(folder, "sources.list", line + "\n")) == []


PARAGRAPH = (
    f"Types: deb\nURIs: {MIRROR}\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /keys/debian.gpg\n"
)


def test_paragraphs_are_read(folder: Path) -> None:
    written(folder, "sources.list.d/debian.sources", f"# a comment\n{PARAGRAPH}")

    assert sources(folder) == [Source(MIRROR, ("bookworm", "bookworm-updates"), "signed-by=/keys/debian.gpg")]


@pytest.mark.parametrize(
    "text", [PARAGRAPH + "Enabled: no\n", PARAGRAPH.replace("Types: deb", "Types: deb-src"), "", "Types: deb-src\n"]
)
def test_paragraphs_that_do_not_count_are_left_out(folder: Path, text: str) -> None:
    assert sources(written(folder, "sources.list.d/x.sources", text)) == []


def test_several_paragraphs_and_files_all_count(folder: Path) -> None:
    written(folder, "sources.list.d/a.sources", PARAGRAPH + "\n" + PARAGRAPH.replace("bookworm", "trixie"))
    written(folder, "sources.list.d/b.list", f"deb {MIRROR} sid main\n")

    assert [source.suites[0] for source in sources(folder)] == ["sid", "bookworm", "trixie"]


def test_without_sources_there_are_none(folder: Path) -> None:
    assert sources(folder) == []


def test_a_suite_that_no_source_has_is_an_error_that_names_it(folder: Path) -> None:
    archive = Archive(folder / "apt", Host("debian", "no-such-suite"), "trixie")

    with pytest.raises(GuestImageError, match="no apt source on this host has the suite no-such-suite"):
        archive.download(["busybox-static"])


def test_this_host_has_a_kernel_for_virtual_machines() -> None:
    assert this_host().kernel in ("linux-image-cloud-amd64", "linux-image-virtual")


# Programs


def test_a_program_returns_what_it_wrote(folder: Path) -> None:
    assert run(["sh", "-c", "pwd"], folder=folder) == f"{folder.resolve()}\n"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["no-such-program"], "the program no-such-program is missing"),
        (["sh", "-c", "echo why >&2; exit 3"], "why"),
        (["sh", "-c", "echo on stdout; exit 3"], "on stdout"),
    ],
)
def test_a_program_that_fails_is_an_error_with_its_reason(command: list[str], says: str) -> None:
    with pytest.raises(GuestImageError, match=says):
        run(command)


def test_a_damaged_package_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "broken.deb").write_bytes(b"no package")

    with pytest.raises(GuestImageError, match="dpkg-deb"):
        unpack([folder / "broken.deb"], folder / "tree")
