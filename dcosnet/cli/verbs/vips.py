"""`dcosnet vips`: the virtual addresses, their backends, and what passes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from dcosnet.cli.api import TransientError
from dcosnet.cli.failure import CommandError, Exit
from dcosnet.cli.output import print_json, print_table, printable
from dcosnet.cli.rates import NONE, Pace, failed
from dcosnet.cli.session import Session, pass_session
from dcosnet.cli.watch import watch
from dcosnet.config.fields import Duration, parse_duration
from dcosnet.model.viplabels import ZONE

_SHORTEST, _LONGEST = 0.1, 86400.0
"""Seconds between two looks; more often would measure the looking."""

_Row = Sequence[object]


def _period(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value) if value.replace(".", "", 1).isdigit() else float(parse_duration(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time; write the name of a VIP before --watch") from None
    if not _SHORTEST <= seconds <= _LONGEST:
        raise click.BadParameter(f"{value!r} is not between {_SHORTEST} and {_LONGEST:.0f} seconds")
    return seconds


@click.command("vips", short_help="Show the VIPs, their backends and what passes.")
@click.argument("name", required=False)
@click.option("--detail", is_flag=True, help="A line for each backend, with its counts.")
@click.option(
    "--watch",
    "period",
    is_flag=False,
    flag_value="1",
    metavar="[SECONDS]",
    callback=_period,
    help="Show rates, again and again until Ctrl-C.",
)
@pass_session
def command(session: Session, name: str | None, detail: bool, period: float | None) -> None:
    """
    Show the VIPs with their addresses and backends, all or those that NAME means.

    NAME is a name or a glob, with or without port and zone: "web.shop", "*.shop",
    "web.shop:8000"; or an address that VIPs answer on. What is counted is what
    passes through this node; IN is towards backends, OUT towards clients. Why
    something is not served follows on the error output. The exit code is 1 where
    NAME means none.
    """
    path = "/v1/vips?detail" if name is None else f"/v1/vips?detail&name={quote(name, safe='')}"

    def ask() -> Any:
        return session.daemon().get(path)

    if period is not None:
        pace = Pace()

        def show(vips: Any, now: float) -> None:
            looked = pace.take(vips, now)
            if session.json:
                click.echo(json.dumps(looked))
            else:
                _repaint(looked, detail=detail)
            # Whoever reads through a pipe wants it now.
            if sys.stdout is not None:
                sys.stdout.flush()

        def lost(error: TransientError) -> None:
            pace.forget()
            error.show()

        watch(ask, show, lost, period)
        return
    vips = ask()
    if session.json:
        print_json(vips)
    elif vips or name is None:
        _show(vips, detail=detail)
    if name is not None and not vips:
        raise CommandError(
            Exit.FAILED, "no VIP is shown", f"{name!r} means none", "`dcosnet vips` lists all that are known"
        )


def _show(vips: Sequence[Mapping[str, Any]], *, detail: bool) -> None:
    if detail:
        print_table(_DETAILS, list(_details(vips)))
    else:
        print_table(
            ["VIP", "PROTOCOL", "ADDRESS", "STATE", "ACTIVE", "BACKENDS"],
            [
                [
                    vip["vip"],
                    vip["protocol"],
                    vip["address"],
                    vip["state"],
                    vip["total"]["active"],
                    [_backend(one) for one in vip["backend"]],
                ]
                for vip in vips
            ],
        )
    for line in _problems(vips):
        click.echo(printable(line), err=True)


_DETAILS = (
    "VIP", "PROTOCOL", "BACKEND", "WEIGHT", "STATE", "ACTIVE", "CONNECTIONS", "FAILURES", "RETRIES",
    "IN", "OUT", "IDLE ENDED", "CONNECT",
)  # fmt: skip


def _details(vips: Sequence[Mapping[str, Any]]) -> Iterator[_Row]:
    for vip in vips:
        for one in vip["backend"]:
            counts = one["counts"] or NONE
            taken = sum(counts["connect"]["counts"])
            yield [
                vip["vip"],
                vip["protocol"],
                _endpoint(one),
                one["weight"],
                _fares(one),
                counts["active"],
                counts["connections"],
                _failures(counts),
                counts["retries"],
                _size(counts["bytes"]["to_backend"]),
                _size(counts["bytes"]["to_client"]),
                counts["idle_closed"],
                _milliseconds(counts["connect"]["seconds"] / taken if taken else None),
            ]


_RATES = ("STATE", "ACTIVE", "CONN/S", "FAIL/S", "IN MB/S", "OUT MB/S", "P50", "P99")


def _repaint(vips: Sequence[Mapping[str, Any]], *, detail: bool) -> None:
    """On a terminal the busiest that fit, in place of what was there; elsewhere all, below it."""
    headings: tuple[str, ...] = ("VIP", "PROTOCOL", *(("BACKEND",) if detail else ()), *_RATES)
    rows = list(_backends(vips) if detail else _totals(vips))
    if sys.stdout is None or not sys.stdout.isatty():
        print_table(headings, [row for _, row in rows])
        click.echo()
        return
    # One line for the headings, one for what is left out, one for the cursor.
    columns, lines = shutil.get_terminal_size()
    room = max(1, lines - 3)
    shown = sorted(rows, key=lambda row: row[0], reverse=True)[:room]
    click.clear()
    print_table(headings, [[_short(str(row[0])), *row[1:]] for _, row in shown], columns)
    if len(rows) > len(shown):
        click.echo(f"and {len(rows) - len(shown)} more")


def _short(vip: str) -> str:
    """A VIP without the zone, for which a terminal has no room; `vips` takes it as it is."""
    return vip.replace(f".{ZONE}:", ":")


def _totals(vips: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, _Row]]:
    for vip in vips:
        yield _busy(vip), [vip["vip"], vip["protocol"], vip["state"], *_rates(vip["rates"], vip["total"])]


def _backends(vips: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, _Row]]:
    for vip in vips:
        for one in vip["backend"]:
            counts = one["counts"] or NONE
            yield _busy(one), [vip["vip"], vip["protocol"], _endpoint(one), _fares(one), *_rates(one["rates"], counts)]


def _busy(told: Mapping[str, Any]) -> float:
    rate = told["rates"]
    return 0.0 if rate is None else float(rate["connections"] + rate["failures"] + rate["to_client"] / 1e6)


def _rates(rate: Mapping[str, Any] | None, counts: Mapping[str, Any]) -> _Row:
    if rate is None:
        return [counts["active"], *[None] * 6]
    return [
        counts["active"],
        f"{rate['connections']:.1f}",
        f"{rate['failures']:.1f}",
        f"{rate['to_backend'] / 1e6:.2f}",
        f"{rate['to_client'] / 1e6:.2f}",
        _milliseconds(rate["p50"]),
        _milliseconds(rate["p99"]),
    ]


def _problems(vips: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for vip in vips:
        for one in vip["listeners"]:
            if one["problem"] is not None:
                endpoint = _endpoint({"ip": one["address"], "port": one["port"]})
                where = "" if endpoint == vip["vip"] else f"{endpoint}: "
                yield f"{vip['protocol']}/{vip['vip']}: {where}{one['problem']}"
        yield from (f"{vip['protocol']}/{vip['vip']}: {problem}" for problem in vip["problems"])
        if vip["backend"] and all(one["draining"] for one in vip["backend"]):
            why = ", ".join(dict.fromkeys("drained" if one["drains"] else _UNWANTED for one in vip["backend"]))
            yield f"{vip['protocol']}/{vip['vip']}: new flows are refused, because all its backends are {why}"


_UNWANTED = "unhealthy or of weight 0"
"""Why a backend that no drain concerns gets no new flows; `dcosnet tasks` tells which."""


def _endpoint(one: Mapping[str, Any]) -> str:
    ip = f"[{one['ip']}]" if ":" in one["ip"] else one["ip"]
    return f"{ip}:{one['port']}"


def _backend(backend: Mapping[str, Any]) -> str:
    weight = "" if backend["weight"] == 1 else f"*{backend['weight']}"
    if backend["draining"]:
        use: str | None = "drains" if backend["drains"] else "off"
    else:
        use = {"resting": "rests", "suspect": "failed"}.get(backend["use"])
    return _endpoint(backend) + (weight if use is None else f"({use})")


def _fares(backend: Mapping[str, Any]) -> str | None:
    if backend["draining"]:
        return f"draining: {' '.join(backend['drains'])}" if backend["drains"] else f"off: {_UNWANTED}"
    if backend["use"] is None:
        return None
    left = f" {Duration(float(int(backend['seconds']))).text}" if backend["seconds"] >= 1 else ""
    why = "" if backend["why"] is None else f": {backend['why']}"
    return f"{backend['use']}{left}{why}"


def _failures(counts: Mapping[str, Any]) -> str:
    reasons = [f"{reason} {count}" for reason, count in counts["failures"].items() if count]
    return f"{failed(counts)} ({', '.join(reasons)})" if reasons else "0"


def _size(octets: int) -> str:
    size, units = float(octets), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{octets}B" if unit == "B" else f"{size:.1f}{unit}"


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:.2f}ms"
