"""`dcosnet ca`: a private authority for the certificates of a cluster, in two commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from dcosnet.cli.failure import CommandError, Exit
from dcosnet.cli.output import print_json, printable
from dcosnet.cli.session import Session, pass_session

_CA_DAYS, _NODE_DAYS = 3650, 365
_LATEST = 36_500  # a century; beyond it the year has five digits one day
_days = click.IntRange(1, _LATEST)
_folder = click.Path(path_type=Path, file_okay=False)


@click.group("ca", short_help="Make the certificates of a cluster.")
def command() -> None:
    """
    Make a private authority, and certificates for the nodes of its cluster.

    Whoever has ca.key can be any node: it belongs on no host of the cluster.
    """


@command.command("init", short_help="Make an authority.")
@click.option("--cluster", default="dcosnet", show_default=True, help="The name of the cluster, as in [gossip].")
@click.option("--out", type=_folder, default=".", show_default=True, metavar="DIR", help="Where ca.pem and ca.key go.")
@click.option("--days", type=_days, default=_CA_DAYS, show_default=True, help="How long it is valid.")
@pass_session
def init(session: Session, cluster: str, out: Path, days: int) -> None:
    """Make an authority for a cluster: ca.pem for every host, and ca.key, which stays with you."""
    from dcosnet.cli.authority import CA, CA_KEY, Authority

    with _told():
        authority = Authority.make(out, cluster, days, datetime.now(UTC))
    expires = authority.certificate.not_valid_after_utc
    if session.json:
        print_json(
            {
                "cluster": cluster,
                "ca": str(out / CA),
                "key": str(out / CA_KEY),
                "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
            }
        )
        return
    _say(f"{out / CA} and {out / CA_KEY} are the authority of the cluster {cluster} until {expires:%Y-%m-%d}.")
    _say(f"Keep {out / CA_KEY} away from the hosts: whoever has it can be any of them.")
    place = "" if out == Path() else f" --out {out}"
    _say(f"Next, for each host: dcosnet ca issue NAME{place}")


@command.command("issue", short_help="Make a certificate for a node.")
@click.argument("name")
@click.option("--out", type=_folder, default=".", show_default=True, metavar="DIR", help="Where the folder NAME goes.")
@click.option("--ca", "authority_folder", type=_folder, metavar="DIR", help="Where the authority is; DIR of --out.")
@click.option("--days", type=_days, default=_NODE_DAYS, show_default=True, help="How long it is valid.")
@click.option("--renew", is_flag=True, help="Make a new one in the place of the one that is there.")
@pass_session
def issue(session: Session, name: str, out: Path, authority_folder: Path | None, days: int, renew: bool) -> None:
    """Make a key and a certificate for the node NAME, in a folder of that name to copy to its host."""
    from dcosnet.cli.authority import Authority

    with _told():
        authority = Authority.load(authority_folder if authority_folder is not None else out)
        issued = authority.issue(name, out / name, days, datetime.now(UTC), renew=renew)
    if session.json:
        print_json(
            {
                "node": name,
                "cluster": authority.cluster,
                "folder": str(issued.folder),
                "expires": f"{issued.expires:%Y-%m-%dT%H:%M:%SZ}",
            }
        )
        return
    _say(
        f"{issued.folder}/ is for the node {name} of the cluster {authority.cluster}, until {issued.expires:%Y-%m-%d}."
    )
    if issued.shortened:
        _say("It ends with its authority, before the days that were asked for.")
    _say(f"Copy its files to that host: scp {issued.folder}/* root@{name}:/etc/dcosnet/")
    if renew:
        _say("A daemon that runs takes them within some seconds; nothing has to be restarted.")
        return
    _say("What its configuration needs:")
    click.echo(
        f'\n[node]\nname = "{name}"\n\n[gossip]\ncluster = "{authority.cluster}"\nseeds = ["HOST:62501"]\n'
        'ca = "ca.pem"\ncert = "node.pem"\nkey = "node.key"'
    )


def _say(line: str) -> None:
    click.echo(printable(line))


@contextmanager
def _told() -> Iterator[None]:
    """What cannot be made as three lines, and an exit code."""
    from dcosnet.cli.authority import AuthorityError

    try:
        yield
    except AuthorityError as error:
        raise CommandError(Exit.FAILED, error.what, error.why, error.remedy) from None
    except OSError as error:
        why = f"{error.filename or 'the disk'}: {error.strerror}"
        raise CommandError(
            Exit.FAILED, "the files could not be written", why, "name another folder with --out"
        ) from None
