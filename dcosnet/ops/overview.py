"""
The overview page: values in, HTML out.

Pure. Every text that comes from outside goes through `_text`; nothing else
makes `_Html` of it. The page loads nothing and runs no script, and a policy
header says so to the browser; it is read again every few seconds.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NewType

import attrs

from dcosnet.model.facts import Problem, SourceStatus
from dcosnet.model.member import Member, MemberDetail, MemberState, Refusal
from dcosnet.model.net import Address, Endpoint, Protocol
from dcosnet.model.node import Node
from dcosnet.model.snapshot import Owned
from dcosnet.model.task import Health, Port, Task, TaskState
from dcosnet.model.traffic import BackendTraffic, VipTraffic
from dcosnet.model.vip import Backend, Vip
from dcosnet.model.zone import Zone

_Html = NewType("_Html", str)

ROWS_MAX = 500
"""Rows shown of each table; a page of ten thousand tasks helps nobody, the JSON has them all."""

REFRESH = 5
"""Seconds after which a browser reads the page again."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #b3261e; --good: #1a7f37; --dim: #6a6a6a }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #6fdc8c; --dim: #a0a0a0 } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem }
h1 { font-size: 1.5rem; margin: 0 }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top }
th { font-weight: 600; color: var(--dim); font-size: .85rem }
td { overflow-wrap: anywhere; min-width: 5rem }
code { font: .9em ui-monospace, monospace }
ul { list-style: none; margin: 0; padding: 0 }
.good { color: var(--good) }
.bad { color: var(--bad); font-weight: 600 }
.dim, footer { color: var(--dim) }
footer { margin-top: 2rem; font-size: .9rem }
"""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)
"""Allows the page's one style sheet and nothing else."""


@attrs.frozen
class ShownVip:
    """A VIP with the text that dcos-net gives it, the addresses it answers on, and what planes carry for it."""

    text: str
    addresses: Sequence[Address]
    vip: Vip
    traffic: Sequence[VipTraffic] = ()


@attrs.frozen
class Overview:
    """All that the page shows, in the order in which it shows it; `uptime` in seconds."""

    node: Node
    uptime: float
    parts: Mapping[str, str | None]
    troubles: Mapping[str, Sequence[Problem]] = attrs.field(factory=dict)
    """What each part could not do, though it is ready for the rest."""
    vips: Sequence[ShownVip] = ()
    tasks: Sequence[Owned[Task]] = ()
    sources: Sequence[tuple[str, SourceStatus]] = ()
    zones: Sequence[Zone] = ()
    members: Sequence[tuple[Member, MemberDetail]] = ()
    refusals: Sequence[Refusal] = ()


def page(overview: Overview) -> str:
    """The whole document."""
    node = _text(overview.node.name)
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f'<meta http-equiv="refresh" content="{REFRESH}">\n',
            f"<title>{node} - dcosnet</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n",
            f"<header>\n<h1>{node}</h1>\n<p>{_summary(overview)}</p>\n</header>\n<main>\n",
            _section("Parts", "/v1/status", _table(("Part", "State"), _parts(overview))),
            _section("Virtual addresses", "/v1/vips?detail", _vips(overview)),
            _section("Tasks", "/v1/tasks", _tasks(overview.tasks)),
            _section("Sources", "/v1/sources", _sources(overview.sources)),
            _section("Zones", "/v1/records", _table(("Zone", "Names", "Records", "State"), map(_zone, overview.zones))),
            _section("Members", "/v1/members", _members(overview)),
            f"</main>\n<footer>This page renews itself every {REFRESH} seconds. Counts are at ",
            '<a href="/metrics">/metrics</a>.</footer>\n</body>\n</html>\n',
        ]
    )


def _text(value: object) -> _Html:
    return _Html(escape(str(value)))


def _code(value: object) -> _Html:
    return _Html(f"<code>{_text(value)}</code>")


def _marked(kind: str, value: object) -> _Html:
    return _Html(f'<span class="{kind}">{_text(value)}</span>')


