"""OpenVPN 2.6 (Debian): UDP, AES-128-GCM, in user space (no kernel offload)."""
import shutil

from lab import GW_WAN, sh, wait_for
from peers import Peer, register
from peers._pki import pki

COMMON = """dev-type tun
proto udp
ca {pki}/ca.pem
data-ciphers AES-128-GCM
persist-key
disable-dco
verb 3
"""
GATEWAY = COMMON + f"""dev ovg0
local {GW_WAN}
port 1194
cert {{pki}}/server.pem
key {{pki}}/server.key
dh none
topology subnet
server 10.97.0.0 255.255.255.0
push "route 10.98.0.0 255.255.255.0"
keepalive 10 60
"""
CLIENT = COMMON + f"""dev ovc0
client
remote {GW_WAN} 1194
nobind
remote-cert-tls server
cert {{pki}}/client.pem
key {{pki}}/client.key
"""


@register
class OpenVpn(Peer):
    name = "openvpn"

    def available(self) -> bool:
        return shutil.which("openvpn", path="/usr/sbin:/usr/bin") is not None

    def prepare(self) -> None:
        folder = pki(self.lab.work)
        (self.folder / "gateway.conf").write_text(GATEWAY.format(pki=folder))
        (self.folder / "client.conf").write_text(CLIENT.format(pki=folder))

    def start_gateway(self) -> None:
        self.spawn_gateway("/usr/sbin/openvpn", self.folder / "gateway.conf")
        wait_for(lambda: "Initialization Sequence Completed" in self.log_text("gateway"), 10, "openvpn")

    def start_client(self) -> None:
        self.spawn_client("/usr/sbin/openvpn", self.folder / "client.conf")

    def facts(self) -> dict:
        return dict(version=sh("openvpn --version | head -1", check=False).split(" [")[0], cipher="AES-128-GCM",
                    mtu=self.lab.tunnel_mtu())
