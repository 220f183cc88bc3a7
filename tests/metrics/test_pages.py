"""Dashboard and alert rules name metrics that are served, and Prometheus' own tool takes the rules."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from guestwire.metrics.families import FAMILIES

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = {family.name for family in FAMILIES}


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "alerts.yml"])
def test_only_what_is_served_is_named(file: str) -> None:
    found = set(re.findall(r"guestwire_guest_\w+", (DOCS / file).read_text()))

    assert found <= NAMES
    assert len(found) >= 5


def test_the_page_names_all_that_is_served() -> None:
    text = (DOCS / "metrics.md").read_text()
    ways = {"network_receive", "network_transmit"}
    missing = {
        name
        for name in (name.removeprefix("guestwire_guest_") for name in NAMES)
        if name not in text and not any(name.startswith(way) and way in text for way in ways)
    }
    assert missing == set()


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())

    assert {target["expr"].count("{") - target["expr"].count("}") for panel in dashboard["panels"] for target in panel["targets"]} == {0}  # fmt: skip
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_promtool_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: `./dev setup` installs it from Debian's package prometheus")
    checked = subprocess.run([promtool, "check", "rules", str(DOCS / "alerts.yml")], capture_output=True, check=False)

    assert checked.returncode == 0, checked.stderr
    assert b"5 rules found" in checked.stdout
