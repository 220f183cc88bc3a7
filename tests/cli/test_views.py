"""Commands that show an endpoint's result."""

from guestwire.cli.generate_views import FILE, view_names
from guestwire.contract.guest_registry import CLIENT_ENDPOINTS


def test_the_file_of_their_names_is_fresh() -> None:
    assert FILE.read_text() == view_names(CLIENT_ENDPOINTS), "run ./dev docs"
