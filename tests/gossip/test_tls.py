"""Files of certificates: what cannot be used is told, what is renewed is taken, what runs out is seen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.logger import globalLogPublisher

from dcosnet.errors import ConfigError
from dcosnet.gossip.tls import RefusedError, verify


@pytest.fixture
def logged():
    """The lines that are logged meanwhile."""
    lines = []

    def observe(event):
        lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(
    ("setting", "damage", "reason"),
    [
        ("gossip.ca", lambda hosts, files: files.ca.unlink(), "cannot be read"),
        ("gossip.ca", lambda hosts, files: files.ca.write_text("nothing"), "does not hold certificates"),
        ("gossip.cert", lambda hosts, files: files.cert.write_bytes(b"\xff"), "does not hold certificates"),
        ("gossip.key", lambda hosts, files: files.key.write_bytes(files.cert.read_bytes()), "is not the key of"),
        ("gossip.key", lambda hosts, files: hosts.files("b").key.rename(files.key), "is not the key of"),
        ("gossip.ca", lambda hosts, files: hosts.trust(files, "other"), "not signed by"),
    ],
)
def test_files_that_no_peer_could_take_are_told_with_their_setting(setting, damage, reason, hosts):
    """At the start, by name of the setting, before anybody is refused."""
    hosts.other_authority()
    files = hosts.files("a")
    damage(hosts, files)
    with pytest.raises(ConfigError, match=reason) as raised:
        hosts.tls(files, "a")
    assert raised.value.path in {setting, "gossip.cert"}


@pytest.mark.parametrize(
    ("name", "cluster", "reason"), [("b", "prod", "where b is"), ("a", "trial", "a of the cluster prod")]
)
def test_a_certificate_of_somebody_else_is_told(name, cluster, reason, hosts):
    """The files of another host, or of another cluster."""
    with pytest.raises(ConfigError, match=reason) as raised:
        hosts.tls(hosts.files("a"), name, cluster)
    assert "dcosnet ca issue" in str(raised.value)


def test_a_certificate_without_our_uri_names_nobody(hosts):
    """An authority's own, for example."""
    with pytest.raises(RefusedError, match="no URI dcosnet:NAME"):
        verify(hosts.authority.certificate, "prod", None)


def test_a_certificate_that_names_two_nodes_proves_neither(hosts):
    """Somebody else's authority may make such a one; which of the two it is, nobody could say."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.UniformResourceIdentifier(f"dcosnet:{name}.prod") for name in ("a", "b")]
    subject = x509.Name([])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, hosts.now, hosts.now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(RefusedError, match="names 2 nodes"):
        verify(made, "prod", "a")


def test_broken_files_leave_the_former_certificates_in_place(hosts, logged):
    """Told once they have come to rest: two files are never replaced in one moment."""
    files = hosts.files("a")
    tls = hosts.tls(files, "a")
    good, key = tls.read(), files.key.read_bytes()
    hosts.files("a", renew=True)
    files.key.write_bytes(key)
    tls.take(tls.read())
    assert tls.problems == ()
    tls.take(tls.read())
    tls.take(tls.read())
    assert "is not the key of" in tls.problems[0]
    assert len(logged) == 1
    assert tls.reloads == 0
    files.cert.unlink()
    tls.take(tls.read())
    tls.take(tls.read())
    assert "cannot be read" in tls.problems[0]
    tls.take(good)
    assert tls.problems == ()


def test_a_certificate_that_runs_out_is_told_at_thirty_seven_and_one_day_and_at_the_end(hosts, logged):
    """And each time once, however often somebody looks."""
    tls = hosts.tls(hosts.files("a", days=60), "a")
    for _ in range(62):
        tls.warn()
        tls.warn()
        hosts.now += timedelta(days=1)
    assert [line.partition(" expires in ")[2][:4] for line in logged] == ["30.0", "7.0 ", "1.0 ", ""]
    assert "has expired, so peers refuse this node" in tls.problems[0]
    assert tls.seconds_left < 0


def test_an_authority_that_runs_out_first_is_what_counts(hosts):
    """Its certificates are worth nothing then."""
    files = hosts.files("a", days=365)
    hosts.now += timedelta(days=3650 - 10)
    with_old = hosts.authority.issue("b", hosts.folder / "b", 365, hosts.now)
    assert with_old.shortened
    assert with_old.expires == hosts.authority.certificate.not_valid_after_utc
    assert hosts.tls(files, "a").seconds_left < 0


def test_a_certificate_that_has_expired_does_not_keep_a_node_from_starting(hosts):
    """Names still resolve on that host, and a renewed certificate is taken without a restart."""
    files = hosts.files("a", days=5, age=10)
    tls = hosts.tls(files, "a")
    assert "has expired" in tls.problems[0]
    hosts.files("a", renew=True)
    tls.take(tls.read())
    assert tls.problems == ()


def test_a_clock_that_is_behind_is_named_as_the_trouble(hosts):
    """Nothing is wrong with the files."""
    tls = hosts.tls(hosts.files("a", age=-3), "a")
    assert "set the clock of this host" in tls.problems[0]
