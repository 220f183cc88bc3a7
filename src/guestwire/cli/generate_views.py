"""Writes `view_names.py` from the endpoints' records, so that help and completion need not load all of them.

`./dev docs` runs it, and a test proves the file fresh.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from guestwire.contract import Endpoint
from guestwire.contract.guest_registry import CLIENT_ENDPOINTS

FILE: Final = Path(__file__).with_name("view_names.py")


def view_names(endpoints: Iterable[Endpoint]) -> str:
    """The source of the module: a line for each endpoint that has a command view."""
    views = sorted((endpoint.command for endpoint in endpoints if endpoint.command), key=lambda view: view.name)
    lines = [f"    {json.dumps(view.name)}: ({json.dumps(view.section)}, {json.dumps(view.help)}),\n" for view in views]
    head = '"""The commands that show an endpoint\'s result: heading and help. Made by `./dev docs` from the endpoints\' records."""\n'
    return f"{head}\nfrom typing import Final\n\nVIEWS: Final = {{\n{''.join(lines)}}}\n"


if __name__ == "__main__":
    FILE.write_text(view_names(CLIENT_ENDPOINTS))
