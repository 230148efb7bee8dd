"""WireGuard in user space, the same program at both ends, MTU 1420 (its default)."""
import os
import shutil
import subprocess
from pathlib import Path

from lab import CLI, GW, GW_WAN, LAN_NET, PREFIX, TUN_CLI, TUN_GW, sh, wait_for
from peers import Peer, register

# Where `cargo install --root` put what Debian does not have.
CARGO_BIN = Path(os.environ.get("PEER_BIN", Path.home() / ".cargo/bin"))
SOCKETS = Path("/var/run/wireguard")
MTU = 1420


class WireGuard(Peer):
    binary = Path("/usr/bin/wireguard-go")
    args: tuple[str, ...] = ("-f",)
    gateway_device, client_device = f"{PREFIX}-wgg", f"{PREFIX}-wgc"

    def available(self) -> bool:
        return self.binary.exists() and shutil.which("wg") is not None

    def prepare(self) -> None:
        folder = self.folder
        for end in ("gateway", "client"):
            if not (folder / f"{end}.pub").exists():
                sh(f"umask 077; wg genkey > {folder}/{end}.key; wg pubkey < {folder}/{end}.key > {folder}/{end}.pub")
        text = {name: (folder / name).read_text().strip() for name in ("gateway.key", "gateway.pub", "client.key", "client.pub")}
        (folder / "gateway.conf").write_text(
            f"[Interface]\nPrivateKey={text['gateway.key']}\nListenPort=51820\n"
            f"[Peer]\nPublicKey={text['client.pub']}\nAllowedIPs={TUN_CLI}/32\n")
        (folder / "client.conf").write_text(
            f"[Interface]\nPrivateKey={text['client.key']}\n"
            f"[Peer]\nPublicKey={text['gateway.pub']}\nEndpoint={GW_WAN}:51820\nAllowedIPs={TUN_GW}/32,{LAN_NET}\n")

    def configure(self, ns: str, process: subprocess.Popen, device: str, configuration: str, address: str) -> None:
        socket = SOCKETS / f"{device}.sock"
        wait_for(lambda: socket.exists() and process.poll() is None and self.lab.ip(ns, f"link show {device}"), 10, device, 0.002)
        wait_for(lambda: self.lab.run(ns, f"wg setconf {device} {self.folder}/{configuration}") == "", 5, "wg setconf", 0.002)
        self.lab.ip(ns, f"addr add {address}/24 dev {device}")
        self.lab.ip(ns, f"link set {device} mtu {MTU} up")

    def start_gateway(self) -> None:
        for device in (self.gateway_device, self.client_device):
            (SOCKETS / f"{device}.sock").unlink(missing_ok=True)
        process = self.spawn_gateway(self.binary, *self.args, self.gateway_device)
        self.configure(GW, process, self.gateway_device, "gateway.conf", TUN_GW)

    def start_client(self) -> None:
        process = self.spawn_client(self.binary, *self.args, self.client_device)
        self.configure(CLI, process, self.client_device, "client.conf", TUN_CLI)
        self.lab.ip(CLI, f"route replace {LAN_NET} dev {self.client_device}")

    def stop_client(self) -> None:
        super().stop_client()
        (SOCKETS / f"{self.client_device}.sock").unlink(missing_ok=True)
        self.lab.ip(CLI, f"link del {self.client_device}", check=False)

    def facts(self) -> dict:
        return dict(version=self.version(), cipher="ChaCha20-Poly1305", mtu=self.lab.tunnel_mtu())

    def version(self) -> str:
        return sh(f"{self.binary} --version 2>&1 | head -1").strip()


@register
class WireGuardGoDebian(WireGuard):
    name = "wireguard-go-debian"

    def version(self) -> str:
        return "Debian " + sh("dpkg-query -W -f '${Version}' wireguard-go")


@register
class BoringTun(WireGuard):
    name, binary, args = "boringtun", CARGO_BIN / "boringtun-cli", ("--foreground", "--disable-drop-privileges")


@register
class GotaTun(WireGuard):
    name, binary, args = "gotatun", CARGO_BIN / "gotatun", ("--foreground", "--disable-drop-privileges")
