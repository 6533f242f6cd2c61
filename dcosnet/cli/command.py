"""
The command's frame: global options, verbs found by name, and how anything ends.

A verb is a module of `cli/verbs` with a click command of the same name in
`command`; it is imported when it is asked for.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from dcosnet import __version__
from dcosnet.cli import verbs
from dcosnet.cli.failure import CommandError, Exit
from dcosnet.cli.output import print_json, printable
from dcosnet.cli.session import Session
from dcosnet.errors import ConfigError, ConfigErrors, DcosnetError


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Put a global option into the session, wherever it was given."""
    session = context.ensure_object(Session)
    if value is not None:
        setattr(session, str(parameter.name), value)


def _global_options(api_variable: str | None = None) -> list[click.Parameter]:
    return [
        click.Option(
            ["-c", "--config"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            callback=_keep,
            expose_value=False,
            help="The daemon's configuration file.",
        ),
        click.Option(
            ["--api"],
            envvar=api_variable,
            metavar="URL",
            callback=_keep,
            expose_value=False,
            help="The daemon: http://HOST:PORT or unix:/PATH; also in DCOSNET_API.",
        ),
        click.Option(
            ["-o", "--output"],
            type=click.Choice(["table", "json"]),
            callback=_keep,
            expose_value=False,
            help="For people or for programs.",
        ),
    ]


def _add_global_options(command: click.Command) -> None:
    """Let the global options stand after a verb, and after the verbs inside it."""
    taken = {name for parameter in command.params for name in parameter.opts}
    command.params.extend(option for option in _global_options() if taken.isdisjoint(option.opts))
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _add_global_options(inner)


class Verbs(click.Group):
    """A group whose commands are modules; global options may also stand after the verb."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """All verbs, by name."""
        return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(verbs.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"{verbs.__name__}.{cmd_name.replace('-', '_')}").command
        _add_global_options(command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. What dcosnet raises on purpose becomes lines and an exit code."""
        try:
            return super().invoke(ctx)
        except CommandError as error:
            error.show()
            ctx.exit(error.code)
        except ConfigErrors as error:
            _tell(ctx, error.problems)
            ctx.exit(Exit.INVALID)
        except DcosnetError as error:
            _tell(ctx, [error])
            ctx.exit(Exit.INVALID)
        except BrokenPipeError:
            raise  # whoever read the output has enough; click ends quietly
        except OSError as error:
            why = error.strerror or str(error)
            CommandError(Exit.FAILED, "the output could not be written", why, "look where it goes").show()
            ctx.exit(Exit.FAILED)
        except KeyboardInterrupt:
            ctx.exit(130)  # as a shell says it: 128 and SIGINT


def _tell(context: click.Context, problems: Any) -> None:
    if context.ensure_object(Session).json:
        print_json({"valid": False, "problems": [_told(problem) for problem in problems]})
        return
    for problem in problems:
        click.echo(printable(f"dcosnet: {problem}"), err=True)


def _told(problem: DcosnetError) -> dict[str, str]:
    if isinstance(problem, ConfigError):
        return {"path": problem.path, "reason": problem.reason, "origin": problem.origin}
    return {"path": "", "reason": str(problem), "origin": ""}


@click.group(cls=Verbs, params=_global_options("DCOSNET_API"), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dcosnet")
@click.pass_context
def dcosnet(context: click.Context) -> None:
    """
    Look at a dcosnet node and work with it.

    Exit codes: 0 ok, 1 failed or degraded, 2 usage or configuration invalid,
    3 daemon unreachable, 4 not allowed, 5 timed out.
    """
    context.ensure_object(Session)
