"""The composition root: what fits is ordered, what does not is fatal in one line."""

from __future__ import annotations

import itertools
import random
from ipaddress import ip_address
from pathlib import Path

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Service
from twisted.internet.task import Clock
from zope.interface import Attribute, Interface, implementer

from dcosnet.assemble import ALWAYS, Toolbox, assemble, configure, find_plugins, order
from dcosnet.config.merge import read
from dcosnet.config.node import NodeSettings
from dcosnet.errors import AssemblyError, ConfigError, ConfigErrors
from dcosnet.interfaces import IContribution, IServicePlugin, Part
from dcosnet.model.node import Node


class IBread(Interface):
    slices = Attribute("How many.")


class IButter(Interface):
    pass


class ITopping(IContribution):
    pass


@implementer(IBread)
class Bread:
    slices = 2


@implementer(ITopping)
class Cheese:
    pass


class Settings(msgspec.Struct, frozen=True):
    """Nothing to set."""


@implementer(IServicePlugin)
@attrs.frozen
class Plugin:
    name: str
    needs: frozenset = frozenset()
    offers: frozenset = frozenset()
    contributes: frozenset = frozenset()
    make: object = None
    config: type = Settings

    def make_part(self, config, toolbox):
        return self.make(config, toolbox)


def names(plugins):
    return [plugin.name for plugin in plugins]


def test_who_needs_comes_after_who_offers():
    eater = Plugin("eater", needs=frozenset({IBread, ITopping}))
    baker = Plugin("baker", offers=frozenset({IBread}))
    dairy = Plugin("dairy", contributes=frozenset({ITopping}), needs=frozenset({IBread}))
    for plugins in itertools.permutations([eater, baker, dairy]):
        assert names(order(plugins)) == ["baker", "dairy", "eater"]


def test_a_contribution_that_nobody_makes_is_no_unmet_need():
    assert names(order([Plugin("eater", needs=frozenset({ITopping}))])) == ["eater"]


def test_an_unmet_need_names_who_needs_what_and_what_is_there():
    with pytest.raises(AssemblyError, match=r"'eater' needs IBread.*\(eater, other\)"):
        order([Plugin("other"), Plugin("eater", needs=frozenset({IBread}))])


def test_two_offers_of_one_interface_name_both():
    offers = frozenset({IBread})
    with pytest.raises(AssemblyError, match="both 'one' and 'two' offer IBread"):
        order([Plugin("one", offers=offers), Plugin("two", offers=offers)])


def test_a_circle_is_named():
    one = Plugin("one", needs=frozenset({IButter}), offers=frozenset({IBread}))
    two = Plugin("two", needs=frozenset({IBread}), offers=frozenset({IButter}))
    with pytest.raises(AssemblyError, match="circle: one, two"):
        order([one, two, Plugin("bystander")])


@given(st.permutations(list(find_plugins().values())), st.randoms())
def test_the_builtin_parts_always_fit(plugins, rng):
    """Whichever tables there are, with those that always run."""
    enabled = [plugin for plugin in plugins if plugin.name in ALWAYS or rng.random() < 0.5]
    placed = order(enabled)
    assert sorted(names(placed)) == sorted(names(enabled))
    provided = set()
    for position, plugin in enumerate(placed):
        later = set().union(*(each.offers | each.contributes for each in placed[position:] if each is not plugin))
        assert not plugin.needs & later, plugin.name
        provided |= plugin.offers


def make(tmp_path, *plugins):
    node = NodeSettings(name="host-a", address=ip_address("127.0.0.1"), state_dir=tmp_path / "state")
    settings = {"node": node} | {plugin.name: Settings() for plugin in plugins}
    return assemble(settings, Clock(), find=lambda: {plugin.name: plugin for plugin in plugins})


def test_what_all_parts_refuse_is_told_at_once(tmp_path):
    """Nobody repairs a configuration one error at a time; and who cannot be asked yet invents none."""

    def refuse(path):
        def make(config, toolbox):
            raise ConfigErrors([ConfigError(path, "is wrong"), ConfigError(path, "is very wrong")])

        return make

    def make_eater(config, toolbox):
        raise AssertionError("asked without its bread")

    baker = Plugin("baker", offers=frozenset({IBread}), make=refuse("baker.oven"))
    eater = Plugin("eater", needs=frozenset({IBread}), make=make_eater)
    other = Plugin("other", make=refuse("other.key"))
    with pytest.raises(ConfigErrors) as refused:
        make(tmp_path, baker, eater, other)
    assert [problem.path for problem in refused.value.problems] == ["baker.oven"] * 2 + ["other.key"] * 2
    assert not (tmp_path / "state").exists()


def test_parts_get_only_what_they_declared(tmp_path):
    """No part becomes dependent on another without saying so."""
    seen = {}

    def make_eater(config, toolbox):
        seen["bread"] = toolbox[IBread].slices
        seen["toppings"] = len(toolbox.all(ITopping))
        with pytest.raises(KeyError, match="declared"):
            toolbox[IButter]
        return Part(Service())

    eater = Plugin("eater", needs=frozenset({IBread, ITopping}), make=make_eater)
    baker = Plugin("baker", offers=frozenset({IBread}), make=lambda c, t: Part(Service(), offers={IBread: Bread()}))
    dairy = Plugin(
        "dairy",
        contributes=frozenset({ITopping}),
        make=lambda c, t: Part(Service(), contributes=[(ITopping, Cheese()), (ITopping, Cheese())]),
    )
    tree, toolbox = make(tmp_path, eater, dairy, baker)
    assert seen == {"bread": 2, "toppings": 2}
    assert [service.name for service in tree] == ["dairy", "baker", "eater"]
    assert toolbox.readiness() == {"dairy": None, "baker": None, "eater": None}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (lambda: Part(Service()), "offers nothing but declares IBread"),
        (lambda: Part(Service(), offers={IBread: object()}), "IBread"),
        (
            lambda: Part(Service(), offers={IBread: Bread()}, contributes=[(ITopping, Cheese())]),
            "contributes ITopping without declaring it",
        ),
    ],
)
def test_a_part_that_is_not_what_was_declared_is_fatal(tmp_path, part, complaint):
    with pytest.raises(AssemblyError, match=complaint) as caught:
        make(tmp_path, Plugin("baker", offers=frozenset({IBread}), make=lambda c, t: part()))
    assert "\n" not in str(caught.value)


def test_a_state_directory_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(ConfigError, match="name a directory that this user may write"):
        make(tmp_path)


def test_readiness_is_asked_anew_each_time():
    toolbox = Toolbox(Clock(), random.Random(), Node("a", ip_address("127.0.0.1")), Path(), lambda run: run())
    reasons = iter(["not yet", None])
    toolbox.add(Plugin("slow"), Part(Service(), ready=lambda: next(reasons)))
    assert toolbox.readiness() == {"slow": "not yet"}
    assert toolbox.readiness() == {"slow": None}


def test_a_table_without_a_plugin_is_fatal_and_names_those_found(tmp_path):
    """A plugin that fails to import vanishes from Twisted's list; its table must not vanish with it."""
    config = tmp_path / "dcosnet.toml"
    config.write_text("[dsn]\n")
    with pytest.raises(ConfigErrors) as caught:
        configure(read(config, {}, []))
    assert "dsn" in str(caught.value)
    assert "dns" in str(caught.value)


def test_the_parts_that_always_run_need_no_table():
    assert set(configure(read(None, {}, []))) == {"node", *ALWAYS}
