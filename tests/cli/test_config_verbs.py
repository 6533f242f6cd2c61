"""check-config, show-config and the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from dcosnet import __version__

Run = Callable[..., Result]

_MAIN = "from dcosnet.cli import main; main()"


def test_check_config_tells_all_mistakes(run: Run, tmp_path: Path) -> None:
    """Exit code 2, a line each, with file and key."""
    config = tmp_path / "dcosnet.toml"
    config.write_text('[dsn]\n[node]\nadress = "10.0.0.1"\naddress = "10.1"\n')
    result = run("-c", config, "check-config", "--set", "node.nam=x")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "dcosnet: --set node.nam: node.nam: unknown key; did you mean name?",
        f"dcosnet: {config}: dsn: unknown table; did you mean dns?",
        f"dcosnet: {config}: node.address: '10.1' is not an IPv4 or IPv6 address",
        f"dcosnet: {config}: node.adress: unknown key; did you mean address?",
    ]
    told = json.loads(run("-c", config, "-o", "json", "check-config").stdout)
    assert not told["valid"]
    assert {problem["path"] for problem in told["problems"]} == {"dsn", "node.adress", "node.address"}


def test_check_config_accepts_a_valid_file(run: Run, tmp_path: Path) -> None:
    """Exit code 0; parts that always run are among those named."""
    config = tmp_path / "dcosnet.toml"
    config.write_text('[node]\nname = "a"\n')
    result = run("-c", config, "check-config")
    assert result.exit_code == 0
    assert "kv" in result.output


def test_check_config_tells_what_only_a_part_understands(run: Run, tmp_path: Path) -> None:
    """What is said to be valid starts; and trying it leaves nothing behind."""
    config = tmp_path / "dcosnet.toml"
    config.write_text('[node]\nstate_dir = "state"\n[ops]\nlisten = ["tcp:65536"]\n')
    result = run("-c", config, "check-config")
    assert result.exit_code == 2
    assert result.stderr.startswith("dcosnet: ops.listen: '65536' in 'tcp:65536' is no port")
    assert list(tmp_path.iterdir()) == [config]


def test_missing_or_broken_file_is_exit_code_2(run: Run, tmp_path: Path) -> None:
    """Whichever verb reads it."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[node\n")
    for verb in ("check-config", "show-config", "status"):
        for path in (broken, tmp_path / "none.toml"):
            result = run("-c", path, verb)
            assert result.exit_code == 2
            assert str(path) in result.stderr
            assert len(result.stderr.splitlines()) == 1


def test_show_config_is_toml_with_origins(run: Run, tmp_path: Path) -> None:
    """For people with comments; for programs as JSON of the same."""
    config = tmp_path / "dcosnet.toml"
    config.write_text('[node]\nname = "a"\n')
    result = run("-c", config, "show-config", "--set", "node.address=10.0.0.1")
    assert f'name = "a"  # {config}' in result.output
    assert 'address = "10.0.0.1"  # --set node.address' in result.output
    shown = tomllib.loads(result.output)
    assert shown["node"]["name"] == "a"
    as_json = run("-o", "json", "-c", config, "show-config", "--set", "node.address=10.0.0.1")
    assert json.loads(as_json.output) == shown


def test_every_verb_has_a_line_and_help(run: Run) -> None:
    """The list is complete in --help, and each verb explains itself."""
    overview = run("--help").output
    verbs = ["run", "check-config", "show-config", "status", "vips", "records", "tasks", "sources", "resolve"]
    for verb in (*verbs, "register", "deregister", "completion"):
        assert f"\n  {verb} " in overview
        assert run(verb, "--help").exit_code == 0
    assert "..." not in overview.partition("Commands:")[2]


def test_version_and_usage(run: Run) -> None:
    """Usage errors are exit code 2."""
    assert run("--version").output == f"dcosnet, version {__version__}\n"
    assert run("nonsense").exit_code == 2
    assert run("-o", "xml", "status").exit_code == 2
    assert run("resolve", "a..b").exit_code == 2
    assert run("resolve", "a", "NOTYPE").exit_code == 2


def test_completion_is_printed_for_each_shell(run: Run) -> None:
    """What the manual tells to source."""
    for shell in ("bash", "zsh", "fish"):
        assert "_DCOSNET_COMPLETE" in run("completion", shell).output


def test_command_starts_without_twisted() -> None:
    """Looking at a node takes no reactor, and stays quick: the libraries of parts are not imported."""
    code = "import sys, dcosnet.cli.command, dcosnet.cli.verbs.status; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"twisted", "rich", "dcosnet.assemble"} & set(loaded)


def test_run_becomes_the_daemon(tmp_path: Path) -> None:
    """`run --check` ends as `twistd dcosnet --check` does: same options, same exit code."""
    config = tmp_path / "dcosnet.toml"
    config.write_text("[node]\n")
    command = [sys.executable, "-c", _MAIN, "-c", str(config), "run", "--check"]
    good = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    bad = subprocess.run([*command, "--set", "dsn.x=1"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "did you mean dns?" in bad.stderr
    assert sorted(tmp_path.iterdir()) == [config]


def test_closed_pipe_ends_quietly() -> None:
    """`dcosnet ... | head` shows no traceback."""
    command = [sys.executable, "-c", _MAIN, "completion", "bash"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() != 0
