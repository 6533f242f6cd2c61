"""
A private authority: its certificate and key, and certificates for nodes, as files.

Keys are ECDSA P-256. A certificate names one node of one cluster, and serves
both ends of a connection. Nothing that is there already is overwritten, unless
it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dcosnet.errors import DcosnetError
from dcosnet.gossip.identity import Identity, check_cluster, check_name
from dcosnet.io.files import write_atomically

CA, CA_KEY = "ca.pem", "ca.key"
CERT, KEY = "node.pem", "node.key"

# A host whose clock is that far behind is not refused for it.
_EARLIER = timedelta(hours=1)


class AuthorityError(DcosnetError):
    """What cannot be made: what, why, and what to do."""

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(what, why, remedy)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.remedy}"


@attrs.frozen
class Issued:
    """What was made for a node: a folder to copy to its host, and until when it is believed."""

    identity: Identity
    folder: Path
    expires: datetime
    shortened: bool
    """Whether it ends before the days that were asked for, since its authority does."""


@attrs.frozen
class Authority:
    """Whoever has its key can make any node of its cluster."""

    cluster: str
    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, folder: Path, cluster: str, days: int, now: datetime) -> Authority:
        """A new one, in CA and CA_KEY of `folder`. Raises AuthorityError or OSError."""
        _checked(check_cluster, cluster, "the name of a cluster")
        for path in (folder / CA, folder / CA_KEY):
            if path.exists():
                raise AuthorityError(
                    f"there is an authority in {folder}",
                    f"{path} is there",
                    "use it, or name another folder with --out",
                )
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
                x509.NameAttribute(NameOID.COMMON_NAME, f"dcosnet authority of {cluster}"[:64]),
            ]
        )
        public = key.public_key()
        certificate = (
            _builder(name, name, public, now, now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The key first: a certificate without one would keep another try from working.
        write_atomically(folder / CA_KEY, _pem(key))
        write_atomically(folder / CA, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return cls(cluster, certificate, key)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The one in `folder`. Raises AuthorityError."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / CA).read_bytes())
            key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), None)
        except FileNotFoundError as error:
            raise AuthorityError(
                f"there is no authority in {folder}",
                f"{error.filename} is not there",
                "make one with `dcosnet ca init`, or name its folder with --ca",
            ) from error
        except OSError as error:
            raise AuthorityError(
                f"the authority in {folder} cannot be read", f"{error.filename}: {error.strerror}", "correct its rights"
            ) from error
        except (ValueError, TypeError) as error:
            raise AuthorityError(
                f"the authority in {folder} cannot be used", str(error), "restore both files from a copy"
            ) from error
        names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key() or not names:
            raise AuthorityError(
                f"the authority in {folder} cannot be used",
                f"{CA_KEY} is not the key of {CA}, or `dcosnet ca init` has not made it",
                "restore both files from a copy",
            )
        return cls(str(names[0].value), certificate, key)

    def issue(self, name: str, folder: Path, days: int, now: datetime, *, renew: bool = False) -> Issued:
        """
        A key and a certificate for a node, in KEY and CERT of `folder`, with CA beside them.

        What is there is replaced only by `renew`. Raises AuthorityError or OSError.
        """
        _checked(check_name, name, "the name of a node")
        this = Identity(name, self.cluster)
        if not renew and (folder / CERT).exists():
            raise AuthorityError(
                f"{name} has a certificate already",
                f"{folder / CERT} is there",
                "make a new one in its place with --renew; a running node takes it without a restart",
            )
        asked, end = now + timedelta(days=days), self.certificate.not_valid_after_utc
        if end <= now:
            raise AuthorityError(
                "nothing can be issued",
                f"the authority expired on {end:%Y-%m-%d}",
                "make another with `dcosnet ca init`",
            )
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.cluster),
                x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
            ]
        )
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(self.certificate.subject, subject, key.public_key(), now, min(asked, end))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(this.uri)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = serialization.Encoding.PEM
        write_atomically(folder / CA, self.certificate.public_bytes(pem), 0o644)
        write_atomically(folder / KEY, _pem(key))
        write_atomically(folder / CERT, certificate.public_bytes(pem), 0o644)
        return Issued(this, folder, certificate.not_valid_after_utc, end < asked)


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer, subject, key, x509.random_serial_number(), now - _EARLIER, end
    ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _checked(check: Callable[[str], object], text: str, what: str) -> None:
    try:
        check(text)
    except ValueError as error:
        raise AuthorityError(f"{text!r} is not {what}", str(error), "choose another one") from None
