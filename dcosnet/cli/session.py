"""What the global options say, and what verbs make of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from dcosnet.cli.addresses import DEFAULTS, ApiAddress, UnixAddress, configured, parse_api
from dcosnet.cli.api import Api
from dcosnet.cli.failure import CommandError, Exit
from dcosnet.config.merge import DEFAULT_MAIN, Merged, read
from dcosnet.errors import ConfigErrors


@attrs.define
class Session:
    """The options of one invocation; those after the verb win over those before it."""

    config: Path | None = None
    api: str | None = None
    output: str = "table"

    @property
    def main(self) -> Path | None:
        """The configuration file in effect: the one that was named, or the default one where it exists."""
        return self.config or (DEFAULT_MAIN if DEFAULT_MAIN.exists() else None)

    @property
    def json(self) -> bool:
        """Whether programs read the output."""
        return self.output == "json"

    def merged(self, sets: Sequence[str] = ()) -> Merged:
        """The configuration, as the daemon would merge it. Raises ConfigErrors."""
        return read(self.main, os.environ, sets)

    def addresses(self) -> tuple[ApiAddress, ...]:
        """Where the daemon may be, in the order to try."""
        if self.api is not None:
            return (parse_api(self.api),)
        try:
            return configured(self.merged()) or DEFAULTS
        except ConfigErrors:
            if self.config is not None:
                raise
            # Nobody named the file; it may well be for the daemon's eyes only.
            return DEFAULTS

    def daemon(self, timeout: float = 10.0) -> Api:
        """The daemon."""
        return Api(self.addresses(), timeout)

    def local_daemon(self, timeout: float = 10.0) -> Api:
        """The daemon over its UNIX socket, which vouches for who asks; an `--api` is taken as it is."""
        addresses = self.addresses()
        local = tuple(address for address in addresses if isinstance(address, UnixAddress))
        if not local and self.api is None:
            raise CommandError(
                Exit.INVALID,
                "this needs the daemon's UNIX socket",
                f"the configuration names only {', '.join(map(str, addresses))}",
                'add "unix:/run/dcosnet/api.sock:mode=660" to [ops] listen',
            )
        return Api(local or addresses, timeout)


pass_session = click.make_pass_decorator(Session, ensure=True)
