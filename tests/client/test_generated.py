"""The generated methods are those of the contract."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from guestwire.client import (
    endpoints,
    folders,
    generate,
    generate_sync,
    guests,
    hosts,
    processes,
    streams,
    sync,
    sync_endpoints,
)
from guestwire.client.transfer import files
from guestwire.contract.guest_registry import GUEST_ENDPOINTS


@pytest.mark.parametrize(
    ("module", "make"), [(endpoints, generate.asynchronous), (sync_endpoints, generate_sync.synchronous)]
)
def test_they_are_fresh(module: object, make: object) -> None:
    assert callable(make)
    path = Path(str(module.__file__))  # type: ignore[attr-defined]  # a module has one
    ruff = [str(Path(sys.executable).with_name("ruff")), "format", "--stdin-filename", str(path), "-"]
    made = subprocess.run(ruff, input=make(), capture_output=True, text=True, check=True, timeout=60).stdout

    assert path.read_text() == made, "run ./dev docs"


def test_there_is_one_for_each_endpoint_in_both() -> None:
    names = {endpoint.name.replace("-", "_") for endpoint in generate.guest_methods(GUEST_ENDPOINTS)}

    assert {"ping", "file_read", "file_piece", "set_user_password"} <= names
    assert names <= set(vars(endpoints.Endpoints)) & set(vars(sync_endpoints.SyncEndpoints))


@pytest.mark.parametrize(
    ("waited_for", "waits", "more"),
    [
        (hosts.Host, sync.SyncHost, {"guest_from", "has_one_guest"}), (guests.Guest, sync.SyncGuest, {"call", "call_endpoint", "read_bytes", "alone", "carrier"}), (files.Files, sync.SyncFiles, set()),
        (folders.Folders, sync.SyncFolders, {"copy_to"}), (processes.Processes, sync.SyncProcesses, set()), (streams.Stream, sync.SyncStream, set()),
    ],
)  # fmt: skip
def test_a_blocking_class_has_all_methods_of_the_other_with_their_documentation(
    waited_for: type, waits: type, more: set[str]
) -> None:
    public = {name for name in dir(waited_for) if not name.startswith("_")}

    assert public - set(dir(waits)) == more
    for name in public - more:
        one, other = (inspect.getattr_static(kind, name) for kind in (waited_for, waits))
        if inspect.isfunction(one) and inspect.iscoroutinefunction(one):
            assert inspect.signature(other) == inspect.signature(one) or name == "guest", (
                name
            )  # which gives a SyncGuest
            assert other.__doc__ == one.__doc__ or name in ("guest", "close"), name
