"""`dcosnet completion`: what a shell sources to complete the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", short_help="Print what a shell needs to complete.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion of the command for a shell: `source <(dcosnet completion bash)`."""
    complete = get_completion_class(shell)
    assert complete is not None, shell
    click.echo(complete(context.find_root().command, {}, "dcosnet", "_DCOSNET_COMPLETE").source())
