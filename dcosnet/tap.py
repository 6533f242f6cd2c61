"""What `twistd dcosnet` runs: parse, load, assemble, and nothing more."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from twisted.application.service import IService, MultiService
from twisted.internet.error import CannotListenError
from twisted.python import usage

from dcosnet.assemble import assemble, build, configure
from dcosnet.config.merge import DEFAULT_MAIN, read
from dcosnet.errors import DcosnetError
from dcosnet.io import activation, heap
from dcosnet.io.host import allow_all_descriptors
from dcosnet.io.notify import Announcer, Notifier

INVALID = 2
"""The exit code for a configuration that cannot be used."""


class Options(usage.Options):
    """What must be known before a configuration file is read; all else is TOML."""

    synopsis = "[-c FILE] [--set table.key=value]... [--check]"
    optParameters = [  # noqa: RUF012 - the shape that usage.Options reads
        ["config", "c", None, f"configuration file (default: {DEFAULT_MAIN}, where it exists)", Path],
    ]
    optFlags = [["check", None, "check the configuration, then exit: 0 when it can be used, else 2"]]  # noqa: RUF012 - as above

    def __init__(self) -> None:
        super().__init__()
        self.sets: list[str] = []

    def opt_set(self, assignment: str) -> None:
        """table.key=value: override a setting; may be given several times"""
        self.sets.append(assignment)

    @property
    def config_file(self) -> Path | None:
        """The file that was named, or the default one where it exists."""
        named: Path | None = self["config"]
        return named or (DEFAULT_MAIN if DEFAULT_MAIN.exists() else None)


def makeService(options: Options) -> IService:
    """The root service. Ends the process with one clear text when the configuration cannot be used."""
    # twistd chooses the reactor before it calls this, not before it imports this module.
    from twisted.internet import reactor

    activation.remember(os.environ)
    try:
        settings = configure(read(options.config_file, os.environ, options.sets))
        if options["check"]:
            build(settings, reactor)
            sys.stdout.write("The configuration is valid.\n")
            raise SystemExit(0)
        allow_all_descriptors()
        tree, toolbox = assemble(settings, reactor)
    except DcosnetError as error:
        _give_up(error)
    root = Root()
    tree.setServiceParent(root)
    Announcer(Notifier(os.environ, reactor), os.environ, toolbox.readiness, reactor).setServiceParent(root)
    heap.begin()  # while nobody waits for an answer yet
    return root


class Root(MultiService):
    """The root of the tree; turns a socket that cannot be had into one line on the console."""

    def privilegedStartService(self) -> None:
        """Bind what the parts listen on."""
        try:
            super().privilegedStartService()
        except (DcosnetError, CannotListenError) as error:
            _give_up(error)


def _give_up(error: Exception) -> NoReturn:
    # twistd has put its log in the place of sys.stderr by the time sockets are bound.
    console = sys.__stderr__ or sys.stderr
    for line in str(error).splitlines():
        console.write(f"dcosnet: {line}\n")
    raise SystemExit(INVALID) from None
