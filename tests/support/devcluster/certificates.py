"""The cluster's certificate authority, certificates and kubeconfig files, created at every start.

The keys are elliptic-curve keys, because the generation of twelve RSA keys takes longer than the start of the control plane.
"""

import base64
import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from . import network, paths

API_SERVER = f"https://{network.HOST}:6443"
_LIFETIME = datetime.timedelta(days=30)


class Authority:
    """A certificate authority that exists during one `up`; its key is never written to disk."""

    def __init__(self) -> None:
        """Generate the key and the self-signed certificate of the authority."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finetune-devcluster")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """The certificate of the authority as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, common_name: str, organization: str = "", addresses: tuple[str, ...] = ()) -> tuple[str, str]:
        """Issue a certificate for clients and servers. Returns it and its key as PEM.

        `addresses` are IP addresses or DNS names.
        """
        key = new_key()
        names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        builder = self._builder(x509.Name(names), key).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        if addresses:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(address) for address in addresses]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), private_pem(key)

    def kubeconfig(self, common_name: str, organization: str = "", server: str = API_SERVER) -> str:
        """A kubeconfig (as JSON, which is valid YAML) that authenticates as the user `common_name`."""
        certificate, key = self.issue(common_name, organization)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "devcluster",
            "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": common_name}}],
            "clusters": [
                {
                    "name": "devcluster",
                    "cluster": {"server": server, "certificate-authority-data": _base64(self.pem)},
                }
            ],
            "users": [
                {
                    "name": common_name,
                    "user": {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)},
                }
            ],
        }
        return json.dumps(document, indent=1)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        # Valid since an hour ago, so that a small clock adjustment does not invalidate it.
        start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + _LIFETIME)
        )


def new_key() -> ec.EllipticCurvePrivateKey:
    """Generate a private key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """A private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key of a private key as PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def write_pair(directory: Path, name: str, pair: tuple[str, str]) -> tuple[Path, Path]:
    """Write a certificate and its key as NAME.crt and NAME.key."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    paths.replace_file(certificate, pair[0])
    paths.replace_file(key, pair[1], mode=0o600)
    return certificate, key


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