def _join(parts: Iterable[_Html], separator: str = " ") -> _Html:
    return _Html(separator.join(parts))


def _list(items: Sequence[_Html]) -> _Html:
    """One item a line; a dash where there is none."""
    if not items:
        return _marked("dim", "-")
    return _Html("<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>")


def _section(title: str, link: str, content: _Html) -> _Html:
    return _Html(
        f'<section>\n<h2>{_text(title)} <a class="dim" href="{_text(link)}">JSON</a></h2>\n{content}</section>\n'
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[_Html]]) -> _Html:
    shown = list(rows)
    if not shown:
        return _Html('<p class="dim">None.</p>\n')
    head = "".join(f'<th scope="col">{_text(each)}</th>' for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in shown[:ROWS_MAX])
    more = f'<p class="dim">and {len(shown) - ROWS_MAX} more</p>\n' if len(shown) > ROWS_MAX else ""
    return _Html(
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n{more}'
    )


def _summary(overview: Overview) -> _Html:
    waiting = [name for name, reason in overview.parts.items() if reason is not None]
    state = _marked("bad", f"not ready: {', '.join(waiting)}") if waiting else _marked("good", "ready")
    about = f"dcosnet {overview.node.version} at {overview.node.address}, up {duration(overview.uptime)}"
    return _join([state, _marked("dim", "|"), _text(about)])


