"""One throw-away ECDSA P-256 CA with a server's and a client's certificate, made once per work folder."""
from pathlib import Path

from lab import GW_WAN, sh

DAYS = 30


def pki(work: Path) -> Path:
    """The folder with ca.pem and {server,client}.{pem,key}."""
    folder = work / "pki"
    done = folder / "done"
    if done.exists():
        return folder
    folder.mkdir(exist_ok=True)
    work.chmod(0o755)  # some servers give up root before they read

    def key(name: str) -> None:
        sh(f"openssl ecparam -genkey -name prime256v1 -noout | openssl pkcs8 -topk8 -nocrypt -out {folder}/{name}.key")

    key("ca")
    sh(f"openssl req -x509 -new -key {folder}/ca.key -sha256 -days {DAYS} -subj /CN=bench-ca -out {folder}/ca.pem "
       "-addext keyUsage=critical,keyCertSign,cRLSign")
    for name, usage, common_name in (("server", "serverAuth", "gw.bench"), ("client", "clientAuth", "alice")):
        key(name)
        (folder / f"{name}.ext").write_text(
            f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\n"
            f"subjectAltName=DNS:{common_name},IP:{GW_WAN}\n")
        sh(f"openssl req -new -key {folder}/{name}.key -subj /CN={common_name}/UID={common_name} -out {folder}/{name}.csr")
        sh(f"openssl x509 -req -in {folder}/{name}.csr -CA {folder}/ca.pem -CAkey {folder}/ca.key -CAcreateserial -sha256 "
           f"-days {DAYS} -extfile {folder}/{name}.ext -out {folder}/{name}.pem")
    done.touch()
    return folder
