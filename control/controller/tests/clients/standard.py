"""The standard services of the gRPC endpoint by gRPC's own implementations for Python, asked by somebody without a certificate.

Arguments: the Controller's address, its root certificate. Says what it sees on standard output, a line each, and goes on when the
other side has done what it says on standard input.
"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2 as health
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, root, watches_max = sys.argv[1], sys.argv[2], int(sys.argv[3])
# Nothing here takes longer on a busy machine.
PATIENCE = 60
CONTROL = "ringfort.v1.GatewayControl"
V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
SERVING = health.HealthCheckResponse.SERVING
NOT_SERVING = health.HealthCheckResponse.NOT_SERVING


def say(text):
    print(text, flush=True)
    answer = sys.stdin.readline().strip()
    assert answer == text, f"expected {text!r}, found {answer!r}"


def refused(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"expected {code}, found {error}"
        return error
    raise AssertionError(f"expected {code}, and it was answered")


with open(root, "rb") as file:
    credentials = grpc.ssl_channel_credentials(root_certificates=file.read())
channel = grpc.secure_channel(address, credentials)
stub = health_pb2_grpc.HealthStub(channel)


def check(service=""):
    return stub.Check(health.HealthCheckRequest(service=service), timeout=PATIENCE).status


def watch(service=""):
    return stub.Watch(health.HealthCheckRequest(service=service), timeout=PATIENCE)


# Health.
assert check() == check(CONTROL) == SERVING
refused(grpc.StatusCode.NOT_FOUND, lambda: check("ringfort.v1.Nothing"))
unknown = watch("ringfort.v1.Nothing")
assert next(unknown).status == health.HealthCheckResponse.SERVICE_UNKNOWN
unknown.cancel()
long = "x" * 65_536
refused(grpc.StatusCode.OUT_OF_RANGE, lambda: check(long))
watched = watch(CONTROL)
assert next(watched).status == SERVING
say("serving")
assert next(watched).status == NOT_SERVING
assert check() == NOT_SERVING
say("not serving")
assert next(watched).status == SERVING
watched.cancel()

# Reflection, by its version 1.
from grpc_reflection.v1alpha import reflection_pb2 as reflection  # noqa: E402

ask = channel.stream_stream(
    V1,
    request_serializer=reflection.ServerReflectionRequest.SerializeToString,
    response_deserializer=reflection.ServerReflectionResponse.FromString,
)


def reflected(**question):
    request = reflection.ServerReflectionRequest(**question)
    return next(ask(iter([request]), timeout=PATIENCE))


services = {one.name for one in reflected(list_services="").list_services_response.service}
expected = {CONTROL, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"}
assert services == expected, services


class Database(ProtoReflectionDescriptorDatabase):
    """gRPC's own, asking version 1, whose messages are those of its predecessor."""

    def __init__(self):
        super().__init__(channel)
        self._stub.ServerReflectionInfo = lambda requests: ask(requests, timeout=PATIENCE)


methods = DescriptorPool(Database()).FindServiceByName(CONTROL).methods_by_name
assert set(methods) == {"Enroll", "Subscribe", "Report"}, set(methods)
assert methods["Subscribe"].input_type.full_name == "ringfort.v1.SubscribeRequest"
refused(grpc.StatusCode.NOT_FOUND, lambda: reflected(file_containing_symbol="ringfort.v1.Nothing"))

# Who sees a service in the list may not use it.
report = channel.unary_unary(f"/{CONTROL}/Report", request_serializer=bytes, response_deserializer=bytes)
refused(grpc.StatusCode.UNAUTHENTICATED, lambda: report(b"", timeout=PATIENCE))

# Watches of one address.
open_watches = [watch() for _ in range(watches_max)]
assert all(next(one).status == SERVING for one in open_watches)
error = refused(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: next(watch()))
assert ("ringfort-code", "requests_limited") in error.initial_metadata() + error.trailing_metadata()
refused(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: reflected(list_services=""))
last = open_watches.pop()
for one in open_watches:
    one.cancel()

# The Controller ends, and says so before.
say("watching")
assert next(last).status == NOT_SERVING
assert next(last, None) is None, "the watch ends with the Controller"
