"""The generated methods are those of the contract."""

import subprocess
import sys
from pathlib import Path

import pytest

from guestwire.client import endpoints, generate, generate_sync, guests, sync
from guestwire.contract.guest_registry import GUEST_ENDPOINTS


@pytest.mark.parametrize(("module", "make"), [(endpoints, generate.asynchronous), (sync, generate_sync.synchronous)])
def test_they_are_fresh(module: object, make: object) -> None:
    assert callable(make)
    path = Path(str(module.__file__))  # type: ignore[attr-defined]  # a module has one
    ruff = [str(Path(sys.executable).with_name("ruff")), "format", "--stdin-filename", str(path), "-"]
    made = subprocess.run(ruff, input=make(), capture_output=True, text=True, check=True, timeout=60).stdout

    assert path.read_text() == made, "run ./dev docs"


def test_there_is_one_for_each_endpoint_in_both() -> None:
    names = {endpoint.name.replace("-", "_") for endpoint in generate.guest_methods(GUEST_ENDPOINTS)}

    assert {"ping", "file_read", "file_piece", "set_user_password"} <= names
    assert names <= set(vars(endpoints.Endpoints)) & set(vars(sync.SyncGuest))


def test_who_waits_has_all_that_who_does_not_has() -> None:
    public = {name for name in dir(guests.Guest) if not name.startswith("_")}

    assert public - set(dir(sync.SyncGuest)) == {"call"}
