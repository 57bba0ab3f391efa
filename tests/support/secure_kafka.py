"""A real Kafka that asks who is there: SASL (PLAIN, SCRAM, OAUTHBEARER), TLS, certificates."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from callmeter.log.kafka_server import KafkaServer, free_port

USER, PASSWORD = "meter", "p@ss/w0rd"
LISTENERS = ("PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL", "SSL")
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"


class SecureKafka:
    """One broker, a listener of each kind on ``port[kind]``; ``ca_file`` verifies it, ``cert_file``
    and ``key_file`` are a client's. The user is known to every mechanism.
    """

    def __init__(self, directory: Path) -> None:
        self.port = {name: free_port() for name in (*LISTENERS, "CONTROLLER")}
        self.directory = directory
        self._write_certificates()
        self.server = KafkaServer(
            directory / "kafka",
            self.port["PLAINTEXT"],
            properties=self._properties(),
            quick=True,
        )

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def cert_file(self) -> Path:
        return self.directory / "client.pem"

    @property
    def key_file(self) -> Path:
        return self.directory / "client.key"

    @property
    def plain(self) -> str:
        """``host:port`` of the listener that asks nothing: for the test's own client."""
        return f"localhost:{self.port['PLAINTEXT']}"

    def start(self) -> None:
        self.server.start()
        admin = AdminClient({"bootstrap.servers": self.plain})
        changes = [
            UserScramCredentialUpsertion(
                USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode()
            )
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
        # One call for each mechanism: a user may stand in a call once.
        for change in changes:
            admin.alter_user_scram_credentials([change])[USER].result(30)

    @staticmethod
    def token(lifetime_s: int = 600) -> str:
        """An unsigned JWT, which a broker without a configured validator takes."""
        now = int(time.time())
        claims = {"sub": USER, "iat": now, "exp": now + lifetime_s}
        parts = [
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in ({"alg": "none"}, claims)
        ]
        return ".".join([*parts, ""])

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        server, client = authority.issue_cert("localhost"), authority.issue_cert("meter.client")
        (self.directory / "server.pem").write_bytes(
            _pkcs8(server.private_key_pem.bytes())
            + b"".join(p.bytes() for p in server.cert_chain_pems)
        )
        self.key_file.write_bytes(client.private_key_pem.bytes())
        self.cert_file.write_bytes(b"".join(part.bytes() for part in client.cert_chain_pems))

    def _properties(self) -> dict[str, str]:
        at = {name: f"{name}://localhost:{port}" for name, port in self.port.items()}
        properties = {
            "listeners": ",".join(at.values()),
            "advertised.listeners": ",".join(at[name] for name in LISTENERS),
            "controller.quorum.voters": f"1@localhost:{self.port['CONTROLLER']}",
            "listener.security.protocol.map": ",".join(
                f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in at
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.directory / "server.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca_file),
            "listener.name.ssl.ssl.client.auth": "required",
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            base = f"listener.name.{listener}"
            properties |= {
                f"{base}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
                f"{base}.plain.sasl.jaas.config": f'{_PLAIN} user_{USER}="{PASSWORD}";',
                f"{base}.scram-sha-256.sasl.jaas.config": _SCRAM,
                f"{base}.scram-sha-512.sasl.jaas.config": _SCRAM,
                f"{base}.oauthbearer.sasl.jaas.config": (
                    f'{_OAUTH} unsecuredLoginStringClaim_sub="{USER}";'
                ),
            }
        return properties


def _pkcs8(key: bytes) -> bytes:
    """Kafka reads PKCS #8 only."""
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
