"""How the parts may depend on each other, and what no file of the repository may hold. `./dev lint` runs this file."""

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import guestwire
from guestwire.client._exports import NAMES

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
NAME = guestwire.__name__

LOW = {"counting", "errors"}
GUEST = LOW | {"wire", "channels", "agent"}
STREAMS = GUEST | {"streams"}

MAY_IMPORT: dict[str, set[str]] = {
    "addresses": set(),
    "counting": set(),
    "errors": set(),
    "open_files": set(),
    "pacing": set(),
    "toml": {"errors"},
    "wire": LOW,
    "channels": LOW | {"addresses", "pacing", "wire"},
    "agent": LOW | {"pacing", "wire", "channels"},
    "streams": GUEST | {"pacing"},
    "stores": LOW,
    "access": LOW | {"pacing", "stores"},
    "contract": STREAMS | {"stores", "access"},
    "dispatch": LOW | {"pacing", "stores", "access", "contract", "streams"},
    "metrics": GUEST,
    "inventory": GUEST | {"addresses", "metrics", "pacing", "toml", "stores", "access", "contract"},
    "server": LOW | {"pacing", "streams", "contract", "stores", "access", "dispatch", "inventory"},
    "app": GUEST
    | {"metrics", "open_files", "pacing", "stores", "contract", "access", "dispatch", "inventory", "server"},
    "client": STREAMS | {"addresses", "pacing", "stores", "access", "contract", "dispatch", "inventory"},
    "mcp": LOW | {"streams", "open_files", "pacing", "toml", "agent", "access", "contract", "client"},
    "cli": LOW
    | {"streams", "addresses", "agent", "metrics", "access", "contract", "inventory", "app", "client", "mcp"},
    "__main__": {"cli"},
    "": {"_lazy"},
    "_lazy": set(),
    "testing": LOW | {"wire", "channels", "stores", "access", "contract", "dispatch", "inventory", "server", "app"},
}
"""What a package may import, beside itself and the version in the root. A new package gets a row here, which is its place in the order."""

IN_LAYERS = {"audit", "endpoints", "errors", "files", "guests", "processes", "results", "roles", "tickets"}
"""Subjects that a layer has a module of its own for: commands of an agent, endpoints, methods of the client, tools, a command line's."""

NO_INPUT_OUTPUT = {"asyncio", "datetime", "os", "pathlib", "random", "select", "socket", "subprocess", "threading", "time"}  # fmt: skip
"""What `wire` must do without."""


@cache
def modules() -> dict[str, Path]:
    """Every module of guestwire, by its dotted name."""
    return {_dotted(path): path for path in sorted((SOURCE / NAME).rglob("*.py"))}


def _dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package(module: str) -> str:
    """The part of guestwire that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def imported(module: str) -> Iterator[str]:
    """The modules that a module imports, inside functions too."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}, line {node.lineno}: a relative import"
            yield from (_meant(str(node.module), alias.name) for alias in node.names)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def _meant(module: str, name: str) -> str:
    """`from a import b` means the module `a.b` where there is one."""
    return f"{module}.{name}" if f"{module}.{name}" in modules() else module


def ours(module: str) -> Iterator[str]:
    return (name for name in imported(module) if name == NAME or name.startswith(f"{NAME}."))


def init_files() -> list[str]:
    return [module for module, path in modules().items() if path.name == "__init__.py"]


# Which way imports run


def test_every_package_has_its_row_in_the_table() -> None:
    assert {package(module) for module in modules()} - {""} <= MAY_IMPORT.keys()


def test_the_table_runs_one_way() -> None:
    graphlib.TopologicalSorter(MAY_IMPORT).prepare()


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_its_package_may(module: str) -> None:
    here = package(module)
    used = {package(name) for name in ours(module)} - {"", here}

    assert used <= MAY_IMPORT.get(here, set())


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: set(ours(module)) - {module} for module in modules()}

    graphlib.TopologicalSorter(graph).prepare()


