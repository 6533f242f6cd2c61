"""Which plane serves, and what it is asked in vain."""

from __future__ import annotations

import pytest

from dcosnet.l4lb.planes import ABILITIES, Plane, choose, lacking
from dcosnet.l4lb.plugin import PLANES

KERNEL = Plane("kernel", frozenset({"tcp"}), lambda: "it takes root")
PROXY = Plane("proxy", frozenset({"tcp", "retry"}))


def test_auto_takes_the_first_that_works_and_says_why_not_the_others() -> None:
    choice = choose("auto", (KERNEL, PROXY))
    assert choice.plane is PROXY
    assert "kernel is not used: it takes root" in choice.reason
    assert choose("auto", (PROXY, KERNEL)).reason == "the first that works here"


def test_what_is_asked_for_by_name_is_taken_or_refused_with_the_reason() -> None:
    assert choose("proxy", (KERNEL, PROXY)).reason == "configured"
    with pytest.raises(ValueError, match="kernel cannot run here: it takes root"):
        choose("kernel", (KERNEL, PROXY))
    with pytest.raises(ValueError, match="kernel cannot run here"):
        choose("auto", (KERNEL,))
    with pytest.raises(ValueError, match="take auto or one of kernel, proxy"):
        choose("magic", (KERNEL, PROXY))


def test_what_a_plane_is_not_able_to_do_is_told_by_setting() -> None:
    ((setting, reason),) = lacking({"pick": "latency", "retries": "retry"}, PROXY)
    assert setting == "pick"
    assert "proxy" in reason
    assert ABILITIES["latency"] in reason


def test_every_ability_has_a_meaning() -> None:
    assert all(plane.able <= ABILITIES.keys() for plane in PLANES)
