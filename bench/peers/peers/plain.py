"""No tunnel: the kernel forwards. The limit of the machine."""
from lab import CLI, GW_WAN, LAN_NET
from peers import Peer, register


class Plain(Peer):
    tunnel = False

    def start_gateway(self) -> None:
        pass

    def start_client(self) -> None:
        self.lab.ip(CLI, f"route replace {LAN_NET} via {GW_WAN}")


@register
class PlainGso(Plain):
    name, wire, lan = "plain-gso", "gso", "gso"


@register
class PlainNic(Plain):
    name, wire, lan = "plain-nic", "nic", "gso"


@register
class PlainMtu(Plain):
    name, wire, lan = "plain-mtu", "mtu", "mtu"
