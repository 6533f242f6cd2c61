"""Draining over HTTP: what is named is found, refused with a sentence, or several; and how far it has come."""

from __future__ import annotations

import json
from ipaddress import ip_address

import attrs
import pytest
from twisted.internet.defer import fail

from dcosnet.interfaces import IDrains, IMembership, IViews
from dcosnet.model.drain import (
    Drain,
    DrainedBackend,
    DrainedHost,
    DrainedService,
    Left,
    Progress,
    key_of,
    parse_drainable,
)
from dcosnet.model.member import Member
from dcosnet.model.net import Endpoint
from dcosnet.model.rest import RestRequest
from dcosnet.model.snapshot import Owned
from dcosnet.model.stamp import Stamp
from dcosnet.ops.http import encode
from dcosnet.ops.rest.drains import DRAINS_MAX, BeginDrain, Drains, EndDrain
from dcosnet.testing.contracts.rest import RestResourceContract, ask, get

LOCAL = ip_address("127.0.0.1")
HOST = DrainedHost("host-a")
AT = Stamp(1, 0, "host-b")


class TestContract(RestResourceContract):
    @pytest.fixture(params=[Drains, BeginDrain, EndDrain])
    def resource(self, request, toolbox):
        views, drains = toolbox[IViews], toolbox[IDrains]
        if request.param is Drains:
            return Drains("host-a", views, toolbox[IMembership])
        return request.param(views, drains)


@pytest.fixture
def drained(shop):
    """Makes drains be there, with the backends of the shop's named VIP that they concern."""

    def put(*whats, ends=(), since=5.0, progress=None):
        drains = {key_of(what): Owned(Drain(what, "root", since, "kernel"), "host-b", AT) for what in whats}
        told = {f"draining/{node}": Owned(one, node, AT) for node, one in (progress or {}).items()}
        shop.snapshot.publish(attrs.evolve(shop.snapshot.value, drains=drains, progress=told))
        if ends:
            keys = tuple(drains)
            shop.drained.publish({str(shop.named.key): {Endpoint(LOCAL, port): keys for port in ends}})

    return put


def post(toolbox, document) -> tuple[int, dict]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request = RestRequest("POST", "/v1/drains", body=body, local=True)
    reply = ask(BeginDrain(toolbox[IViews], toolbox[IDrains]), request)
    return reply.status, json.loads(encode(reply.body))


def delete(toolbox, what: str) -> tuple[int, dict]:
    request = RestRequest("DELETE", "/v1/drains/x", {"what": what}, local=True)
    reply = ask(EndDrain(toolbox[IViews], toolbox[IDrains]), request)
    return reply.status, json.loads(encode(reply.body))


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("host-a", "host/host-a"),
        ("127.0.0.1", "host/127.0.0.1"),
        ("127.0.0.1:8001", "backend/127.0.0.1:8001"),
        ("web.shop", "service/shop/web"),
        ("web.1@host-a", "task/files%2Fshop/web.1@host-a"),
        ("host/not-yet-there", "host/not-yet-there"),
    ],
)
def test_what_people_write_is_found(toolbox, text, full) -> None:
    """A plain name is looked up among members and tasks; in full it may be there later."""
    assert post(toolbox, {"what": text, "note": "n", "user": "root"}) == (200, {"what": full})
    assert toolbox[IDrains].done == [(full, "root", "n")]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON object of texts"),
        (b"[" * 100_000, 400, "no JSON object of texts"),
        ({"what": 1}, 400, "no JSON object of texts"),
        ({}, 400, "it is empty"),
        ({"what": "host-a", "when": "now"}, 400, "'when' is not known"),
        ({"what": "host-a", "note": "n" * 301}, 400, "too long"),
        (rb'{"what": "host-a", "note": "\ud800"}', 400, "no JSON object of texts"),
        ({"what": "127.0.0.1:99999"}, 400, "port 99999 is not between 1 and 65535"),
        ({"what": "nobody"}, 404, "'nobody' is no node, no task and no service that is known here"),
    ],
)
def test_nonsense_drains_nothing_and_says_why(toolbox, body, status, words) -> None:
    code, reply = post(toolbox, body)
    assert (code, toolbox[IDrains].done) == (status, [])
    assert words in reply["reason"]
    assert reply["remedy"]


def test_a_name_that_means_several_is_not_guessed(toolbox) -> None:
    """A member is called as the service is."""
    toolbox[IMembership].put(Member("web.shop", (LOCAL,)))
    views = toolbox[IViews]
    views.snapshot.publish(attrs.evolve(views.snapshot.value, members=toolbox[IMembership].members.value))
    code, reply = post(toolbox, {"what": "web.shop"})
    assert code == 409
    assert "host/web.shop, service/shop/web" in reply["reason"]


