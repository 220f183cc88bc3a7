"""The options that say which host, and who calls; the client's own (docs/client.md)."""

from __future__ import annotations


class ModuleDocFragment:
    """For C(extends_documentation_fragment)."""

    DOCUMENTATION = r"""
requirements:
  - guestwire, in the Python that runs Ansible
options:
  host:
    description:
      - C(https://HOST:8006), which is Proxmox VE or guestwire, or an agent's own socket, as C(unix:/run/vm/100.qga) or C(vsock:3:1024).
      - What is not given comes from the profile, then from the environment (E(GUESTWIRE_HOST) and the others of guestwire's command
        line), then from the profile C(default).
    type: str
  token:
    description: An API token, C(USER@REALM!NAME=SECRET).
    type: str
  token_file:
    description: A file with an API token, which other users can't read.
    type: path
  user:
    description: Log in as this user, C(NAME@REALM), with O(password).
    type: str
  password:
    description: Of O(user).
    type: str
  ca:
    description: A file with the CA, or the very certificate, that is trusted.
    type: path
  fingerprint:
    description: The SHA-256 of the certificate that is trusted, C(AA:BB:…), as Proxmox VE shows it.
    type: str
  profile:
    description: A table in C(~/.config/guestwire/config.toml).
    type: str
"""

    VARIABLES = r"""
options:
  host:
    vars:
      - name: guestwire_host
  token:
    vars:
      - name: guestwire_token
  token_file:
    vars:
      - name: guestwire_token_file
  user:
    vars:
      - name: guestwire_user
  password:
    vars:
      - name: guestwire_password
  ca:
    vars:
      - name: guestwire_ca
  fingerprint:
    vars:
      - name: guestwire_fingerprint
  profile:
    vars:
      - name: guestwire_profile
"""

    GUEST = r"""
options:
  guest:
    description: The VM's name, its id, or its node and id (C(pve1/100)). Behind an agent's own socket any name is taken.
    type: str
    required: true
attributes:
  check_mode:
    description: Can run in check_mode and say what would change, without changing it.
"""
