"""What schemathesis does not know by itself: how a request is authenticated, and what no schema can say. Settings come from
conform.py, by the environment."""

import json
import os
from collections import Counter

import schemathesis
from party import Party
from schemathesis import GenerationMode

WHO = json.loads(os.environ["RINGFORT_WHO"])
PARTY = Party(**WHO["party"])
# Members whose values must be of a kind, or name something that is there, for a request to succeed.
GOOD = {
    "password": "a long enough password",
    "email": None,
    "role": None,
    "pools": ["10.98.0.1/16"],
    "site": "berlin",
    "to": ["10.98.0.10", "10.98.1.0/24"],
    "services": ["tcp/80", "udp/5000-5100"],
    "resource": "wiki",
    "principal": {"user": "bob"},
}
# Answers by operation and status.
ANSWERS = Counter()


@schemathesis.auth(refresh_interval=None)
class Credentials:
    def get(self, case, context):
        needs = case.operation.definition.raw.get("security", [])
        return {scheme for alternative in needs for scheme in alternative}

    def set(self, case, data, context):
        case.headers = case.headers or {}
        token = PARTY.claims if "claims" in data else None
        if token:
            case.headers["Authorization"] = f"Bearer {token}"
        if WHO["proves"] and "proof" in data:
            case.headers["DPoP"] = PARTY.proof(case.method, case.formatted_path, token)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Where a request is to be a good one, it is of our own key and name."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if isinstance(case.body, dict) and "/admin/" in case.operation.path:
        # A user has a password or an address at a provider, though each may be left out.
        is_user = case.operation.path.endswith("/admin/users")
        asked = set(case.body) | ({"password"} if is_user else set())
        case.body.update({name: value for name, value in GOOD.items() if name in asked})
        # Names come back from lists, and whoever asks here goes on asking.
        if case.body.get("name") == PARTY.user:
            case.body["name"] = "somebody-else"
    if isinstance(case.body, dict) and "certificate_request" in case.body:
        case.body = PARTY.signing_request()
    if case.path_parameters and "hostname" in case.path_parameters:
        case.path_parameters["hostname"] = PARTY.user


@schemathesis.hook
def after_call(context, case, response):
    ANSWERS[f"{case.method} {case.operation.path} {response.status_code}"] += 1
    with open(WHO["answers"], "w") as file:
        json.dump(ANSWERS, file)
    # Who revokes everybody logs in again.
    if response.status_code == 401 and WHO["returns"] and b"token_revoked" in response.content:
        PARTY.login()
