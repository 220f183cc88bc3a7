"""Runs Ansible's modules in a guest, through its QEMU guest agent."""

from __future__ import annotations

DOCUMENTATION = r"""
name: guest
short_description: Work in virtual machines through their QEMU guest agent
version_added: 0.1.0
author:
  - guestwire (@guestwire)
description:
  - Runs commands and copies files in a guest of Proxmox VE, of guestwire, or behind an agent's own socket. No network and no SSH is
    needed in the guest.
  - The agent runs everything as its own user, which is C(root) in a Unix and C(SYSTEM) in Windows. C(become) goes on from there.
  - A password for C(become) goes by standard input. Together with a module larger than 64 KiB it stands, while the module starts, in
    a file of the guest that only C(root) can read.
  - A Windows guest needs C(ansible_shell_type=powershell); the inventory P(guestwire.guestwire.guests#inventory) sets it.
extends_documentation_fragment:
  - guestwire.guestwire.host
  - guestwire.guestwire.host.variables
options:
  guest:
    description: The VM's name, its id, or its node and id (C(pve1/100)). What is not given is the host's name in the inventory.
    type: str
    vars:
      - name: guestwire_guest
  wait:
    description:
      - Seconds that a task waits for an agent's own socket. It serves one client at a time, so tasks for one guest, of this run and of
        others of the same user, have it by turns.
      - How long a command may take, the task's keyword C(timeout) says.
    type: int
    default: 600
    vars:
      - name: guestwire_wait
  pipelining:
    description: Modules are given to Python by standard input, and not copied to the guest first.
    type: boolean
    default: true
    env:
      - name: ANSIBLE_PIPELINING
    ini:
      - section: defaults
        key: pipelining
      - section: connection
        key: pipelining
    vars:
      - name: ansible_pipelining
"""

