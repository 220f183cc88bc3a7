"""The pipeline: the order of its checks, and conflicting path parameters."""

import pytest

from guestwire.dispatch.pipeline import merge_path
from guestwire.errors import InvalidParameters


def test_path_parameters_are_added_and_may_be_repeated_with_the_same_value() -> None:
    given = {"node": "pve1", "x": "y"}

    assert merge_path(given, {"node": "pve1", "vmid": "100"}) == {"node": "pve1", "vmid": "100", "x": "y"}


@pytest.mark.parametrize("other", ["pve2", "", None, ["pve1", "pve1"], 1])
def test_a_path_parameter_with_another_value_is_a_conflict(other: object) -> None:
    with pytest.raises(InvalidParameters) as refusal:
        merge_path({"node": other}, {"node": "pve1"})

    assert list(refusal.value.errors) == ["node"]
    assert "conflicting values" in refusal.value.errors["node"]
