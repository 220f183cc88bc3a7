"""`./dev release [--dry-run]`: builds wheel, sdist and Ansible's collection, tries each by itself, and tags the commit."""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
UV: Final = ROOT / ".tools" / "bin" / "uv"
COLLECTION: Final = ROOT / "ansible"
PLUGINS: Final = (
    ("connection", "guest"),
    ("inventory", "guests"),
    *(("module", f"guest_{name}") for name in ("exec", "file", "freeze", "info")),
)
"""What the collection has, by type and name."""

IN_SDIST: Final = (
    "ansible/galaxy.yml",
    "tests/conftest.py",
    "docs/architecture.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "dev",
    "uv.lock",
)
IN_WHEEL: Final = (
    "guestwire/agent/scripts/unix/finish.sh",
    "guestwire/agent/scripts/windows/finish.ps1",
    "guestwire/testing/fake.py",
)
NOT_IN_WHEEL: Final = ("tests/", "devtools/", "bench/", "guestwire/guests", "guestwire/demo")


class ReleaseError(Exception):
    """The release can't be made; the text says what to do."""


def version() -> str:
    """The version, which stands in pyproject.toml alone."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def require_clean() -> None:
    """Refuses a tree that is not committed: the tag would name something else.

    Raises:
        ReleaseError: there are changes.
    """
    if _run("git", "status", "--porcelain").strip():
        raise ReleaseError("there are changes that are not committed: commit them first")


def require_changelog(text: str, release: str) -> None:
    """Refuses a changelog that does not describe the release.

    Raises:
        ReleaseError: it has no section for it, or says that it is not released yet.
    """
    heading = re.search(rf"^## {re.escape(release)}(.*)$", text, re.MULTILINE)
    if not heading:
        raise ReleaseError(f"CHANGELOG.md has no section '## {release}': write it")
    if "not released" in heading[1]:
        raise ReleaseError(f"CHANGELOG.md says that {release} is not released yet: put the date there")


def build(folder: Path) -> tuple[Path, Path]:
    """Builds both; gives wheel and sdist."""
    _run(UV, "build", "--quiet", "--out-dir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def require_collection_version(release: str) -> None:
    """Refuses a collection of another version: Ansible wants it in a file of its own.

    Raises:
        ReleaseError: galaxy.yml has another.
    """
    found = re.search(r"^version: (.*)$", (COLLECTION / "galaxy.yml").read_text(), re.MULTILINE)
    if not found or found[1] != release:
        raise ReleaseError(f"ansible/galaxy.yml: write version: {release}")


def build_collection(folder: Path) -> Path:
    """Builds the archive of Ansible's collection."""
    ansible(folder, "galaxy", "collection", "build", "--force", "--output-path", folder, COLLECTION)
    (archive,) = folder.glob("guestwire-guestwire-*.tar.gz")
    return archive


def try_collection(archive: Path) -> None:
    """Installs it in an empty folder, and has Ansible read the documentation of all its plugins there.

    Raises:
        ReleaseError: it can't be installed, or one is not there.
    """
    with tempfile.TemporaryDirectory(prefix="gw-release-") as name:
        ansible(Path(name), "galaxy", "collection", "install", "--offline", "--collections-path", name, archive)
        for kind, plugin in PLUGINS:
            found = ansible(Path(name), "doc", "--type", kind, f"guestwire.guestwire.{plugin}")
            if f"guestwire.guestwire.{plugin}" not in found:
                raise ReleaseError(f"{archive.name}: Ansible finds no {kind} guestwire.guestwire.{plugin}")


def ansible(collections: Path, program: str, *arguments: object) -> str:
    """Runs one of Ansible's programs, which finds collections, and keeps what it keeps, in a folder.

    Raises:
        ReleaseError: it failed.
    """
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_HOME": str(collections / ".ansible")}
    return _run(sys.executable, "-m", "ansible", program, *arguments, environment=environment)


def require_contents(wheel: Path, sdist: Path) -> None:
    """Looks into both.

    Raises:
        ReleaseError: something is missing, or does not belong there.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    with tarfile.open(sdist) as source:
        sources = [name.partition("/")[2] for name in source.getnames()]
    missing = [f"{name} in the wheel" for name in IN_WHEEL if name not in names]
    missing += [f"{name} in the sdist" for name in IN_SDIST if name not in sources]
    if missing:
        raise ReleaseError(f"missing: {', '.join(missing)}")
    if wrong := [name for name in names if name.startswith(NOT_IN_WHEEL)]:
        raise ReleaseError(f"not for the wheel: {', '.join(wrong[:5])}")


def try_out(package: Path, release: str) -> None:
    """Installs a package in a clean environment with all extras, and runs it there.

    Raises:
        ReleaseError: it does not run.
    """
    with tempfile.TemporaryDirectory(prefix="gw-release-") as name:
        python = Path(name) / "bin" / "python"
        _run(UV, "venv", "--quiet", "--python", sys.executable, name)
        _run(UV, "pip", "install", "--quiet", "--python", python, f"guestwire[all] @ {package.as_uri()}")
        found = _run(python.with_name("guestwire"), "--version", cwd=name).strip()
        if found != f"guestwire {release}":
            raise ReleaseError(f"{package.name} says that it is '{found}'")
        _run(
            python, "-c", "import guestwire; guestwire.connect_sync; from guestwire.testing import FakeGuest", cwd=name
        )
        _run(python.with_name("guestwire"), "mcp", "--help", cwd=name)


def main() -> None:
    """Makes the release."""
    parser = argparse.ArgumentParser(prog="./dev release", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="do all but the tag, whatever the changelog says")
    dry = parser.parse_args().dry_run
    release = version()
    try:
        if not dry:
            require_clean()
            require_changelog((ROOT / "CHANGELOG.md").read_text(), release)
        require_collection_version(release)
        with tempfile.TemporaryDirectory(prefix="gw-dist-") as name:
            wheel, sdist = build(Path(name))
            require_contents(wheel, sdist)
            for package in (wheel, sdist):
                try_out(package, release)
                print(f"{package.name}: {package.stat().st_size:,} bytes, runs in a clean environment")
            (Path(name) / "collection").mkdir()
            collection = build_collection(Path(name) / "collection")
            try_collection(collection)
            print(f"{collection.name}: {collection.stat().st_size:,} bytes, Ansible finds all that it has")
            if not dry:
                kept = ROOT / "dist"
                kept.mkdir(exist_ok=True)
                for package in (wheel, sdist, collection):
                    package.rename(kept / package.name)
                _run("git", "tag", "--annotate", "--message", f"guestwire {release}", f"v{release}")
                print(f"tagged v{release}; dist/ has all three: push the tag, then upload them")
    except ReleaseError as error:
        sys.exit(f"release: {error}")


def _run(*command: object, cwd: object = ROOT, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=str(cwd), capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | (environment or {}),
    )  # fmt: skip
    if done.returncode:
        raise ReleaseError(f"{' '.join(map(str, command[:3]))} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


if __name__ == "__main__":
    main()
