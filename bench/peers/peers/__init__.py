"""A peer is a gateway and its client that the bench can start and stop.

To add one, subclass Peer in a module of this folder (or of a folder given with --plugins) and decorate it with
@register. `start_gateway` sets `self.gateway` to the process that `lab.spawn` gave; the CPU of that process, its threads
and its children is what is measured. Soon after `start_client` the server (lab.SRV_LAN) must be reached through the tunnel
from lab.CLI, and lab.GW must know the way back to the client's tunnel address.
"""
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Iterable, Optional

from lab import CLI, GW, Lab

REGISTRY: dict[str, type["Peer"]] = {}


def register(cls: type["Peer"]) -> type["Peer"]:
    REGISTRY[cls.name] = cls
    return cls


class Peer:
    name = "?"
    tunnel = True  # False: plain forwarding
    wire: Optional[str] = None  # forces a wire of lab.WIRES, for baselines
    lan: Optional[str] = None
    tcp_only = False
    setup_timeout = 20.0

    def __init__(self, lab: Lab):
        self.lab = lab
        self.gateway: Optional[subprocess.Popen] = None
        self.client: Optional[subprocess.Popen] = None

    @property
    def folder(self) -> Path:
        """The peer's own folder for configuration and logs."""
        path = self.lab.work / self.name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def available(self) -> bool:
        """Whether its programs are installed."""
        return True

    def prepare(self) -> None:
        """Writes configuration and keys; called once, with the namespaces up."""

    def start_gateway(self) -> None:
        raise NotImplementedError

    def start_client(self) -> None:
        raise NotImplementedError

    def wait_ready(self) -> None:
        """Returns when the data channel that is to be measured is up; the first ping may have taken another."""

    def facts(self) -> dict:
        """cipher, mtu, version: read while the tunnel is up."""
        return {}

    def stop_client(self) -> None:
        self.lab.stop(self.client)
        self.client = None

    def stop(self) -> None:
        self.stop_client()
        self.lab.stop(self.gateway)
        self.gateway = None

    def spawn_gateway(self, *argv: object) -> subprocess.Popen:
        self.gateway = self._spawn(GW, "gateway.log", argv)
        return self.gateway

    def spawn_client(self, *argv: object) -> subprocess.Popen:
        self.client = self._spawn(CLI, "client.log", argv)
        return self.client

    def _spawn(self, ns: str, log: str, argv: Iterable[object]) -> subprocess.Popen:
        (self.folder / log).write_bytes(b"")
        return self.lab.spawn(ns, list(argv), f"{self.name}/{log}")

    def log_text(self, which: str) -> str:
        """What the gateway or the client has logged since its start."""
        return (self.folder / f"{which}.log").read_text(errors="replace")


def load(folders: Iterable[Path]) -> None:
    """Imports every plug-in of the folders; names that begin with _ are helpers."""
    for folder in folders:
        sys.path.insert(0, str(folder))
        for path in sorted(folder.glob("[!_]*.py")):
            spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
