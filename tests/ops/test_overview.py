"""The overview page: everything is shown, nothing is believed."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.interfaces import IMembership, ITaskSource, IViews, IZone
from dcosnet.model.facts import Problem, SourceStatus
from dcosnet.model.member import Accusation, Member, MemberDetail, MemberState, Refusal
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.node import Node
from dcosnet.model.provenance import Provenance
from dcosnet.model.snapshot import Owned
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Port, Task, TaskId
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, Use, VipTraffic
from dcosnet.model.vip import Backend, Vip, VipKey
from dcosnet.model.zone import Zone
from dcosnet.ops.overview import CONTENT_SECURITY_POLICY, ROWS_MAX, Overview, ShownVip, duration, page
from dcosnet.ops.rest.page import Page
from dcosnet.testing.contracts.rest import get

_VOID = {"meta", "br", "link"}
_KNOWN = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "main", "section", "a", "div",
    "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "span", "code", "br", "footer",
}  # fmt: skip
HOST = ip_address("10.0.0.1")


class Reading(HTMLParser):
    """Reads a page strictly: tags nest, and are those that the page has itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in _KNOWN
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def everywhere(text: str) -> Overview:
    """An overview with the same text wherever text comes from outside."""
    stamp = Stamp(1, 0, text)
    task = Task(
        TaskId(text, text), text, text, HOST, (HOST,), (Port(Protocol.TCP, 80, vips=(text,)),),
        provenance=Provenance(text, text),
    )  # fmt: skip
    vip = Vip(VipKey(Protocol.TCP, 80, name=text, framework=text), (Backend(HOST, 80, HOST),), stamp)
    return Overview(
        Node(text, HOST, version=text),
        1.0,
        {text: text},
        {text: [Problem(text, text)]},
        [ShownVip(text, [HOST], vip)],
        [Owned(task, text, stamp)],
        [(text, SourceStatus(False, text, problems=(Problem(text, text),)))],
        [Zone(text, {}, text)],
        [(Member(text, (HOST,)), MemberDetail(accused_by=(Accusation(text, text, 1.0),), problem=text))],
        [Refusal(text, text, text, theirs=True, age=1.0)],
    )


@given(st.text())
def test_no_text_becomes_markup(text: str) -> None:
    """Whatever people and programs put into names, the page's tags and attributes stay its own."""
    assert [name for name, _ in Reading(page(everywhere(text))).attributes] == [
        name for name, _ in Reading(page(everywhere("x"))).attributes
    ]


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'&lt;", "</style>", "{0}"]
)
def test_markup_is_shown_as_text(text: str) -> None:
    """All twenty places show it as it was written, and none runs it."""
    assert Reading(page(everywhere(text))).text.count(text) >= 20


def test_the_page_loads_and_runs_nothing() -> None:
    """No address of elsewhere, no script; the policy allows the one style sheet."""
    text = page(everywhere("x"))
    assert not re.search(r"<script|src=|@import|url\(|https?://|style=", text)
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "script-src" not in CONTENT_SECURITY_POLICY


def test_the_shop_is_seen_at_a_glance(toolbox) -> None:
    """Parts with reasons, VIPs with addresses and backends, tasks, problems of sources, zones with counts."""
    membership = toolbox[IMembership]
    membership.put(Member("host-b", (HOST,), MemberState.UNREACHABLE))
    membership.fares["host-b"] = MemberDetail(7.0, accused_by=(Accusation("host-c", "silent", 9.0),), problem="late")
    membership.refused = [Refusal("10.0.0.9:1", "identity", "its certificate is host-x's", theirs=False, age=3.0)]
    resource = Page(
        toolbox, toolbox[IViews], toolbox.all(IZone), toolbox.all(ITaskSource), membership, [], lambda: 65.0
    )
    reply = get(resource)
    assert reply.content_type == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    text = Reading(reply.body).text
    for told in (
        "host-a", "1.2.3", "up 1m 5s", "not ready: dns", "not listening yet",
        "web.shop.l4lb.thisdcos.directory:8000", "127.11.3.4", "127.0.0.1:8002 unhealthy",
        "port 0 is not usable", "not heard", "web.1@host-a", "files on host-a",
        "unreachable", "host-c: silent, 9s", "late", "its certificate is host-x's",
    ):  # fmt: skip
        assert told in text


def test_a_backend_that_drains_is_marked(toolbox, shop) -> None:
    """It has weight zero and nothing is wrong with it."""
    overview = Overview(toolbox.node, 0.0, {}, vips=[ShownVip("v", [], shop.named)])
    assert "127.0.0.1:8002 draining" in Reading(page(overview)).text
    heavy = attrs.evolve(shop.named, backends=(Backend(HOST, 1, HOST, weight=5),))
    assert "10.0.0.1:1 weight 5" in Reading(page(attrs.evolve(overview, vips=[ShownVip("v", [], heavy)]))).text


def test_a_vip_shows_what_is_in_flight_and_who_rests(toolbox, shop) -> None:
    """And why a listener of it is not there."""
    first, second = shop.named.backends
    carried = VipTraffic(
        shop.named.key,
        Flows(active=9),
        [
            ListenerTraffic(
                Protocol.TCP,
                Endpoint(HOST, 8000),
                None,
                [
                    BackendTraffic(first.endpoint, 1, Flows(active=4)),
                    BackendTraffic(second.endpoint, 0, Flows(), Use.RESTING, 65, "five failures"),
                ],
            ),
            ListenerTraffic(Protocol.TCP, Endpoint(HOST, 1), "Permission denied"),
        ],
        ["all addresses are taken"],
    )
    shown = ShownVip("v", [], shop.named, [carried])
    text = Reading(page(Overview(toolbox.node, 0.0, {}, vips=[shown]))).text
    for told in (
        "127.0.0.1:8001 4 in flight",
        "127.0.0.1:8002 draining resting for 1m 5s: five failures",
        "10.0.0.1:1: Permission denied",
        "all addresses are taken",
        "9",
    ):
        assert told in text


def test_what_a_part_could_not_do_is_told_beside_its_state() -> None:
    """The part is ready; one VIP of it is not there, and somebody wants to know why."""
    troubles = {"l4lb": [Problem("tcp/127.0.0.1:80", "Permission denied")]}
    text = Reading(page(Overview(Node("n", HOST), 0.0, {"l4lb": None, "dns": None}, troubles))).text
    assert "tcp/127.0.0.1:80: Permission denied" in text


def test_an_empty_node_has_a_page() -> None:
    """Nothing yet is no error."""
    assert Reading(page(Overview(Node("n", HOST), 0.0, {}))).text.count("None.") == 6


def test_long_tables_are_cut_and_say_so() -> None:
    """The JSON has them all."""
    zones = [Zone(f"z{number}", {}) for number in range(ROWS_MAX + 3)]
    text = Reading(page(Overview(Node("n", HOST), 0.0, {}, zones=zones))).text
    assert "and 3 more" in text
    assert f"z{ROWS_MAX - 1}" in text
    assert f"z{ROWS_MAX + 1}" not in text


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0s"), (59.9, "59s"), (306, "5m 6s"), (3600, "1h 0m"), (273_600, "3d 4h")]
)
def test_durations_are_told_in_two_units(seconds: float, told: str) -> None:
    """More is noise."""
    assert duration(seconds) == told
