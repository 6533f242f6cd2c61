"""What every IRestResource keeps: subclass `RestResourceContract` and give the fixture `resource`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs
import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from dcosnet.interfaces import IRestResource
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.ops.http import encode

_PART = re.compile(r"[A-Za-z0-9._~-]*|<[a-z_]+>")
_METHODS = {"GET", "POST", "PUT", "DELETE"}


def ask(resource: IRestResource, request: RestRequest) -> RestReply:
    """The reply, which must be there at once. A resource that waits needs tests of its own."""
    reply = resource.respond(request)
    if not isinstance(reply, Deferred):
        return reply
    replies: list[RestReply] = []
    reply.addCallback(replies.append)
    assert replies, "the reply is not there yet"
    return replies[0]


def get(resource: IRestResource, query: Mapping[str, str] | None = None, **headers: str) -> RestReply:
    """The reply to a GET over the UNIX socket; each named part of the path is asked for as "x"."""
    names = re.findall(r"<([a-z_]+)>", resource.path)
    path = re.sub(r"<[a-z_]+>", "x", resource.path)
    arguments = dict.fromkeys(names, "x")
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(resource, RestRequest("GET", path, arguments, query or {}, told, local=True))


class RestResourceContract:
    """The suite. Resources without GET pass the parts that speak of GET."""

    @pytest.fixture
    def resource(self) -> IRestResource:
        """The resource on trial."""
        raise NotImplementedError("give a fixture `resource`")

    def test_it_provides_the_interface(self, resource: IRestResource) -> None:
        """Attributes and signatures are those of IRestResource."""
        assert verifyObject(IRestResource, resource)

    def test_its_path_is_a_pattern(self, resource: IRestResource) -> None:
        """Parts are literal or named, and no name stands twice."""
        assert resource.path.startswith("/")
        parts = resource.path.split("/")[1:]
        assert all(_PART.fullmatch(part) for part in parts)
        named = [part for part in parts if part.startswith("<")]
        assert len(named) == len(set(named))

    def test_its_methods_are_known(self, resource: IRestResource) -> None:
        """HEAD is not among them: it goes with GET."""
        assert isinstance(resource.methods, frozenset)
        assert resource.methods
        assert resource.methods <= _METHODS
        assert isinstance(resource.local, bool)

    def test_a_get_gives_a_reply_that_can_be_written(self, resource: IRestResource) -> None:
        """A status of HTTP, header names in lower case, a body that has bytes."""
        if "GET" in resource.methods:
            reply = get(resource)
            assert 200 <= reply.status < 600
            assert all(name == name.lower() for name in reply.headers)
            assert isinstance(encode(reply.body), bytes)

    def test_a_get_ignores_parameters_that_it_does_not_know(self, resource: IRestResource) -> None:
        """A newer client may ask an older node."""
        if "GET" in resource.methods:
            assert get(resource, {"unheard-of": "1"}).status == get(resource).status

    def test_a_get_changes_nothing(self, resource: IRestResource) -> None:
        """Asked twice in the same state, it says the same shape with the same status."""
        if "GET" in resource.methods:
            first, second = get(resource), get(resource)
            assert attrs.evolve(first, body=None) == attrs.evolve(second, body=None)
            assert type(first.body) is type(second.body)
