"""tinc 1.0 (Debian) with its defaults: router mode, UDP, AES-256-CBC with HMAC-SHA256."""
import shutil
import time

from lab import GW, GW_WAN, LAN_NET, TUN_CLI, TUN_GW, sh, wait_for
from peers import Peer, register


@register
class Tinc(Peer):
    name = "tinc"

    def available(self) -> bool:
        return shutil.which("tincd", path="/usr/sbin:/usr/bin") is not None

    def prepare(self) -> None:
        self.end("gateway", "tig0", TUN_GW, [f"{TUN_GW}/32", LAN_NET], f"{TUN_CLI}/32", f"Address = {GW_WAN}\n", "")
        self.end("client", "tic0", TUN_CLI, [f"{TUN_CLI}/32"], LAN_NET, "", "ConnectTo = gateway\n")
        for one, other in (("gateway", "client"), ("client", "gateway")):
            shutil.copy(self.folder / one / "hosts" / one, self.folder / other / "hosts" / one)

    def end(self, name: str, device: str, address: str, subnets: list[str], route: str, host: str, more: str) -> None:
        """Writes one end's folder; its key is made once."""
        folder = self.folder / name
        (folder / "hosts").mkdir(parents=True, exist_ok=True)
        (folder / "tinc.conf").write_text(f"Name = {name}\nInterface = {device}\nAddressFamily = ipv4\n{more}")
        (folder / "tinc-up").write_text(f"#!/bin/sh\nip link set $INTERFACE up\nip addr add {address}/24 dev $INTERFACE\n"
                                        f"ip route replace {route} dev $INTERFACE\n")
        (folder / "tinc-up").chmod(0o755)
        if not (folder / "rsa_key.priv").exists():
            (folder / "hosts" / name).write_text(host + "".join(f"Subnet = {subnet}\n" for subnet in subnets))
            sh(f"tincd -c {folder} -K2048 < /dev/null")

    def argv(self, name: str) -> list[object]:
        return ["/usr/sbin/tincd", "-D", "-c", self.folder / name, f"--pidfile={self.folder / name}.pid"]

    def start_gateway(self) -> None:
        self.spawn_gateway(*self.argv("gateway"))
        wait_for(lambda: "tig0" in self.lab.ip(GW, "addr show tig0"), 5, "tinc")
        time.sleep(0.3)

    def start_client(self) -> None:
        self.spawn_client(*self.argv("client"))

    def facts(self) -> dict:
        return dict(version=sh("tincd --version | head -1").strip(), cipher="AES-256-CBC + HMAC-SHA256",
                    mtu=self.lab.tunnel_mtu())
