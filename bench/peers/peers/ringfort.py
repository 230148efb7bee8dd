"""Ringfort in its development mode: users, certificates and rules from files, DTLS 1.3.

The binary is $RINGFORT, or the release build of this repository (`cargo build --release`).
"""
import os
import shutil
from pathlib import Path

from lab import GW, GW_WAN, LAN_NET, sh, wait_for
from peers import Peer, register

USER = "alice"
PORT = 4433


def binary() -> Path:
    root = Path(__file__).resolve().parents[3]
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return Path(os.environ.get("RINGFORT", target / "release" / "ringfort"))


def write_configuration(folder: Path) -> None:
    """Makes gateway.toml and alice.toml with their certificates: alice may reach everything behind the gateway."""
    shutil.rmtree(folder, ignore_errors=True)
    sh(f"{binary()} static-init {folder} --user {USER} --gateway-address {GW_WAN}:{PORT} --allow {LAN_NET} --inner 10.97.0.1/16")


class Ringfort(Peer):
    backend_args: tuple[str, ...] = ()

    def available(self) -> bool:
        return binary().exists()

    def prepare(self) -> None:
        self.configuration = self.folder / "configuration"
        write_configuration(self.configuration)

    def start_gateway(self) -> None:
        self.spawn_gateway(binary(), "gateway", "--static", self.configuration / "gateway.toml", *self.backend_args)
        wait_for(lambda: f":{PORT}" in self.lab.run(GW, "ss -Hlun"), 10, "ringfort gateway")

    def start_client(self) -> None:
        self.spawn_client(binary(), "up", "--static", self.configuration / f"{USER}.toml", *self.backend_args)

    def facts(self) -> dict:
        return dict(version=sh(f"{binary()} --version").strip(), cipher="DTLS 1.3", mtu=self.lab.tunnel_mtu())


@register
class RingfortDefault(Ringfort):
    name = "ringfort"
