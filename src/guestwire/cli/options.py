"""The options that commands share, what was given before a command, and the exit codes that end the help."""

from dataclasses import dataclass
from typing import Final

import click

json_option = click.option("--json", is_flag=True, help="JSON, with the API's names.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@dataclass(frozen=True, slots=True)
class Given:
    """What stands before the command: which host, and with which credentials; None for what was not given."""

    host: str | None = None
    profile: str | None = None
    token_file: str | None = None
    ca: str | None = None
    fingerprint: str | None = None
    insecure: bool = False

    @property
    def words(self) -> dict[str, str | bool | None]:
        """As `client.settings` names them, the profile left out."""
        return {
            "host": self.host,
            "token_file": self.token_file,
            "ca": self.ca,
            "fingerprint": self.fingerprint,
            "verify": False if self.insecure else None,
        }


def given_in(context: click.Context) -> Given:
    """What was given before the command."""
    return context.obj if isinstance(context.obj, Given) else Given()


EXIT_CODES: Final = """\
\b
Exit codes:
  0    done
  1    any other error
  2    wrong use, or the host refuses a parameter; nothing was done
  3    the guest or its agent can't do it: stopped, not running, an error of its own
  4    no such guest
  5    authentication: no credentials, or bad ones
  6    a privilege is missing
  7    a freeze was lost, or could not be ended
  69   the host can't be reached, or its certificate is not trusted
  74   a file of this machine can't be used, or what was copied is not what arrived
  78   configuration: no host, a profile or a file that can't be used
  124  the time is up
  130  Ctrl-C
With exec and shell it is the guest's own code; 128 + N for a process that signal N ended."""
