"""nebula (Debian), AES-256-GCM. MTU 1420, since its default of 1300 would fragment the UDP test of 1300 B."""
import shutil

from lab import GW, GW_WAN, LAN_NET, TUN_CLI, TUN_GW, sh, wait_for
from peers import Peer, register

CONFIGURATION = """pki: {{ca: {folder}/ca.crt, cert: {folder}/{end}.crt, key: {folder}/{end}.key}}
static_host_map: {{"{tun_gw}": ["{gw_wan}:4242"]}}
lighthouse:
  am_lighthouse: {lighthouse}
  interval: 60
  hosts: [{hosts}]
listen: {{host: 0.0.0.0, port: {port}}}
cipher: aes
tun:
  dev: {device}
  tx_queue: 500
  mtu: 1420
  unsafe_routes: [{routes}]
logging: {{level: info, format: text}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"""


@register
class Nebula(Peer):
    name = "nebula"

    def available(self) -> bool:
        return all(map(shutil.which, ("nebula", "nebula-cert")))

    def prepare(self) -> None:
        folder = self.folder
        if not (folder / "client.crt").exists():
            sh(f"cd {folder} && nebula-cert ca -name bench -duration 720h && "
               f"nebula-cert sign -name gateway -ip {TUN_GW}/24 -subnets {LAN_NET} && "
               f"nebula-cert sign -name client -ip {TUN_CLI}/24")
        ends = (
            dict(end="gateway", device="neg0", lighthouse="true", port=4242, hosts="", routes=""),
            dict(end="client", device="nec0", lighthouse="false", port=0, hosts=f'"{TUN_GW}"',
                 routes=f"{{route: {LAN_NET}, via: {TUN_GW}}}"),
        )
        for end in ends:
            text = CONFIGURATION.format(folder=folder, tun_gw=TUN_GW, gw_wan=GW_WAN, **end)
            (folder / f"{end['end']}.yml").write_text(text)

    def start_gateway(self) -> None:
        self.spawn_gateway("/usr/bin/nebula", "-config", self.folder / "gateway.yml")
        wait_for(lambda: "UP" in self.lab.ip(GW, "link show neg0"), 10, "nebula")

    def start_client(self) -> None:
        self.spawn_client("/usr/bin/nebula", "-config", self.folder / "client.yml")

    def facts(self) -> dict:
        return dict(version=sh("nebula -version 2>&1").strip(), cipher="AES-256-GCM", mtu=self.lab.tunnel_mtu())
