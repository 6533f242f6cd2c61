"""Where configuration comes from and what wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.config.merge import Leaf, Origin, Table, merge, plant, read
from dcosnet.errors import ConfigErrors

ORIGIN = Origin("test", Path("/"))

keys = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
tables = st.dictionaries(keys, trees, max_size=3)


def table(document: dict[str, object]) -> Table:
    planted = plant(document, ORIGIN)
    assert isinstance(planted, Table)
    return planted


def plain(node: Leaf | Table | None) -> object:
    if isinstance(node, Table):
        return {key: plain(item) for key, item in node.items.items()}
    return None if node is None else node.value


def write(directory: Path, **texts: str) -> Path:
    """`main.toml`, and each other name as a drop-in; the main file's path."""
    (directory / "conf.d").mkdir(exist_ok=True)
    for name, text in texts.items():
        (directory / ("main.toml" if name == "main" else f"conf.d/{name}.toml")).write_text(text)
    return directory / "main.toml"


def test_later_places_win(tmp_path: Path) -> None:
    """Main file, drop-ins by name, environment, --set: each overrides those before it."""
    main = write(
        tmp_path,
        main="[t]\na = 1\nb = 1\nc = 1\nd = 1\ne = 1\n",
        x20="[t]\nb = 20\nc = 20\nd = 20\ne = 20\n",
        x30="[t]\nc = 30\nd = 30\ne = 30\n",
    )
    merged = read(main, {"DCOSNET_T__D": "4", "DCOSNET_T__E": "4"}, ["t.e=5"])
    assert plain(merged.root) == {"t": {"a": 1, "b": 20, "c": 30, "d": 4, "e": 5}}


def test_each_value_knows_its_origin_and_directory(tmp_path: Path) -> None:
    """Errors name the place, and relative paths mean the directory of the file that has them."""
    main = write(tmp_path, main="[t]\na = 1\n", drop="[t]\nb = 1\n")
    merged = read(main, {"DCOSNET_T__C": "1"}, ["t.d=1"])
    origins = {key: merged.root.find(("t", key)).origin for key in "abcd"}
    assert origins == {
        "a": Origin(str(main), tmp_path),
        "b": Origin(str(tmp_path / "conf.d/drop.toml"), tmp_path / "conf.d"),
        "c": Origin("environment DCOSNET_T__C", Path.cwd()),
        "d": Origin("--set t.d", Path.cwd()),
    }


def test_environment_names_without_two_underscores_are_not_configuration() -> None:
    """Variables for tests and for the command share the prefix."""
    environ = {"DCOSNET_API": "unix:/x", "DCOSNET_TEST_REQUIRE": "all", "DCOSNET_FIXTURES": "x", "HOME__X": "y"}
    assert plain(read(None, environ, []).root) == {}


def test_values_outside_files_need_no_quotes() -> None:
    """A TOML value where it is one, else text; a line break does not smuggle in a second key."""
    sets = ["t.a=5", "t.b=hello", "t.c=[1, 2]", "t.d=true\nx = 1", "demo={}", 't.zones."a.b".k=v', "t.e=a=b"]
    assert plain(read(None, {}, sets).root) == {
        "t": {"a": 5, "b": "hello", "c": [1, 2], "d": "true\nx = 1", "zones": {"a.b": {"k": "v"}}, "e": "a=b"},
        "demo": {},
    }


def test_all_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    """A directory of mistakes takes one run to see, not one run each."""
    main = write(tmp_path, main="[t]\na = \n", bad="]", fine="[t]\n")
    (tmp_path / "conf.d/latin.toml").write_bytes(b'a = "\xe9"')
    (tmp_path / "conf.d/gone.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigErrors) as caught:
        read(main, {"DCOSNET_T____X": "1"}, ["nonsense", "a b.c=1", "=x"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 8, lines
    assert f"{main}: is not valid TOML: Invalid value (at line 2, column 5)" in lines
    assert any("latin.toml: is not UTF-8 at byte 5" in line for line in lines)
    assert any("gone.toml: cannot be read: No such file or directory" in line for line in lines)
    assert "--set nonsense: write --set TABLE.KEY=VALUE" in lines
    assert any(line.startswith("environment DCOSNET_T____X: ") for line in lines)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    """As in files of services: some editors write one, and nobody sees it."""
    main = tmp_path / "dcosnet.toml"
    main.write_bytes(b"\xef\xbb\xbf[dns]\na = 1\n")
    assert list(read(main, {}, []).tables) == ["dns"]


def test_main_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """A mistyped -c does not run with defaults."""
    with pytest.raises(ConfigErrors, match="No such file"):
        read(tmp_path / "no.toml", {}, [])


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a." * 5000 + "a = 1", "a = " + "[" * 200 + "]" * 200])
def test_endless_nesting_is_an_error(tmp_path: Path, text: str) -> None:
    """A file made to exhaust the stack is refused like any other mistake."""
    with pytest.raises(ConfigErrors, match="not valid TOML"):
        read(write(tmp_path, main=text), {}, [])


@given(tables)
def test_merging_a_table_with_itself_or_nothing_changes_nothing(document: dict[str, object]) -> None:
    """Reading a file twice is reading it once."""
    one, empty = table(document), table({})
    assert plain(merge(one, one)) == plain(merge(one, empty)) == plain(merge(empty, one)) == document


@given(tables, tables)
def test_every_value_of_the_later_table_survives(first: dict[str, object], second: dict[str, object]) -> None:
    """Later wins everywhere, and what it does not mention stays."""
    merged = merge(table(first), table(second))

    def check(path: tuple[str, ...], node: object) -> None:
        if isinstance(node, dict):
            for key, item in node.items():
                check((*path, key), item)
        else:
            assert plain(merged.find(path)) == node

    check((), second)
    for key in first.keys() - second.keys():
        assert plain(merged.find((key,))) == first[key]


@given(main=st.binary(max_size=60) | st.text(alphabet="abc=[]{}\"\n.#1-+_ '", max_size=60).map(str.encode))
def test_garbage_raises_nothing_but_configuration_errors(tmp_path_factory: pytest.TempPathFactory, main: bytes) -> None:
    """Whatever the bytes of a file are, the console shows a sentence."""
    path = tmp_path_factory.getbasetemp() / "garbage.toml"
    path.write_bytes(main)
    try:
        read(path, {}, [])
    except ConfigErrors as error:
        assert error.problems
        assert all(problem.origin == str(path) for problem in error.problems)


@given(name=st.text(max_size=12), value=st.text(max_size=30))
def test_any_assignment_is_read_or_refused(name: str, value: str) -> None:
    """Neither --set nor the environment can raise anything else."""
    for environ, sets in (({f"DCOSNET_{name}": value}, []), ({}, [f"{name}={value}"])):
        try:
            read(None, environ, sets)
        except ConfigErrors as error:
            assert error.problems
