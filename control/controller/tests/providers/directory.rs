//! OpenLDAP as a process, with a CA of its own and three people.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

/// Password of the directory's own account, and of the service's.
pub(crate) const ROOT_PASSWORD: &str = "root of the directory";
/// Passwords of people are this with the name in front.
pub(crate) const PERSON_PASSWORD: &str = "'s password there";

const PEOPLE: &str = "
dn: dc=example
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,dc=example
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example
objectClass: organizationalUnit
ou: groups

dn: uid=alice,ou=people,dc=example
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
mail: Alice@example.org
userPassword: alice's password there

dn: uid=bob,ou=people,dc=example
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
mail: bob@example.org
userPassword: bob's password there

dn: uid=carol,ou=people,dc=example
objectClass: inetOrgPerson
uid: carol
cn: Carol
sn: C
userPassword: carol's password there

dn: cn=staff,ou=groups,dc=example
objectClass: groupOfNames
cn: staff
member: uid=alice,ou=people,dc=example
";

/// A CA, and a key and certificate under it for this machine.
pub(crate) struct Files {
    pub(crate) ca: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
}

impl Files {
    pub(crate) fn new(place: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let write = |name: &str, text: String| {
            let path = place.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            ca: write("ca.pem", ca.pem()),
            key: write("server.key", key.serialize_pem()),
            certificate: write("server.pem", certificate.pem()),
        }
    }
}

/// The directory. It ends when this is dropped.
pub(crate) struct Slapd {
    child: Option<Child>,
    pub(crate) place: TempDir,
    pub(crate) files: Files,
    /// Ports of ldap and ldaps.
    pub(crate) ports: (u16, u16),
}

impl Slapd {
    pub(crate) fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let files = Files::new(place.path());
        let folder = place.path().display();
        std::fs::create_dir(place.path().join("data")).unwrap();
        let configuration = format!(
            "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
TLSCACertificateFile {}
TLSCertificateFile {}
TLSCertificateKeyFile {}
database mdb
suffix dc=example
rootdn cn=root,dc=example
rootpw \"{ROOT_PASSWORD}\"
directory {folder}/data
overlay memberof
",
            files.ca.display(),
            files.certificate.display(),
            files.key.display()
        );
        std::fs::write(place.path().join("slapd.conf"), configuration).unwrap();
        let secret = place.path().join("bind-password");
        std::fs::write(&secret, ROOT_PASSWORD).unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut slapd = Self { child: None, place, files, ports: (free_port(), free_port()) };
        slapd.run();
        slapd.add(PEOPLE);
        slapd
    }

    fn run(&mut self) {
        let urls = format!("ldap://127.0.0.1:{} ldaps://127.0.0.1:{}", self.ports.0, self.ports.1);
        let mut command = Command::new("slapd");
        // It is not in everybody's path.
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        command.args(["-d", "0", "-h", &urls, "-f"]).arg(self.place.path().join("slapd.conf"));
        self.child = Some(command.stderr(Stdio::null()).spawn().expect("slapd starts"));
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.ports.0)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "slapd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Adds entries (LDIF).
    fn add(&self, entries: &str) {
        let mut command = Command::new("ldapadd");
        command.args(["-x", "-H", &format!("ldap://127.0.0.1:{}", self.ports.0), "-D", "cn=root,dc=example", "-w"]);
        let mut child =
            command.arg(ROOT_PASSWORD).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("ldapadd starts");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), entries.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "ldapadd");
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
