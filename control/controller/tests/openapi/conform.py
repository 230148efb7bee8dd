"""Runs schemathesis against a Controller, as everybody who may ask.

Arguments: this folder, the Controller's address, its root certificate, the login names of an owner and of a user, their password,
the name of a host and its state folder.
"""

import json
import os
import subprocess
import sys

import requests
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from party import BASE, PATIENCE, Party

scripts, address, root, owner, user, password, host, host_folder = sys.argv[1:]
# Examples of each operation, besides those that follow from the schema.
EXAMPLES = 12
SEED = 20_261
# Settings of the environment that would count for more than ours.
OTHERS = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}
# `use_after_free` and `ensure_resource_availability` need links between operations, which the document does not have.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
]


def party(name, folder=None):
    folder = folder or os.path.abspath(name)
    return {"address": address, "root": root, "folder": folder, "user": name, "password": password}


def gets(*paths):
    return [f"GET {BASE}/{path}" for path in paths]


def posts(*paths):
    return [f"POST {BASE}/{path}" for path in paths]


def run(title, paths, settings, succeeds, folder=None):
    """The operations whose paths match, as whoever `settings` names, with the certificate in `folder`."""
    print(f"== {title}", flush=True)
    # schemathesis is a module of the very interpreter that runs this.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"https://{address}{BASE}/openapi.json"]
    command += ["--include-path-regex", paths, "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"]
    command += ["--max-examples", str(EXAMPLES), "--seed", str(SEED), "--suppress-health-check", "all"]
    command += ["--tls-verify", root, "--request-timeout", str(PATIENCE), "--no-color", "--warnings", "off"]
    # Connections of one key are limited, and a new one may come before the old one has gone.
    command += ["--continue-on-failure", "--request-retries", "3"]
    if folder:
        command += ["--request-cert", f"{folder}/chain.pem", "--request-cert-key", f"{folder}/key.pem"]
    answers = os.path.abspath("answers.json")
    environment = {name: value for name, value in os.environ.items() if name not in OTHERS} | {
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": scripts,
        "RINGFORT_WHO": json.dumps({"proves": False, "returns": False, "answers": answers} | settings),
    }
    done = subprocess.run(command, env=environment).returncode == 0
    with open(answers) as file:
        counted = json.load(file)
    for answer, count in sorted(counted.items()):
        print(f"{count:6} {answer}")
    # A run in which everything is refused would show little; but whoever asks as fast as this is told to wait (X12).
    missing = [operation for operation in succeeds if not {f"{operation} 200", f"{operation} 429"} & counted.keys()]
    for operation in missing:
        print(f"expected {operation} to succeed now and then, and it never did")
    return done and not missing


document = requests.get(f"https://{address}{BASE}/openapi.json", verify=root, timeout=PATIENCE).json()
validate(document, cls=OpenAPIV31SpecValidator)
for name in (owner, user):
    somebody = Party(**party(name))
    somebody.login()
    somebody.certify()

tokens = f"^{BASE}/(entitlements|certificate|openapi.json)$"
of_user = f"^{BASE}/(entitlements|certificate|renew|totp|login/service)$"
of_host = "/hosts/.*(certificate|client)$"
lists = "users gateways controllers hosts sessions audit receipts".split()
changes = "users users/email services sites resources groups entitlements invitations revocations hosts".split()
results = [
    run(
        "a user, by proofs",
        tokens,
        {"party": party(user), "proves": True},
        posts("entitlements", "certificate") + gets("openapi.json"),
    ),
    run(
        "a user, by certificate",
        of_user,
        {"party": party(user)},
        posts("entitlements", "certificate", "renew", "totp"),
        os.path.abspath(user),
    ),
    run(
        "a host",
        of_host,
        {"party": party(host, host_folder)},
        ["POST /api/hosts/{hostname}/client"] + posts("hosts/certificate"),
        host_folder,
    ),
    run(
        "an owner",
        f"^{BASE}/admin/",
        {"party": party(owner), "returns": True},
        gets(*(f"admin/{one}" for one in lists)) + posts(*(f"admin/{one}" for one in changes)),
        os.path.abspath(owner),
    ),
    # Last, since failed logins of one address are limited.
    run("whoever logs in", f"^{BASE}/login(/oidc/.*)?$", {"party": party(user), "proves": True}, gets("login")),
]
sys.exit(0 if all(results) else 1)
