"""The release: what wheel and sdist hold, and what the changelog must say."""

import tarfile
import zipfile
from pathlib import Path

import pytest

import guestwire
from devtools.release import UV, ReleaseError, build, require_changelog, require_contents, version


def test_the_version_stands_in_one_place() -> None:
    assert guestwire.__version__ == version()


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
