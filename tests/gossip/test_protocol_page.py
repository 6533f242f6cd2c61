"""The page of the protocol says what the code does: whoever writes a second node has nothing else."""

from __future__ import annotations

import re
from hashlib import blake2b
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from dcosnet.gossip.cluster import POSTPONE
from dcosnet.gossip.digest import Digest, leaf_of, root
from dcosnet.gossip.messages import Accusation, CloseCode, Have, Ping, Put, Reason, Record, Told
from dcosnet.gossip.rings import Rings
from dcosnet.gossip.wire import TYPES, encode

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocols" / "gossip.rst").read_text()
CONSTANT = re.compile(r"^\S.*?  +([\d.]+) +``(\w+)\.(\w+)``$", re.MULTILINE)


def table(*headings: str) -> list[tuple[str, ...]]:
    """The cells of the one table with these headings."""
    lines = PAGE.splitlines()
    (at,) = (n for n, line in enumerate(lines) if tuple(re.split(r"  +", line.strip())) == headings)
    bar = lines[at + 1]
    end = lines.index(bar, at + 2)
    starts = [match.start() for match in re.finditer(r"=+", bar)]
    return [
        tuple(line[start:stop].strip() for start, stop in zip(starts, [*starts[1:], None], strict=True))
        for line in lines[at + 2 : end]
    ]


def fields(kind: type) -> str:
    return ", ".join(field.name for field in msgspec.structs.fields(kind))


def test_each_message_has_its_number_and_its_fields() -> None:
    """In their order: they are positional."""
    told = {int(number): (name, listed) for number, name, listed in table("type", "message", "fields")}
    assert told == {number: (kind.__name__.upper(), fields(kind)) for number, kind in TYPES.items()}


def test_each_value_inside_of_a_message_has_its_fields() -> None:
    assert dict(table("value", "fields")) == {kind.__name__: fields(kind) for kind in (Told, Record, Accusation, Put)}


def test_each_close_code_has_its_number_and_its_wait() -> None:
    told = {
        (int(number), name, float(wait or 0))
        for number, name, _, wait in table("code", "name", "meaning", "dial after")
    }
    assert told == {(int(code), code.name, POSTPONE.get(code, 0.0)) for code in CloseCode}


def test_each_reason_is_told() -> None:
    assert {reason.strip("`") for reason, _ in table("reason", "meaning")} == {str(reason) for reason in Reason}


@pytest.mark.parametrize(("value", "module", "name"), CONSTANT.findall(PAGE))
def test_each_number_is_the_one_in_the_code(value: str, module: str, name: str) -> None:
    """Limits, timers and bounds."""
    assert float(value) == getattr(import_module(f"dcosnet.gossip.{module}"), name)


def test_no_number_is_missing() -> None:
    """Of the modules that the protocol is made of, every constant that is a number is on the page."""
    told = {(module, name) for _, module, name in CONSTANT.findall(PAGE)}
    assert len(told) > 50
    inside = {
        ("spread", "ROUND"), ("spread", "MEMBERS_WEIGHT"), ("spread", "HAVES_AT_ONCE"), ("faults", "REMEMBERED"),
        ("cluster", "ISOLATED_HOLD"), ("messages", "PROTOCOL"), ("probe", "REMEMBERED"),
    }  # fmt: skip
    for module in {module for module, _ in told}:
        constants = {
            (module, name)
            for name, value in vars(import_module(f"dcosnet.gossip.{module}")).items()
            if re.fullmatch(r"[A-Z][A-Z_]*", name) and isinstance(value, int | float)
        }
        # What a module has of another is told with that.
        own = {pair for pair in constants if re.search(rf"^(?:.*, )?{pair[1]}\b.* = ", _source(module), re.MULTILINE)}
        assert own - inside <= told


def _source(module: str) -> str:
    return (Path(__file__).resolve().parents[2] / "dcosnet" / "gossip" / f"{module}.py").read_text()


def test_the_examples_come_out_as_they_stand() -> None:
    """Whoever has these right has the hashes and the frames right."""
    digest, empty = Digest(), Digest()
    assert f"``{root(empty, empty).hex()}``" in PAGE
    digest.put("host-a", (7, 3))
    assert f"``{root(digest, empty).hex()}``" in PAGE
    (added,) = {digest.leaves()[at : at + 8] for at in range(0, 2048, 8)} - {bytes(8)}
    assert f"falls into leaf {leaf_of('host-a')}; with generation 7 and version 3 it adds ``{added.hex()}``" in PAGE
    for frame in (Ping(7), Have((("host-a", 7, 3),))):
        assert f"``{encode(frame).hex(' ')}``" in PAGE


def test_the_rings_of_the_example_are_those_of_the_code() -> None:
    """Neighbours of another order or another hash would never meet; the hash is reckoned here as the page has it."""
    for ring in (0, 3):
        place = blake2b(f"{ring}\0host-a".encode(), digest_size=8).hexdigest()
        assert f"``{place}`` on ring {ring}" in PAGE
    neighbours = sorted(Rings(f"host-{n:02}" for n in range(1, 13)).neighbours("host-01"))
    told = re.search(r"neighbours of ``host-01`` are (.*)\.", PAGE)
    assert told is not None
    assert re.findall(r"host-\d+", told[1]) == neighbours