def test_what_the_disk_or_the_store_refuses_is_said(toolbox) -> None:
    toolbox[IDrains].disk = lambda: fail(OSError(28, "No space left on device"))
    assert post(toolbox, {"what": "host-a"})[0] == 503

    def full():
        raise ValueError("one node may have 65536 keys")

    toolbox[IDrains].disk = full
    code, reply = post(toolbox, {"what": "host-a"})
    assert (code, reply["reason"]) == (507, "one node may have 65536 keys")


def test_there_are_so_many_drains_at_most(toolbox, drained) -> None:
    """One that is on already is not one more."""
    some = [DrainedHost(f"h{number}") for number in range(DRAINS_MAX)]
    drained(*some)
    assert post(toolbox, {"what": "host-a"})[0] == 507
    assert post(toolbox, {"what": "host/h1"})[0] == 200


@pytest.mark.parametrize("text", ["service/shop/web", "web.shop"])
def test_a_drain_is_ended_by_what_it_is_called(toolbox, drained, text) -> None:
    """Also when nothing of that name runs any more."""
    drained(DrainedService("shop", "web"), HOST)
    toolbox[IDrains].on = {DrainedService("shop", "web")}
    assert delete(toolbox, text) == (200, {"what": "service/shop/web"})
    assert toolbox[IDrains].done == [("service/shop/web",)]


@pytest.mark.parametrize("text", ["FD00::1", "[fd00:0::1]:80", "host/FD00::1"])
def test_an_address_may_be_written_in_any_way(toolbox, drained, text) -> None:
    """What began a drain ends it."""
    assert post(toolbox, {"what": text})[0] == 200
    (begun,) = toolbox[IDrains].done
    what = parse_drainable(begun[0])
    drained(what)
    toolbox[IDrains].on = {what}
    assert delete(toolbox, text) == (200, {"what": begun[0]})


def test_what_is_not_drained_cannot_be_ended(toolbox, drained) -> None:
    drained(HOST)
    code, reply = delete(toolbox, "web.shop")
    assert (code, reply["reason"]) == (404, "'web.shop' is not drained")


def test_two_drains_of_one_short_name_are_told_apart(toolbox, drained) -> None:
    drained(DrainedHost("web.shop"), DrainedService("shop", "web"))
    assert delete(toolbox, "web.shop")[0] == 409
    assert delete(toolbox, "host/web.shop")[0] == 200


def test_the_list_tells_who_why_what_and_how_far(toolbox, drained) -> None:
    """All that somebody needs who decides whether the host may be switched off."""
    left = {"tcp/127.0.0.1:8001": Left(3)}
    done = {key_of(HOST): Progress(5.0)}
    drained(HOST, ends=[8001], progress={"host-a": {key_of(HOST): Progress(5.0, left)}, "host-b": done})
    told = json.loads(encode(get(Drains("host-a", toolbox[IViews], toolbox[IMembership])).body))
    assert told == {
        "node": "host-a",
        "drains": [
            {
                "what": "host/host-a",
                "node": "host-b",
                "user": "root",
                "since": 5.0,
                "note": "kernel",
                "backends": [
                    {
                        "protocol": "tcp",
                        "ip": "127.0.0.1",
                        "port": 8001,
                        "vips": ["web.shop.l4lb.thisdcos.directory:8000"],
                        "flows": 3,
                        "taking": False,
                    }
                ],
                "emptied": [],
                "flows": 3,
                "flows_here": 3,
                "nodes": [{"node": "host-a", "flows": 3}, {"node": "host-b", "flows": 0}],
                "taking": [],
                "silent": [],
                "drained": False,
            }
        ],
    }


def test_a_member_that_has_not_told_is_named(toolbox, drained) -> None:
    drained(HOST)
    (told,) = json.loads(encode(get(Drains("host-a", toolbox[IViews], toolbox[IMembership])).body))["drains"]
    assert (told["silent"], told["flows_here"], told["drained"]) == (["host-a"], None, False)


def test_a_vip_that_is_left_with_nothing_is_named(toolbox, drained, shop) -> None:
    """Its clients are refused; that was said so, and should be seen."""
    what = DrainedBackend(Endpoint(LOCAL, 8001))
    drained(what, ends=[8001])
    backends = tuple(attrs.evolve(one, weight=0) for one in shop.named.backends)
    shop.vips.publish({str(shop.named.key): attrs.evolve(shop.named, backends=backends)})
    (told,) = json.loads(encode(get(Drains("host-a", toolbox[IViews], toolbox[IMembership])).body))["drains"]
    assert told["emptied"] == ["web.shop.l4lb.thisdcos.directory:8000"]
