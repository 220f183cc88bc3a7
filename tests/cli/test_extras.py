"""What comes with extras, and the error when it is not there."""

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from reaching import ended, environment, guestwire, started

from guestwire.cli.extras import EXTRAS, extra_missing

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
IS_BASE = not packages_distributions().keys() & set().union(*EXTRAS.values())


def packages(extra: str) -> set[str]:
    lines = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"][extra]
    return {line.partition(">")[0] for line in lines}


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.skipif(
    IS_BASE, reason="the packages are not installed in the environment of the base; ./dev test has both"
)
def test_the_table_has_every_module_of_the_packages_in_pyproject(extra: str) -> None:
    modules = {
        module
        for module, names in packages_distributions().items()
        if packages(extra) & set(names) and not module.startswith("_")
    }

    assert modules <= EXTRAS[extra]


@pytest.mark.parametrize(
    ("extra", "module"), [(extra, each) for extra, modules in EXTRAS.items() for each in sorted(modules)]
)
def test_the_error_names_the_command_the_module_and_the_line_that_installs_it(extra: str, module: str) -> None:
    error = extra_missing("serve", ModuleNotFoundError(name=f"{module}.part"))

    assert str(error) == (
        f"guestwire serve needs the extra '{extra}' (its Python package {module} is not installed);"
        f" install it with: pip install 'guestwire[{extra}]'"
    )


def test_a_module_of_no_extra_is_another_error() -> None:
    assert extra_missing("serve", ModuleNotFoundError(name="none")) is None
    assert extra_missing("serve", ModuleNotFoundError()) is None


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        (("serve", "--config", "none.toml"), "server"),
        (("access", "user", "list"), "server"),
        (("access", "restore", "backup", "--yes"), "server"),
        (("audit",), "server"),
        (("--host", "unix:/none.qga", "mcp"), "mcp"),
        (("--host", "unix:/none.qga", "mcp", "--http", "8007"), "mcp"),
    ],
)
@pytest.mark.skipif(
    not IS_BASE, reason="extras are installed; ./dev test runs this in an environment of the base alone"
)
async def test_a_command_whose_extra_is_not_installed_says_how_to_install_it(
    line: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    # In a process of its own: a second try to load a module finds parts of it that the first one has loaded.
    done = await ended(await started(*line, env=environment(tmp_path)))

    assert done.code == 69
    assert done.line.endswith(f" is not installed); install it with: pip install 'guestwire[{extra}]'")


@pytest.mark.skipif(
    not IS_BASE, reason="extras are installed; ./dev test runs this in an environment of the base alone"
)
@pytest.mark.parametrize(
    "line", [("--help",), ("api",), ("completion", "bash"), ("serve", "--help"), ("mcp", "--help")]
)
async def test_what_needs_no_extra_works_without(line: tuple[str, ...], tmp_path: Path) -> None:
    assert (await guestwire(*line, env=environment(tmp_path))).code == 0
