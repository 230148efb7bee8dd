"""A Gateway's stream by gRPC's own implementation for Python: cut and resumed again and again, while revocations are made.

Arguments: the Controller's address, the Gateway's state folder, the folder with the bindings, the number of revocations to wait for.
Every list must follow what is known: none lost, none twice, none before another. Prints one line of JSON.
"""

import base64
import json
import queue
import random
import sys
import time

address, folder, bindings, expected = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
sys.path.insert(0, bindings)

import grpc  # noqa: E402
from ringfort.v1 import gateway_pb2 as messages  # noqa: E402
from ringfort.v1 import gateway_pb2_grpc as service  # noqa: E402

# Nothing here takes longer on a busy machine.
PATIENCE = 120
PEM_END = "-----END CERTIFICATE-----"


def read(name):
    with open(f"{folder}/{name}", "rb") as file:
        return file.read()


def payload(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def root(certificates):
    """The root stands first; an intermediate is no anchor."""
    return (certificates.decode().split(PEM_END)[0] + PEM_END + "\n").encode()


credentials = grpc.ssl_channel_credentials(
    root_certificates=root(read("ca.pem")), private_key=read("key.pem"), certificate_chain=read("chain.pem")
)
randomness = random.Random(7)
epoch = known = streams = lists = 0
began = time.monotonic()
while known < expected:
    assert time.monotonic() - began < PATIENCE, f"{known} of {expected} after {PATIENCE} s"
    # Cut after a few pushes, or a moment later, in the middle of whatever comes.
    cut_after = randomness.randint(1, 400)
    say = queue.SimpleQueue()
    hello = messages.Hello(revocations=messages.Serial(epoch=epoch, n=known))
    say.put(messages.SubscribeRequest(hello=hello))
    channel = grpc.secure_channel(address, credentials)
    stream = service.GatewayControlStub(channel).Subscribe(iter(say.get, None), timeout=PATIENCE)
    streams += 1
    caught_up = False
    for taken, push in enumerate(stream):
        what = push.WhichOneof("what")
        if what == "caught_up":
            caught_up = True
        if what == "revocations":
            said = payload(push.revocations)
            if said["epoch"] != epoch:
                assert epoch == 0 and said["after"] == 0, f"another epoch: {said['epoch']}/{said['after']}"
                epoch = said["epoch"]
            assert said["after"] == known, f"expected revocations after {known}, found some after {said['after']}"
            known += len(said["entries"])
            lists += 1
            applied = messages.Applied(revocations=messages.Serial(epoch=epoch, n=known))
            say.put(messages.SubscribeRequest(applied=applied))
        if known >= expected or (caught_up and taken >= cut_after):
            break
    stream.cancel()
    say.put(None)
    channel.close()
    time.sleep(randomness.random() / 20)
print(json.dumps({"known": known, "streams": streams, "lists": lists}))
