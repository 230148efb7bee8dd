"""quincy (cargo install): QUIC datagrams, TLS 1.3 with certificates on both sides, TUN offloads. MTU 1400 (its default)."""
import hashlib
import os
import ssl
from pathlib import Path

from lab import GW, GW_WAN, LAN_NET, TUN_GW, sh, wait_for
from peers import Peer, register
from peers._pki import pki

BIN = Path(os.environ.get("PEER_BIN", Path.home() / ".cargo/bin"))
PORT = 55555

GATEWAY = """name = "bench"
interface_name = "qug0"
bind_address = "{gw_wan}"
bind_port = {port}
tunnel_network = "{tun_gw}/24"
users_file = "{folder}/users.toml"
[protocol]
mode = "tls"
key_exchange = "standard"
certificate_file = "{pki}/server.pem"
certificate_key_file = "{pki}/server.key"
[connection]
mtu = 1400
[log]
level = "info"
"""
CLIENT = """connection_string = "{gw_wan}:{port}"
[protocol]
mode = "tls"
key_exchange = "standard"
trusted_certificate_paths = ["{pki}/ca.pem"]
client_certificate_file = "{pki}/client.pem"
client_certificate_key_file = "{pki}/client.key"
[connection]
mtu = 1400
[network]
routes = ["{lan}"]
interface_name = "quc0"
[log]
level = "info"
"""


@register
class Quincy(Peer):
    name = "quincy"

    def available(self) -> bool:
        return all((BIN / program).exists() for program in ("quincy-server", "quincy-client"))

    def prepare(self) -> None:
        folder = pki(self.lab.work)
        certificate = ssl.PEM_cert_to_DER_cert((folder / "client.pem").read_text())
        fingerprint = hashlib.sha256(certificate).hexdigest()
        (self.folder / "users.toml").write_text(
            f'[users.alice]\nauthorized_keys = []\nauthorized_certs = ["sha256:{fingerprint}"]\n')
        for name, text in (("gateway", GATEWAY), ("client", CLIENT)):
            (self.folder / f"{name}.toml").write_text(text.format(
                folder=self.folder, pki=folder, gw_wan=GW_WAN, tun_gw=TUN_GW, lan=LAN_NET, port=PORT))

    def start_gateway(self) -> None:
        self.spawn_gateway(BIN / "quincy-server", "--config-path", self.folder / "gateway.toml")
        wait_for(lambda: f":{PORT}" in self.lab.run(GW, "ss -Hlun"), 10, "quincy-server")

    def start_client(self) -> None:
        self.spawn_client(BIN / "quincy-client", "--config-path", self.folder / "client.toml")

    def facts(self) -> dict:
        return dict(version=sh(f"{BIN}/quincy-server --version").strip(), cipher="QUIC, TLS 1.3", mtu=self.lab.tunnel_mtu())
