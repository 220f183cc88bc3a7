"""The release: what wheel and sdist hold, and what the changelog must say."""

import tarfile
import zipfile
from pathlib import Path

import pytest

import guestwire
from devtools.release import (
    UV,
    ReleaseError,
    build,
    build_collection,
    require_changelog,
    require_collection_version,
    require_contents,
    try_collection,
    version,
)


def test_the_version_stands_in_one_place() -> None:
    assert guestwire.__version__ == version()


def test_the_collection_of_ansible_has_the_same_version() -> None:
    require_collection_version(version())
    with pytest.raises(ReleaseError, match=r"write version: 9\.9\.9"):
        require_collection_version("9.9.9")


@pytest.mark.slow
def test_the_archive_of_the_collection_has_all_of_its_plugins_and_no_other_files(tmp_path: Path) -> None:
    archive = build_collection(tmp_path)

    try_collection(archive)
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
    assert {"README.md", "meta/runtime.yml", "plugins/connection/guest.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".tar.gz")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# Changes\n\n## 1.0.0, 2026-01-01\n", ""),
        ("# Changes\n\n## 1.0.0, not released yet\n", "is not released yet"),
        ("# Changes\n\n## 1.0.1, 2026-01-01\n", "no section '## 1.0.0'"),
    ],
)
def test_the_changelog_must_describe_the_release(text: str, problem: str) -> None:
    if not problem:
        require_changelog(text, "1.0.0")
        return
    with pytest.raises(ReleaseError, match=problem):
        require_changelog(text, "1.0.0")


@pytest.mark.slow
@pytest.mark.skipif(not UV.exists(), reason="./dev installs uv")
def test_wheel_and_sdist_hold_what_they_should(tmp_path: Path) -> None:
    wheel, sdist = build(tmp_path)

    require_contents(wheel, sdist)
    with pytest.raises(ReleaseError, match="not for the wheel"):
        require_contents(sdist_as_wheel(tmp_path, sdist), sdist)


def sdist_as_wheel(folder: Path, sdist: Path) -> Path:
    """A wheel with everything in it."""

    path = folder / "all.whl"
    with tarfile.open(sdist) as source, zipfile.ZipFile(path, "w") as wheel:
        for name in source.getnames():
            below = name.partition("/")[2]
            if below:
                wheel.writestr(below.removeprefix("src/"), b"")
    return path
