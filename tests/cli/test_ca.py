"""Certificates from the command."""

from __future__ import annotations

import json
import stat
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def made(run, tmp_path):
    """An authority of the cluster "prod"."""
    result = run("ca", "init", "--cluster", "prod", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    return tmp_path


def test_two_commands_make_what_a_host_needs(run, made):
    """One folder for each host; the key of the authority is in none of them, and keys are for their owner's eyes."""
    result = run("ca", "issue", "host-a", "--out", made)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (made / "host-a").iterdir()) == ["ca.pem", "node.key", "node.pem"]
    assert [mode(made / "ca.key"), mode(made / "host-a" / "node.key"), mode(made / "host-a")] == [0o600, 0o600, 0o700]
    assert (made / "host-a" / "ca.pem").read_bytes() == (made / "ca.pem").read_bytes()


def test_the_output_holds_the_lines_to_paste(run, made):
    """What is printed is a configuration."""
    output = run("ca", "issue", "host-a", "--out", made).output
    lines = tomllib.loads(output[output.index("[node]") :])
    assert lines["node"] == {"name": "host-a"}
    assert lines["gossip"] == {
        "cluster": "prod",
        "seeds": ["HOST:62501"],
        "ca": "ca.pem",
        "cert": "node.pem",
        "key": "node.key",
    }


def test_a_certificate_is_for_one_node_and_both_ends_of_a_link(run, made):
    """Its identity is a URI; its time is a year, and the authority's ten."""
    run("ca", "issue", "host-a", "--out", made)
    node, authority = certificate(made / "host-a" / "node.pem"), certificate(made / "ca.pem")
    node.verify_directly_issued_by(authority)
    names = node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["dcosnet:host-a.prod"]
    usage = node.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    year = timedelta(days=365)
    assert abs(node.not_valid_after_utc - datetime.now(UTC) - year) < timedelta(hours=1)
    assert abs(authority.not_valid_after_utc - datetime.now(UTC) - 10 * year) < timedelta(hours=1)


def test_nothing_is_overwritten_unless_it_is_asked_for(run, made):
    """A second authority in the place of the first would cut off a cluster."""
    run("ca", "issue", "host-a", "--out", made)
    before = {path: path.read_bytes() for path in made.rglob("*.*")}
    for arguments, remedy in ((("init",), "--out"), (("issue", "host-a"), "--renew")):
        result = run("ca", *arguments, "--out", made)
        assert result.exit_code == 1
        assert remedy in result.output
    assert before == {path: path.read_bytes() for path in made.rglob("*.*")}
    assert run("ca", "issue", "host-a", "--out", made, "--renew", "--days", "30").exit_code == 0
    assert certificate(made / "host-a" / "node.pem").serial_number != certificate_in(before, made).serial_number
    assert (made / "ca.key").read_bytes() == before[made / "ca.key"]


def certificate_in(files, folder):
    return x509.load_pem_x509_certificate(files[folder / "host-a" / "node.pem"])


def test_the_folder_of_the_authority_may_be_another_one(run, made, tmp_path):
    """Off the machine where certificates are handed out."""
    result = run("ca", "issue", "host-a", "--ca", made, "--out", tmp_path / "hosts", "-o", "json")
    told = json.loads(result.output)
    assert (told["node"], told["cluster"]) == ("host-a", "prod")
    assert (tmp_path / "hosts" / "host-a" / "node.pem").is_file()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("issue", "../x"), "letters"),
        (("issue", "a b"), "letters"),
        (("init", "--cluster", "A.B", "--out", "there"), "lower case"),
        (("issue", "host-a", "--ca", "nowhere"), "dcosnet ca init"),
        (("init", "--days", "0"), "0"),
    ],
)
def test_what_cannot_be_made_is_said_with_the_remedy(arguments, reason, run, made, monkeypatch):
    """And nothing is left behind."""
    monkeypatch.chdir(made)
    before = sorted(made.rglob("*"))
    result = run("ca", *arguments)
    assert result.exit_code in {1, 2}
    assert reason in result.output
    assert before == sorted(made.rglob("*"))


def test_a_damaged_authority_issues_nothing(run, made, tmp_path):
    """A key that belongs to another certificate makes certificates that nobody believes."""
    run("ca", "init", "--out", tmp_path / "b")
    (made / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    result = run("ca", "issue", "host-a", "--out", made)
    assert result.exit_code == 1
    assert "is not the key of" in result.output