import contextlib
import fcntl
import hashlib
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import ansible.constants as C  # noqa: N812  # as Ansible itself calls them
from ansible.errors import AnsibleAuthenticationFailure, AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.shell.powershell import _replace_stderr_clixml
from ansible.utils.display import Display
from ansible_collections.guestwire.guestwire.plugins.module_utils.client import (
    MISSING,
    SETTINGS,
    GuestwireError,
    connect,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from guestwire import SyncGuest, SyncHost

R = TypeVar("R")

SIGNALLED: Final = 128
"""The exit code that a shell has for a process that a signal ended, less that signal."""

OF_THE_GUEST: Final = frozenset({"AgentRefused", "ErrorTextLost", "FileRefused", "LocalFile", "WrongParameters"})
"""Errors with which the guest is there and answers: the task failed, and not the connection."""

PAUSE: Final = 0.05
"""Seconds between two looks whether a socket is free."""

display = Display()


class Connection(ConnectionBase):
    """One guest. Each of Ansible's processes has its own, which it closes at the end of its task."""

    transport = "guestwire.guestwire.guest"
    has_pipelining = True
    has_tty = False
    default_user = "root"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._host: SyncHost | None = None
        self._guest: SyncGuest | None = None
        self._turn: IO[str] | None = None
        self._is_windows = bool(getattr(self._shell, "_IS_WINDOWS", False))
        if self._is_windows:
            self.has_native_async = True
            self.always_pipeline_modules = True
            self.module_implementation_preferences = (".ps1", ".exe", "")
            self.allow_executable = False

    def _connect(self) -> Connection:
        if MISSING:
            raise AnsibleConnectionFailure(MISSING)
        self._guest_now()
        return self

    def _guest_now(self) -> SyncGuest:
        if self._guest is None:
            try:
                self._guest = self._call(self._connected_guest)
            except BaseException:
                self.close()
                raise
            self._connected = True
        return self._guest

    def _connected_guest(self) -> SyncGuest:
        name = self.get_option("guest") or self._play_context.remote_addr
        self._host = connect({name: self.get_option(name) for name in SETTINGS})
        guest = self._host.guest("".join(name))
        display.vvv(f"CONNECT to guest {guest.vm.name} on {self._host.name}", host=name)
        if self._host.is_local:
            self._turn = self._take_turn(self._host.name)
        return guest

    def _take_turn(self, target: str) -> IO[str]:
        """A lock for the agent's own socket, which serves one client at a time.

        A second one would get no answer, as from an agent that is dead.
        """
        folder = Path(C.config.get_config_value("ANSIBLE_HOME")).expanduser() / "guestwire"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / f"{hashlib.sha256(target.encode()).hexdigest()[:20]}.lock").open("w")
        until = time.monotonic() + self.get_option("wait")
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            if time.monotonic() > until:
                lock.close()
                raise AnsibleConnectionFailure(
                    f"{target}: other tasks have this socket since {self.get_option('wait')} seconds"
                )
            time.sleep(PAUSE)

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:  # noqa: FBT001, FBT002  # as the base class has it
        """Runs a command line, with standard input; returns exit code and outputs."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        display.vvv(f"EXEC {cmd}", host=self._name)
        data = in_data
        if self._is_windows:
            argv = self._powershell(cmd)
        else:
            if sudoable:
                cmd, data = self._with_password(cmd, in_data)
            argv = ["/bin/sh", "-c", cmd]
        process = self._call(lambda: self._guest_now().run(argv, input=data or None))
        if process.stdout_truncated or process.stderr_truncated:
            raise AnsibleError(f"{self._name}: the command's output is longer than the agent keeps (16 MiB)")
        code = SIGNALLED + process.signal if process.signal else process.code or 0
        stderr = _replace_stderr_clixml(process.stderr) if self._is_windows else process.stderr
        if sudoable and code and self.become and not self.become.check_success(process.stdout):
            self._raise_for_password(process.stdout + stderr)
        return code, process.stdout, stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copies a file to the guest, checked by its SHA-256."""
        super().put_file(in_path, out_path)
        display.vvv(f"PUT {in_path} TO {out_path}", host=self._name)
        self._call(lambda: self._guest_now().upload("".join(in_path), self._path(out_path)))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copies a file from the guest, checked by its SHA-256."""
        super().fetch_file(in_path, out_path)
        display.vvv(f"FETCH {in_path} TO {out_path}", host=self._name)
        self._call(lambda: self._guest_now().download(self._path(in_path), "".join(out_path)))

    def close(self) -> None:
        """Ends the connection."""
        host, self._host, self._guest, self._connected = self._host, None, None, False
        if host:
            host.close()
        turn, self._turn = self._turn, None
        if turn:
            turn.close()

    def reset(self) -> None:
        """The next call connects again."""
        self.close()

    @property
    def _name(self) -> str:
        return str(self.get_option("guest") or self._play_context.remote_addr)

    def _path(self, path: str) -> str:
        return "".join(self._shell._unquote(path) if self._is_windows else path)  # noqa: SLF001  # as Ansible's own connections

    def _powershell(self, cmd: str) -> list[str]:
        """A command line of PowerShell as its arguments; any other is a script for it."""
        encode = self._shell._encode_script  # noqa: SLF001  # as Ansible's own connections
        if cmd.startswith(encode("", strict_mode=False, preserve_rc=False)):
            return cmd.split(" ")
        argv: list[str] = encode(cmd, as_list=True, strict_mode=False, preserve_rc=False)
        return argv

    def _with_password(self, cmd: str, in_data: bytes | None) -> tuple[str, bytes | None]:
        """Command and input with which C(become) finds its password.

        Nothing tells here whether it will ask: as C(root), which agents are, it does not. So the password stands before
        the input, and the shell that C(become) starts reads up to the line that ends it: what C(become) did not read is
        no part of the input. A shell reads a line without one byte more.
        """
        password = self.become and self.become.expect_prompt() and self.become.get_option("become_pass")
        if not password:
            return cmd, in_data
        success = self.become.success
        begins = success.replace("SUCCESS", "INPUT")
        skip = f"while read -r line; do case $line in {begins}) break;; esac; done"
        cmd = cmd.replace(f"{success} ;", f"{success} ; {skip} ;")
        return cmd, f"{password}\n{begins}\n".encode("utf-8", "surrogateescape") + (in_data or b"")

    def _raise_for_password(self, output: bytes) -> None:
        method = self.become.name
        if self.become.check_incorrect_password(output):
            raise AnsibleAuthenticationFailure(f"{self._name}: {method} says that the password is wrong")
        if self.become.check_missing_password(output):
            raise AnsibleAuthenticationFailure(f"{self._name}: {method} wants a password, and none is given")

    def _call(self, call: Callable[[], R]) -> R:
        try:
            return call()
        except GuestwireError as error:
            kind = type(error).__name__
            if kind == "LoginFailed":
                raise AnsibleAuthenticationFailure(str(error)) from error
            if kind in OF_THE_GUEST:
                is_missing = "No such file" in str(error)
                raise (AnsibleFileNotFound if is_missing else AnsibleError)(str(error)) from error
            raise AnsibleConnectionFailure(str(error)) from error
