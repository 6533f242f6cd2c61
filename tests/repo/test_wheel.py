"""What is published installs, and twistd then knows it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive, so that one is complete as well."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_ships_the_plugin_and_leaves_twisted_alone(wheel: Path) -> None:
    """An __init__.py in twisted/ would take the place of Twisted's own."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/dcosnet_plugin.py"}
    assert {"dcosnet/tap.py", "dcosnet/py.typed"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dcosnet", "twisted"}


def test_twistd_knows_dcosnet_once_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which sees our dependencies but not this clone."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path
    )
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # A path given so does not obey the .pth files in it, of which one is our editable install.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    where = run(python, "-c", "import dcosnet; print(dcosnet.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    lines = run(python, "-c", TWISTD, "--help", cwd=tmp_path).splitlines()
    assert [line for line in lines if line.split()[:1] == ["dcosnet"]]
    assert "--config" in run(python, "-c", TWISTD, "dcosnet", "--help", cwd=tmp_path)
    assert (tmp_path / "venv" / "bin" / "dcosnet").is_file()
