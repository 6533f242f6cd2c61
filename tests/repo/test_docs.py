"""What the documents say is there: each configuration loads, each file, name, setting and metric exists."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from dcosnet.assemble import assemble, configure
from dcosnet.config.merge import read
from dcosnet.config.node import NodeSettings
from dcosnet.interfaces import IMetrics
from dcosnet.model.net import parse_address
from dcosnet.ops.registries import REGISTRIES
from dcosnet.plugins import builtin
from dcosnet.sources.files.services import parse
from dcosnet.sources.services import Reader

ROOT = Path(__file__).resolve().parents[2]
PAGES = [page for page in [*ROOT.glob("*.rst"), *(ROOT / "docs").rglob("*.rst")] if "_build" not in page.parts]
TABLES = {part.name: part for part in vars(builtin).values() if isinstance(part, builtin.Builtin)}
BLOCK = re.compile(r"^( *)\.\. code-block:: (\w+)\n((?:\1 +:\w+:.*\n)*)\n((?:\1 +.*\n|\n)+)", re.MULTILINE)

# Its own part is made by the very page; the test for that is below.
FOREIGN = "[greeting]"


def blocks(language: str, page: Path) -> list[tuple[str, str]]:
    """Each code block of a language, with the name of a file if its first line is one."""
    texts = [textwrap.dedent(match[4]) for match in BLOCK.finditer(page.read_text() + "\n") if match[2] == language]
    return [(text.partition("\n")[0].removeprefix("# "), text) for text in texts]


def configurations() -> list[tuple[str, str]]:
    files = [(str(path.relative_to(ROOT)), path.read_text()) for path in sorted((ROOT / "etc").rglob("*.toml"))]
    quoted = [
        (f"{page.relative_to(ROOT)}-{n}", text) for page in PAGES for n, (_, text) in enumerate(blocks("toml", page))
    ]
    return [(name, text) for name, text in files + quoted if FOREIGN not in text]


def check(text: str, folder: Path) -> None:
    """Read a configuration, or a file of services, as dcosnet would."""
    if re.search(r"^\[\[service\]\]$", text, re.MULTILINE):
        content = parse("web.toml", text.encode(), Reader("files", "host-a", parse_address("10.0.0.1"), checks=True))
        assert content.services
        assert not content.flaws
    else:
        (folder / "dcosnet.toml").write_text(text)
        configure(read(folder / "dcosnet.toml", {}, ()))


@pytest.mark.parametrize(("name", "text"), configurations(), ids=lambda value: value if len(value) < 60 else "")
def test_every_configuration_loads(name: str, text: str, tmp_path: Path) -> None:
    """In etc/ and on the pages: what is copied from there works."""
    check(text, tmp_path)


def test_the_settings_that_are_commented_out_load_as_well(tmp_path: Path) -> None:
    """Somebody will take the # away."""
    text = re.sub(r"^# (\w+ = |\[\w+\]$)", r"\1", (ROOT / "etc" / "dcosnet.toml").read_text(), flags=re.MULTILINE)
    check(text, tmp_path)
    shown = set(re.findall(r"^(\w+) = ", text, re.MULTILINE))
    tables = re.findall(r"^\[(\w+)\]", text, re.MULTILINE)
    assert shown == {field for table in tables for field in fields(table)}


def fields(table: str) -> set[str]:
    settings = NodeSettings if table == "node" else TABLES[table].config
    return {field.encode_name for field in msgspec.structs.fields(settings)}


def test_the_reference_tells_every_setting_and_no_other() -> None:
    """Each table that can be set has its section, each setting its paragraph."""
    page = (ROOT / "docs" / "operations" / "config.rst").read_text()
    sections = re.split(r"^``\[(\w+)\]``\n=+\n", page, flags=re.MULTILINE)[1:]
    told = {
        table: set(re.findall(r"^``(\w+)``$", text, re.MULTILINE))
        for table, text in zip(sections[::2], sections[1::2], strict=True)
    }
    always = {"drain", "kv", "views"}  # they have nothing to set
    assert told == {table: fields(table) for table in {"node", *TABLES} - always}
    assert not any(fields(table) for table in always)


