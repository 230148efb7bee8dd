"""Somebody who asks the Controller: a key, claims, and proofs and certificates by the key."""

import base64
import hashlib
import json
import os
import time
import uuid

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

BASE = "/api/v1"
# Nothing here takes longer on a busy machine.
PATIENCE = 30


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Party:
    """Kept in a folder, so that the process that makes it and the one that uses it need not be the same."""

    def __init__(self, address, root, folder, user, password):
        self.address, self.root, self.folder = address, root, folder
        self.user, self.password = user, password
        self.session = requests.Session()
        self.session.verify = root
        # Proxies and certificates of the environment are not for this.
        self.session.trust_env = False
        os.makedirs(folder, exist_ok=True)
        if not os.path.exists(self.file("key.pem")):
            key = ec.generate_private_key(ec.SECP256R1())
            form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            self.write("key.pem", key.private_bytes(*form))
        if not os.path.exists(self.file("client")):
            self.write("client", str(uuid.uuid4()).encode())
        self.key = serialization.load_pem_private_key(self.read("key.pem"), None)
        self.client = self.read("client").decode()
        self.claims = self.read("claims").decode() if os.path.exists(self.file("claims")) else ""

    def file(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.file(name), "rb") as file:
            return file.read()

    def write(self, name, content):
        with open(self.file(name), "wb") as file:
            file.write(content)

    def url(self, path):
        return f"https://{self.address}{path}"

    def nonce(self):
        answer = self.session.get(self.url(f"{BASE}/login"), timeout=PATIENCE)
        return answer.headers["dpop-nonce"]

    def proof(self, method, path, token=None):
        """RFC 9449, with the path alone as htu."""
        public = self.key.public_key().public_numbers()
        jwk = {"kty": "EC", "crv": "P-256"}
        jwk |= {"x": encoded(public.x.to_bytes(32, "big")), "y": encoded(public.y.to_bytes(32, "big"))}
        claims = {"jti": str(uuid.uuid4()), "htm": method, "htu": path, "iat": int(time.time()), "nonce": self.nonce()}
        if token:
            claims["ath"] = encoded(hashlib.sha256(token.encode()).digest())
        parts = [{"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}, claims]
        message = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        r, s = decode_dss_signature(self.key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{message}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def asked(self, path, body, token=None):
        headers = {"dpop": self.proof("POST", path, token)}
        if token:
            headers["authorization"] = f"Bearer {token}"
        answer = self.session.post(self.url(path), json=body, headers=headers, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def login(self):
        body = {"user": self.user, "password": self.password, "client_id": self.client}
        self.claims = self.asked(f"{BASE}/login", body)["claims"]
        self.write("claims", self.claims.encode())

    def signing_request(self):
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self.key, hashes.SHA256())
        return {"certificate_request": encoded(request.public_bytes(serialization.Encoding.DER))}

    def certify(self):
        """A certificate for the key, in chain.pem."""
        chain = self.asked(f"{BASE}/certificate", self.signing_request(), self.claims)["chain"]
        certificates = [x509.load_der_x509_certificate(decoded(text)) for text in chain]
        self.write("chain.pem", b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