def test_what_is_imported_is_there() -> None:
    missing = {name for module in modules() for name in ours(module)} - modules().keys()

    assert not missing


def test_the_protocol_knows_no_input_and_output_and_no_clock() -> None:
    used = {name.partition(".")[0] for module in modules() if package(module) == "wire" for name in imported(module)}

    assert not used & NO_INPUT_OUTPUT


# What packages hand on


@pytest.mark.parametrize("module", init_files())
def test_an_init_file_hands_on_names_from_its_own_folder_only(module: str) -> None:
    assert all(name.startswith(f"{module}.") for name in imported(module))


def test_a_name_of_a_module_means_one_thing() -> None:
    names = Counter(path.stem for path in modules().values() if not path.stem.startswith("__"))

    assert {name for name, count in names.items() if count > 1} <= IN_LAYERS


@pytest.mark.parametrize("module", init_files())
def test_an_init_file_does_nothing_else(module: str) -> None:
    kinds = (ast.ImportFrom, ast.Assign, ast.Expr)

    assert all(isinstance(statement, kinds) for statement in _tree(module).body)


@pytest.mark.parametrize("module", init_files())
def test_all_holds_every_public_name_that_an_init_file_imports(module: str) -> None:
    names = {
        alias.asname or alias.name
        for statement in _tree(module).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }

    loaded_when_used = set(NAMES) if module in (NAME, f"{NAME}.client") else set()
    assert {name for name in names if not name.startswith("_")} | loaded_when_used == set(_all(module))


@pytest.mark.parametrize("module", init_files())
def test_all_is_sorted_and_its_names_are_there(module: str) -> None:
    names = _all(module)

    assert names == sorted(set(names), key=_order)
    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


def _all(module: str) -> list[str]:
    return list(getattr(importlib.import_module(module), "__all__", []))


def _order(name: str) -> tuple[int, str]:
    """As import sorters have it: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


# What no file holds

STANDARD_FOLDERS = {Path(name) for name in ("/", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/usr", "/var")}
"""Their names may stand anywhere: guests have them too."""

LOCK = "uv.lock"
PUBLIC_ARCHIVES = {"pypi.org", "files.pythonhosted.org"}

_registry = re.compile(
    r"pypi\.org|pythonhosted\.org|index-url|/simple\b|(?:deb|security|snapshot)\.debian\.org|\.ubuntu\.com"
)
_address = re.compile(r'https?://([^/"\s]+)')


@cache
def files() -> dict[str, str]:
    """Every text that git keeps, by its path."""
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"no git checkout: {done.stderr.strip()}")
    paths = [path for path in done.stdout.split("\0") if path and (ROOT / path).is_file()]
    return {path: (ROOT / path).read_text("utf-8", "replace") for path in paths}


def test_no_file_of_the_repository_was_left_there_by_a_program() -> None:
    assert [path for path in files() if not re.fullmatch(r"[\w./-]+", path) or not Path(path).stem.strip()] == []


def holding(pattern: re.Pattern[str]) -> list[str]:
    return [path for path, text in files().items() if pattern.search(text)]


def places() -> list[Path]:
    """Folders of this machine that mean nothing elsewhere: the repository's, what lies beside it, and where programs are."""
    beside = [] if ROOT.parent in STANDARD_FOLDERS else list(ROOT.parent.iterdir())
    return [place for place in {ROOT, Path.home(), Path(sys.prefix), *beside} if place not in STANDARD_FOLDERS]


def test_no_file_holds_a_path_of_this_machine() -> None:
    found = {str(place): holding(re.compile(rf"(?<!\w){re.escape(str(place))}\b")) for place in places()}

    assert found
    assert {place: paths for place, paths in found.items() if paths} == {}


def test_no_file_names_a_package_registry() -> None:
    this = Path(__file__).relative_to(ROOT).as_posix()

    assert [path for path in holding(_registry) if path not in (LOCK, this)] == []


def test_the_lock_file_knows_the_public_archive_only() -> None:
    assert set(_address.findall(files()[LOCK])) == PUBLIC_ARCHIVES