def duration(seconds: float) -> str:
    """ "3d 4h", "4h 5m", "5m 6s" or "6s": the two largest units."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def _state(reason: str | None, good: str = "ready") -> _Html:
    return _marked("good", good) if reason is None else _marked("bad", reason)


def _parts(overview: Overview) -> Iterable[Sequence[_Html]]:
    for name, reason in overview.parts.items():
        troubles = [_marked("bad", f"{each.reference}: {each.reason}") for each in overview.troubles.get(name, ())]
        yield _text(name), _join([_state(reason), *([_list(troubles)] if troubles else [])])


def _vips(overview: Overview) -> _Html:
    unhealthy = {
        endpoint
        for owned in overview.tasks
        if owned.value.health is Health.UNHEALTHY
        for endpoint in _endpoints(owned.value)
    }
    return _table(
        ("VIP", "Protocol", "Addresses", "In flight", "Backends"),
        (_vip(shown, unhealthy) for shown in overview.vips),
    )


def _vip(shown: ShownVip, unhealthy: set[tuple[Protocol, Endpoint]]) -> Sequence[_Html]:
    protocol = shown.vip.key.protocol
    fares = {one.endpoint: one for traffic in shown.traffic for one in traffic.backends()}
    troubles = [
        _marked("bad", f"{listener.endpoint}: {listener.problem}")
        for traffic in shown.traffic
        for listener in traffic.listeners
        if listener.problem is not None
    ]
    troubles += [_marked("bad", problem) for traffic in shown.traffic for problem in traffic.problems]
    return (
        _join([_code(shown.text), *([_list(troubles)] if troubles else [])]),
        _text(protocol),
        _list([_code(address) for address in shown.addresses]),
        _text(sum(traffic.total.active for traffic in shown.traffic) if shown.traffic else "-"),
        _list(
            [
                _backend(backend, protocol, unhealthy, fares.get(backend.endpoint))
                for backend in shown.vip.backends[:ROWS_MAX]
            ]
        ),
    )


def _endpoints(task: Task) -> Iterable[tuple[Protocol, Endpoint]]:
    """Wherever a backend of the task may be: at its own addresses, or mapped on its agent."""
    for port in task.ports:
        if port.port is not None:
            for address in task.addresses:
                yield port.protocol, Endpoint(address, port.port)
        if port.host_port is not None:
            yield port.protocol, Endpoint(task.agent, port.host_port)


def _backend(
    backend: Backend, protocol: Protocol, unhealthy: set[tuple[Protocol, Endpoint]], fares: BackendTraffic | None
) -> _Html:
    told = [_code(backend.endpoint)]
    if (protocol, backend.endpoint) in unhealthy:
        told.append(_marked("bad", "unhealthy"))
    elif backend.draining:
        told.append(_marked("dim", "draining"))
    elif backend.weight != 1:
        told.append(_marked("dim", f"weight {backend.weight}"))
    if fares is not None and fares.flows.active:
        told.append(_marked("dim", f"{fares.flows.active} in flight"))
    if fares is not None and fares.why is not None:
        told.append(_marked("bad", f"{fares.use} for {duration(fares.seconds)}: {fares.why}"))
    return _join(told)


def _tasks(tasks: Sequence[Owned[Task]]) -> _Html:
    return _table(
        ("Task", "Framework", "Addresses", "Ports", "State", "Health", "Told by"),
        (
            (
                _join([_text(owned.value.name), _marked("dim", owned.value.id.task)], "<br>"),
                _text(owned.value.framework),
                _list([_code(address) for address in owned.value.addresses]),
                _list([_port(port) for port in owned.value.ports]),
                _marked("good" if owned.value.state is TaskState.RUNNING else "dim", owned.value.state),
                _health(owned.value.health),
                _join(
                    [
                        _text(f"{owned.value.provenance.source} on {owned.owner}"),
                        _marked("dim", owned.value.provenance.reference),
                    ],
                    "<br>",
                ),
            )
            for owned in tasks
        ),
    )


def _port(port: Port) -> _Html:
    number = port.port if port.port is not None else port.host_port
    mapped = f" (agent {port.host_port})" if port.host_port is not None and port.host_port != number else ""
    return _join([_code(f"{number}/{port.protocol}{mapped}"), *(_marked("dim", vip) for vip in port.vips)])


def _health(health: Health) -> _Html:
    return _marked({Health.HEALTHY: "good", Health.UNHEALTHY: "bad"}.get(health, "dim"), health)


def _sources(sources: Sequence[tuple[str, SourceStatus]]) -> _Html:
    return _table(
        ("Source", "State", "Tasks", "Problems"),
        (
            (
                _text(name),
                _join(
                    [_state(None if status.synced else "not synced", "synced"), _marked("dim", status.detail)], "<br>"
                ),
                _text(status.tasks),
                _list(
                    [
                        _join([_code(problem.reference), _marked("bad", problem.reason)])
                        for problem in status.problems[:ROWS_MAX]
                    ]
                ),
            )
            for name, status in sources
        ),
    )


def _members(overview: Overview) -> _Html:
    heads = ("Member", "State", "Since", "Round trip", "Addresses", "Accused by")
    refusals = [
        _join(
            [_code(one.peer), _marked("bad", one.text), _marked("dim", f"{duration(one.age)} ago, times: {one.count}")]
        )
        for one in overview.refusals[:ROWS_MAX]
    ]
    refused = f"<p>Refused, by this node or by the peer:</p>\n{_list(refusals)}\n" if refusals else ""
    return _Html(_table(heads, (_member(*one) for one in overview.members)) + refused)


def _member(member: Member, detail: MemberDetail) -> Sequence[_Html]:
    alive = member.state is MemberState.ALIVE
    kind = "dim" if member.state is MemberState.LEFT else "good" if alive and not detail.degraded else "bad"
    state = [_marked(kind, "degraded" if alive and detail.degraded else member.state)]
    if detail.problem is not None:
        state.append(_marked("bad", detail.problem))
    return (
        _text(member.name),
        _join(state, "<br>"),
        _text("-" if detail.age is None else duration(detail.age)),
        _text("-" if detail.rtt is None else f"{detail.rtt * 1000:.1f} ms"),
        _list([_code(address) for address in member.addresses]),
        _list([_text(f"{one.accuser}: {one.reason}, {duration(one.age)}") for one in detail.accused_by]),
    )


def _zone(zone: Zone) -> Sequence[_Html]:
    records = sum(map(len, zone.records.values()))
    return _code(zone.apex), _text(len(zone.records)), _text(records), _state(zone.unsynced, "complete")
