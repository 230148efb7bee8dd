"""ocserv and openconnect (Debian) with a client certificate: DTLS, and TLS only."""
import re
import shutil

from lab import CLI, GW, GW_WAN, LAN_NET, TUN_GW, sh, wait_for
from peers import Peer, register
from peers._pki import pki

CONFIGURATION = """auth = "certificate"
tcp-port = 443
{udp}
run-as-user = nobody
run-as-group = daemon
socket-file = {folder}/ocserv-socket
pid-file = {folder}/ocserv.pid
server-cert = {pki}/server.pem
server-key = {pki}/server.key
ca-cert = {pki}/ca.pem
cert-user-oid = 0.9.2342.19200300.100.1.1
isolate-workers = true
max-clients = 1024
max-same-clients = 0
rate-limit-ms = 0
server-stats-reset-time = 604800
keepalive = 300
dpd = 60
switch-to-tcp-timeout = 25
try-mtu-discovery = false
compression = false
tls-priorities = "NORMAL:%SERVER_PRECEDENCE"
auth-timeout = 240
cookie-timeout = 300
rekey-time = 172800
use-occtl = true
device = vpns
predictable-ips = true
ipv4-network = 10.97.0.0
ipv4-netmask = 255.255.255.0
ping-leases = false
route = 10.98.0.0/255.255.255.0
cisco-client-compat = true
dtls-legacy = true
max-ban-score = 0
"""

# What openconnect runs when it is connected.
SCRIPT = f"""#!/bin/sh
[ "$reason" = connect ] || exit 0
ip link set dev $TUNDEV up mtu $INTERNAL_IP4_MTU
ip addr replace $INTERNAL_IP4_ADDRESS/32 peer {TUN_GW} dev $TUNDEV
ip route replace {LAN_NET} dev $TUNDEV
"""


class Ocserv(Peer):
    dtls = True

    def available(self) -> bool:
        return all(shutil.which(program, path="/usr/sbin:/usr/bin") for program in ("ocserv", "openconnect"))

    def prepare(self) -> None:
        self.pki = pki(self.lab.work)
        udp = "udp-port = 443" if self.dtls else ""
        (self.folder / "ocserv.conf").write_text(CONFIGURATION.format(folder=self.folder, pki=self.pki, udp=udp))
        (self.folder / "script").write_text(SCRIPT)
        (self.folder / "script").chmod(0o755)

    def start_gateway(self) -> None:
        self.spawn_gateway("/usr/sbin/ocserv", "-f", "-c", self.folder / "ocserv.conf")
        wait_for(lambda: ":443" in self.lab.run(GW, "ss -Hltn"), 10, "ocserv")

    def start_client(self) -> None:
        self.spawn_client(
            "/usr/sbin/openconnect", "--protocol=anyconnect", "--non-inter", "-v", "--cafile", self.pki / "ca.pem",
            "-c", self.pki / "client.pem", "-k", self.pki / "client.key", *([] if self.dtls else ["--no-dtls"]),
            "-i", "oc0", "-s", self.folder / "script", f"https://{GW_WAN}")

    def wait_ready(self) -> None:
        if self.dtls:
            wait_for(lambda: "Established DTLS connection" in self.log_text("client"), 10, "DTLS channel")

    def facts(self) -> dict:
        ciphers = re.findall(r"(?i)ciphersuite (\S+)", self.log_text("client"))
        established = self.lab.run(CLI, "ss -Hun state established")
        return dict(version=sh("ocserv --version 2>&1 | head -1").strip(), cipher="; ".join(dict.fromkeys(ciphers)),
                    mtu=self.lab.tunnel_mtu(), udp_channel=bool(established.strip()))


@register
class OcservDtls(Ocserv):
    name = "ocserv-dtls"


@register
class OcservTls(Ocserv):
    name, dtls = "ocserv-tls", False
