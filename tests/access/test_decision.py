import pytest

from guestwire.access import Subject, authorize
from guestwire.errors import Forbidden


@pytest.mark.parametrize("any_of", [("VM.PowerMgmt",), ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted")])
def test_the_administrator_may_do_everything(any_of: tuple[str, ...]) -> None:
    authorize(Subject("root@pam", "any"), "/vms/100", any_of)


@pytest.mark.parametrize("user", ["root@pve", "root", "ROOT@pam", "root@pam ", "alice@pve", ""])
def test_nobody_else_may(user: str) -> None:
    with pytest.raises(Forbidden):
        authorize(Subject(user, "admin"), "/vms/100", ("VM.PowerMgmt",))


@pytest.mark.parametrize(
    ("any_of", "text"),
    [
        (("VM.PowerMgmt",), "Permission check failed (/vms/100, VM.PowerMgmt)"),
        (("A", "B", "B"), "Permission check failed (/vms/100, A|B|B)"),
    ],
)
def test_a_refusal_names_path_and_privileges_as_proxmox_ve_does(any_of: tuple[str, ...], text: str) -> None:
    with pytest.raises(Forbidden) as refusal:
        authorize(Subject("alice@pve", "ci"), "/vms/100", any_of)
    assert (str(refusal.value), refusal.value.status) == (text, 403)
