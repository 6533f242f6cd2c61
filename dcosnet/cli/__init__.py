"""The `dcosnet` command, for people who operate nodes. It has no reactor; it asks the daemon over HTTP."""

from __future__ import annotations


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    from dcosnet.cli.command import dcosnet

    dcosnet(prog_name="dcosnet")
