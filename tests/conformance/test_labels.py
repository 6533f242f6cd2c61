"""The label rule against what dcos-net made of the same texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dcosnet.model.names import fragment, label


@pytest.fixture(scope="module")
def rows(fixtures_dir: Path) -> list[dict[str, str]]:
    document = json.loads((fixtures_dir / "labels" / "labels.expected.json").read_text())
    return [dict(zip(document["columns"], row, strict=True)) for row in document["rows"]]


def test_labels_are_those_of_dcos_net(rows: list[dict[str, str]]) -> None:
    """All of them, also the cut ones."""
    made = {row["input"]: label(row["input"]) for row in rows}
    assert made == {row["input"]: row["dcos_net_label"] for row in rows}


def test_fragments_are_those_of_dcos_net_without_their_empty_parts(rows: list[dict[str, str]]) -> None:
    """The one deviation: a part of which nothing is left is dropped, where dcos-net makes a name that no one takes."""
    made = {row["input"]: fragment(row["input"]) for row in rows}
    theirs = {row["input"]: row["dcos_net_domain_frag"] for row in rows}
    deviating = {text for text in made if made[text] != theirs[text]}
    assert deviating == {text for text, name in theirs.items() if name and "" in name.split(".")}
    assert deviating, "the fixtures hold no such case, so this test proves nothing"
    for text in deviating:
        assert made[text] == ".".join(part for part in theirs[text].split(".") if part)