@pytest.mark.parametrize(
    "page", ["ARCHITECTURE.rst", "CONTRIBUTING.rst", "docs/tour.rst", "docs/operations/runbook.rst"]
)
def test_files_and_names_on_the_pages_exist(page: str) -> None:
    """A tour that leads to a closed door is worse than none."""
    text = (ROOT / page).read_text()
    paths = set(re.findall(r"``([\w./-]+/[\w.-]*|[\w-]+\.(?:py|rst|toml))``", text))
    examples = {name for name, _ in blocks("python", ROOT / page)} | {"dcosnet/plugins/"}
    known = [path for path in paths - examples if not path.startswith(("/", "..", "services.d", "conf.d"))]
    assert known
    gone = [path for path in known if not any(_there(ROOT / base / path) for base in ("", "dcosnet"))]
    assert gone == []
    named = re.findall(r"``([\w/]+\.py)``\s+``(\w+)``", text)
    named += [(path, name) for name, path in re.findall(r"``(\w+)``\s+of\s+``([\w/]+\.py)``", text)]
    for path, name in named:
        source = (ROOT / "dcosnet" / path).read_text()
        assert re.search(rf"^(?:class|def) {name}\b", source, re.MULTILINE), f"{name} is not in {path}"


def _there(path: Path) -> bool:
    """Whether it is a file or folder; ``kv/store`` may stand for its module."""
    return path.exists() or path.with_suffix(".py").is_file()


def test_every_metric_is_documented_and_no_other(tmp_path: Path) -> None:
    """The families that the parts give, asked of all of them in one process."""
    from twisted.internet import reactor

    tables = "".join(f"[{name}]\n" for name in TABLES if name != "demo")
    (tmp_path / "dcosnet.toml").write_text(
        f'{tables}[node]\nname = "host-a"\naddress = "127.0.0.1"\nstate_dir = "state"\n'
    )
    _, toolbox = assemble(configure(read(tmp_path / "dcosnet.toml", {}, ())), reactor)
    given = {family.name for part in toolbox.all(IMetrics) for family in part.collect()}
    given |= {f"dcosnet_{name}" for name in ops_families()}
    page = (ROOT / "docs" / "operations" / "metrics.rst").read_text()
    assert set(re.findall(r"\bdcosnet_[a-z0-9_]+", page)) == given
    # And what dcos-net's registries are made of; that it is given is said by the page having no other names.
    aliases = {(registry, alias.name, alias.source) for registry, some in REGISTRIES.items() for alias in some}
    assert set(re.findall(r"^``(\w+)`` +``(\w+)`` +``(dcosnet_\w+)``", page, re.MULTILINE)) == aliases


def ops_families() -> set[str]:
    """The part that tells the metrics tells its own without contributing them."""
    text = (ROOT / "dcosnet" / "ops" / "counts.py").read_text()
    return set(re.findall(r'"dcosnet_([a-z0-9_]+)"', text))


ASK = """
import sys
from twisted.internet.task import Clock
from dcosnet.assemble import assemble, configure
from dcosnet.config.merge import read
from dcosnet.interfaces import IRestResource
from dcosnet.model.rest import RestRequest
from dcosnet.plugins.builtin import Builtin
from pathlib import Path

settings = configure(read(Path(sys.argv[1]), {}, ()))
from twisted.internet import reactor
_, toolbox = assemble(settings, reactor)
(resource,) = toolbox.all(IRestResource)
print(resource.respond(RestRequest("GET", "/v1/greeting")).body)
"""


def test_the_part_of_the_architecture_page_works(tmp_path: Path) -> None:
    """Its files as they stand on the page, in a process that finds them on its path."""
    page = ROOT / "ARCHITECTURE.rst"
    for name, text in (*blocks("python", page), *blocks("toml", page)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    main = '[node]\nname = "host-a"\naddress = "127.0.0.1"\nstate_dir = "state"\n'
    (tmp_path / "dcosnet.toml").write_text(main)
    command = [sys.executable, "-c", ASK, str(tmp_path / "dcosnet.toml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "{'greeting': 'good morning', 'node': 'host-a'}\n", done.stderr
