"""A Kafka with a door for strangers: one broker that speaks TLS and wants a user and a password besides.

`Secured` is a `Cluster` whose plain listener is for the test itself; `port` is that of the other, and `as_user` gives
the arguments with which a client of aiokafka goes through it. The certificate is for 127.0.0.1, of an authority of the
test's own. `Guarded` gives that user only the rights that a test says; the plain listener may do everything.
"""

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from local_kafka import LOOPBACK, Node
from support.kafka import Cluster, need_kafka
from support.processes import free_port, run

USER, PASSWORD = "consentry", "swordfish-in-the-sea"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
LOGIN = "org.apache.kafka.common.security"
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
ACLS = "org.apache.kafka.tools.AclCommand"


class Secured(Cluster):
    """One broker with a listener of security protocol SASL_SSL, or SASL_PLAINTEXT if told `tls=False`."""

    def __init__(self, *, tls: bool = True) -> None:
        self.authority = trustme.CA()
        self.port = free_port()
        self.protocol = "SASL_SSL" if tls else "SASL_PLAINTEXT"
        scram = [f"--add-scram={name}=[name={USER},password={PASSWORD}]" for name in MECHANISMS[1:]]
        super().__init__(storage=scram)

    def as_user(self, mechanism: str, password: str = PASSWORD) -> dict[str, Any]:
        """How a client connects. TLS trusts the authority, and no other."""
        context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())
        return {
            "bootstrap_servers": f"{LOOPBACK}:{self.port}",
            "security_protocol": self.protocol,
            "ssl_context": context if self.protocol == "SASL_SSL" else None,
            "sasl_mechanism": mechanism,
            "sasl_plain_username": USER,
            "sasl_plain_password": password,
        }

    def authority_file(self, directory: Path) -> Path:
        """The authority's certificate in a file, for a configuration."""
        file = directory / "authority.pem"
        self.authority.cert_pem.write_to_path(str(file))
        return file

    def _settings_of(self, nodes: Sequence[Node]) -> Mapping[str, object]:
        (node,) = nodes
        name = f"listener.name.{self.protocol.lower()}"
        certificate = self.authority.issue_cert(LOOPBACK)
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Kafka reads no other form
        return {
            "listeners": ",".join(
                (
                    f"PLAINTEXT://{LOOPBACK}:{node.port}",
                    f"{self.protocol}://{LOOPBACK}:{self.port}",
                    f"CONTROLLER://{LOOPBACK}:{node.controller_port}",
                )
            ),
            "listener.security.protocol.map": ",".join(
                ("PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", f"{self.protocol}:{self.protocol}")
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.key": _one_line(pkcs8),
            "ssl.keystore.certificate.chain": _one_line(certificate.cert_chain_pems[0].bytes()),
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            f"{name}.plain.sasl.jaas.config": f'{LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            **{
                f"{name}.{mechanism.lower()}.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;"
                for mechanism in MECHANISMS[1:]
            },
        }


class Guarded(Secured):
    """One broker that lets the user do only what `allow` was told, and without TLS."""

    def __init__(self) -> None:
        super().__init__(tls=False)

    def allow(self, *words: str) -> None:
        """Give rights, as Kafka's own tool is told them: `"--topic", NAME, "--operation", "Write"`."""
        self._change("--add", *words)

    def forbid(self, *words: str) -> None:
        """Take away rights that were given in these words."""
        self._change("--remove", "--force", *words)

    def _change(self, what: str, *words: str) -> None:
        install = need_kafka()
        whom = ("--bootstrap-server", self.bootstrap, what, "--allow-principal", f"User:{USER}")
        done = run(install.command(ACLS, *whom, *words), install.environment, seconds=60)
        assert not done.code, done.output

    def _settings_of(self, nodes: Sequence[Node]) -> Mapping[str, object]:
        everybody_else = {"authorizer.class.name": AUTHORIZER, "super.users": "User:ANONYMOUS"}
        return {**super()._settings_of(nodes), **everybody_else}


def _one_line(pem: bytes) -> str:
    """PEM as a properties file holds it."""
    return pem.decode().strip().replace("\n", "\\n")
