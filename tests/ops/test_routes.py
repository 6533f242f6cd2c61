"""Which resource answers a path."""

from __future__ import annotations

import attrs
import pytest
from zope.interface import implementer

from dcosnet.interfaces import IRestResource
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.ops.routes import Routes


@implementer(IRestResource)
@attrs.frozen
class Echo:
    path: str
    methods: frozenset[str] = frozenset({"GET"})
    local: bool = False

    def respond(self, request: RestRequest) -> RestReply:
        return RestReply()


def test_literal_parts_win_over_named_ones() -> None:
    """Whatever the order in which they came."""
    routes = Routes([Echo("/v1/<name>"), Echo("/v1/all"), Echo("/")])
    assert routes.find(["v1", "all"])[0].pattern == "/v1/all"
    route, arguments = routes.find(["v1", "a/b"])
    assert (route.pattern, arguments) == ("/v1/<name>", {"name": "a/b"})
    assert routes.find([""])[0].pattern == "/"


@pytest.mark.parametrize("parts", [["v1"], ["v1", ""], ["v1", "x", ""], ["v2", "x"], []])
def test_what_is_not_a_pattern_is_not_found(parts: list[str]) -> None:
    """A named part is never empty."""
    assert Routes([Echo("/v1/<name>")]).find(parts) is None


def test_methods_of_one_path_may_come_from_several() -> None:
    """HEAD goes with GET."""
    routes = Routes([Echo("/v1/x"), Echo("/v1/x", frozenset({"POST"}))])
    assert routes.find(["v1", "x"])[0].methods == ["GET", "HEAD", "POST"]


def test_two_that_answer_the_same_are_refused() -> None:
    """Neither may hide the other."""
    with pytest.raises(ValueError, match="two resources answer GET /v1/x"):
        Routes([Echo("/v1/x"), Echo("/v1/x")])
    with pytest.raises(ValueError, match="does not begin with a slash"):
        Routes([Echo("v1/x")])


def test_the_nearest_path_is_found_for_people() -> None:
    """And nothing is made up where none is near, nor time lost on a long one."""
    routes = Routes([Echo("/v1/records"), Echo("/v1/vips")])
    assert routes.nearest("/v1/record") == "/v1/records"
    assert routes.nearest("/wp-login.php") is None
    assert routes.nearest("/v1/vips" + "x" * 100_000) is None
