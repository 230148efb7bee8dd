//! Against a scripted directory on loopback, which says what no real one would.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::message::START_TLS;
use super::message::tests::{bound, done, entry, extended, reference};
use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const ALICE: &str = "uid=alice,dc=example";

fn settings(place: &Path, url: &str) -> LdapSettings {
    let secret = place.join("password");
    std::fs::write(&secret, "hush").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    LdapSettings {
        name: "corp".into(),
        url: url.into(),
        bind_dn: "cn=service".into(),
        bind_password_file: secret,
        user_base: "dc=example".into(),
        user_filter: "(uid={})".into(),
        email_attribute: "mail".into(),
        group_base: None,
        group_filter: "(member={})".into(),
        ca_file: None,
        email_domains: None,
        administrators: false,
        second_factor: false,
    }
}

fn alice(id: u32) -> Vec<u8> {
    entry(id, ALICE, &[("mail", vec![b"Alice@example.org"]), ("memberOf", vec![b"cn=staff,dc=example"])])
}

/// The answers to the service's bind, the search and the user's bind.
fn answers(second: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    vec![bound(1, 0), second.concat(), bound(3, 0)]
}

/// Answers the first request with the first of `answers`, and so on: what was asked.
async fn play(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut asked = Vec::new();
    for answer in answers {
        let mut request = vec![0; 4_096];
        match stream.read(&mut request).await {
            Ok(count @ 1..) => request.truncate(count),
            _ => return asked,
        }
        asked.push(request);
        // It may have gone, for what came before.
        if stream.write_all(&answer).await.is_err() {
            return asked;
        }
    }
    // Until it goes: what it does not wait for is not lost.
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
    asked.push(rest);
    asked
}

/// A directory that gives these answers, and how to reach it.
async fn scripted(answers: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (format!("127.0.0.1:{port}"), tokio::spawn(async move { play(listener.accept().await.unwrap().0, answers).await }))
}

async fn checked(answers: Vec<Vec<u8>>) -> Result<Person, Failed> {
    let place = tempfile::tempdir().unwrap();
    let (address, _directory) = scripted(answers).await;
    let directory = Directory::new(&settings(place.path(), &format!("ldap://{address}"))).unwrap();
    directory.check("alice", "password", NOW).await
}

// Covers: A3 allow
#[tokio::test]
async fn a_user_is_searched_and_bound() {
    let place = tempfile::tempdir().unwrap();
    // In one piece with what belongs to it, and with references, which are not followed.
    let (address, directory) = scripted(answers(vec![reference(2), alice(2), reference(2), done(2, 0)])).await;
    let person = Directory::new(&settings(place.path(), &format!("ldap://{address}")));
    let person = person.unwrap().check("alice", "password", NOW).await.unwrap();
    assert_eq!(person.subject, ALICE);
    assert_eq!(person.email.unwrap().as_str(), "alice@example.org");
    assert_eq!((person.groups, person.authenticated_at), (vec!["staff".to_owned()], NOW));
    let asked = directory.await.unwrap();
    let has = |message: &[u8], piece: &[u8]| message.windows(piece.len()).any(|window| window == piece);
    assert!(has(&asked[0], b"cn=service") && has(&asked[0], b"hush"));
    assert!(has(&asked[1], b"\x04\x03uid\x04\x05alice"));
    assert!(has(&asked[2], ALICE.as_bytes()) && has(&asked[2], b"password"));
    assert_eq!(asked[3], b"\x30\x05\x02\x01\x04\x42\x00", "it says good-bye");
}

// Covers: A3 refuse
#[tokio::test]
async fn nobody_is_in_whom_the_directory_does_not_name_alone() {
    let anonymous = entry(2, "", &[("mail", vec![b"alice@example.org"])]);
    for found in [
        vec![done(2, 0)],
        vec![alice(2), alice(2), done(2, 0)],
        vec![alice(2), done(2, 4)],
        vec![anonymous, done(2, 0)],
    ] {
        assert_eq!(checked(answers(found)).await.unwrap_err(), refused());
    }
    let wrong = vec![bound(1, 0), [alice(2), done(2, 0)].concat(), bound(3, 49)];
    assert_eq!(checked(wrong).await.unwrap_err(), refused());
    for (code, is_refusal) in [(53, true), (51, false), (52, false)] {
        let failed = checked(vec![bound(1, 0), [alice(2), done(2, 0)].concat(), bound(3, code)]).await.unwrap_err();
        assert_eq!(matches!(failed, Failed::Refused(_)), is_refusal, "{failed}");
    }
    let failed = checked(vec![bound(1, 49)]).await.unwrap_err().to_string();
    assert!(failed.contains("bind_dn") && failed.contains("result 49, said so"), "{failed}");
}

// Covers: A3 refuse
#[tokio::test]
async fn malformed_answers_end_the_login_and_nothing_else() {
    let notice = "1.3.6.1.4.1.1466.20036";
    let long = b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01";
    for (what, answers, why) in [
        ("no LDAP", vec![b"HTTP/1.1 400\r\n".to_vec()], "tag 0x30"),
        ("an endless message", vec![long.to_vec()], "at most"),
        ("an indefinite length", vec![b"\x30\x80\x02\x01\x01\x00\x00".to_vec()], "definite"),
        ("an empty message", vec![b"\x30\x00".to_vec()], "an element"),
        ("an empty response", vec![b"\x30\x05\x02\x01\x01\x61\x00".to_vec()], "an element"),
        ("an empty number", vec![b"\x30\x09\x02\x00\x61\x07\x0a\x01\x00\x04\x00".to_vec()], "number"),
        ("another request's", vec![bound(2, 0)], "request 1"),
        ("that of before", vec![bound(1, 0), [alice(1), done(2, 0)].concat()], "request 2"),
        ("nobody's", vec![bound(0, 0)], "request 1"),
        ("another response", vec![done(1, 0)], "to a bind"),
        ("a search's bind", vec![bound(1, 0), bound(2, 0)], "to a search"),
        ("three entries", answers(vec![alice(2), alice(2), alice(2), done(2, 0)]), "at most 2 entries"),
        ("a name to move the cursor", answers(vec![entry(2, "uid=\x1b[2J", &[]), done(2, 0)]), "control characters"),
        ("a refused search", answers(vec![done(2, 50)]), "result 50"),
    ] {
        let failed = checked(answers).await.unwrap_err();
        let text = failed.to_string();
        assert!(matches!(failed, Failed::Answer(_)) && text.contains(why), "{what}: {text}");
    }
    for (what, answers, why) in [
        ("a notice of disconnection", vec![extended(0, 52, Some(notice))], "notice: result 52"),
        ("a notice within a search", answers(vec![alice(2), extended(0, 2, Some(notice))]), "notice: result 2"),
        ("its end", vec![bound(1, 0)[..5].to_vec()], "end of the connection"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ldap://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            for answer in answers {
                let _ = stream.read(&mut [0; 4_096]).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        let failed = Directory::new(&settings(place.path(), &url)).unwrap().check("alice", "password", NOW).await;
        let failed = failed.unwrap_err();
        assert!(matches!(failed, Failed::Unreachable(_)) && failed.to_string().contains(why), "{what}: {failed}");
    }
}

#[tokio::test]
async fn what_a_directory_may_say_is_bounded() {
    let references = reference(2).repeat((1 << 20) / reference(2).len() + 1);
    let failed = checked(answers(vec![references])).await.unwrap_err().to_string();
    assert!(failed.contains("at most 1048576 bytes"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_directory_is_waited_for_for_ten_seconds() {
    let place = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ldap://{}", listener.local_addr().unwrap());
    let failed = Directory::new(&settings(place.path(), &url)).unwrap().check("alice", "password", NOW).await;
    assert!(failed.unwrap_err().to_string().contains("no answer in 10 s"));
}

/// A directory by the name of localhost that says `first` to StartTLS and goes on with TLS, under a CA of its own.
async fn by_start_tls(place: &Path, first: Vec<u8>, answers: Vec<Vec<u8>>) -> (LdapSettings, JoinHandle<Vec<Vec<u8>>>) {
    let key = KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let ca_file = place.join("ca.pem");
    std::fs::write(&ca_file, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ldap://localhost:{}", listener.local_addr().unwrap().port());
    let playing = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4_096];
        let count = stream.read(&mut request).await.unwrap();
        request.truncate(count);
        stream.write_all(&first).await.unwrap();
        let mut asked = vec![request];
        if let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            asked.extend(play(stream, answers).await);
        }
        asked
    });
    (LdapSettings { ca_file: Some(ca_file), ..settings(place, &url) }, playing)
}

// Covers: A3 allow
#[tokio::test]
async fn no_password_goes_before_tls() {
    let place = tempfile::tempdir().unwrap();
    let then = answers(vec![alice(2), done(2, 0)]);
    let then = vec![bound(1, 0), then[1].clone(), bound(3, 0)];
    let (settings, directory) = by_start_tls(place.path(), extended(1, 0, Some(START_TLS)), then).await;
    Directory::new(&settings).unwrap().check("alice", "password", NOW).await.unwrap();
    let asked = directory.await.unwrap();
    assert_eq!(asked[0], b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037");
    assert!(asked[1].windows(4).any(|window| window == b"hush"), "after TLS");
}

// Covers: A3 refuse
#[tokio::test]
async fn nothing_from_before_tls_is_kept() {
    let place = tempfile::tempdir().unwrap();
    let yes = extended(1, 0, Some(START_TLS));
    for (what, first, why) in [
        ("the service's bind, in the clear", [yes.clone(), bound(1, 0)].concat(), "in the clear"),
        ("one byte", [yes.clone(), vec![0x30]].concat(), "in the clear"),
        ("a refusal", extended(1, 52, None), "StartTLS to succeed: result 52"),
        ("another operation's", extended(1, 0, Some("1.3.6.1.4.1.4203.1.11.3")), "to a StartTLS"),
        ("another request's", extended(2, 0, None), "request 1"),
        ("a bind's", bound(1, 0), "to a StartTLS"),
        ("malformed", b"\x30\x05\x02\x01\x01\x78\x00".to_vec(), "an element"),
    ] {
        let (settings, directory) = by_start_tls(place.path(), first, vec![]).await;
        let failed = Directory::new(&settings).unwrap().check("alice", "password", NOW).await.unwrap_err();
        let text = failed.to_string();
        assert!(matches!(failed, Failed::Answer(_)) && text.contains(why), "{what}: {text}");
        assert_eq!(directory.await.unwrap().len(), 1, "{what}: it was asked for nothing more");
    }
}

#[test]
fn a_password_goes_in_the_clear_on_this_machine_only() {
    let place = tempfile::tempdir().unwrap();
    let made = |url: &str| {
        Directory::new(&settings(place.path(), url)).map(|made| (made.security, made.host.clone(), made.port))
    };
    for (url, security, host, port) in [
        ("ldap://127.0.0.1", Security::Loopback, "127.0.0.1", 389),
        ("ldap://[::1]:1389", Security::Loopback, "::1", 1_389),
        ("ldap://ldap.example", Security::StartTls, "ldap.example", 389),
        ("ldap://localhost", Security::StartTls, "localhost", 389),
        ("ldap://10.0.0.1:389", Security::StartTls, "10.0.0.1", 389),
        ("ldaps://ldap.example", Security::Tls, "ldap.example", 636),
        ("ldaps://[2001:db8::1]", Security::Tls, "2001:db8::1", 636),
    ] {
        assert_eq!(made(url).unwrap(), (security, host.to_owned(), port), "{url}");
    }
    for bad in [
        "ldapi:///run/slapd",
        "http://a",
        "ldap://",
        "ldap://a/b",
        "ldap://u@a",
        "a",
        "ldap://a:0",
        "ldap://a:+1",
        "ldap://a:",
        "ldap://[::1",
        "ldap://[::1]389",
        "ldap://::1",
    ] {
        assert!(made(bad).unwrap_err().to_string().contains("ldaps://HOST"), "{bad}");
    }
}

#[test]
fn a_filter_has_a_place_for_the_name() {
    let place = tempfile::tempdir().unwrap();
    for bad in ["(uid=alice)", "(uid={}", "uid={}"] {
        let settings = LdapSettings { user_filter: bad.into(), ..settings(place.path(), "ldaps://a") };
        assert!(Directory::new(&settings).unwrap_err().to_string().contains("user_filter: expected a filter"), "{bad}");
    }
}

// Covers: A3 refuse
#[tokio::test]
async fn an_empty_password_is_refused_without_asking_anybody() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::new(&settings(place.path(), "ldap://127.0.0.1:1")).unwrap();
    let long = "x".repeat(1_025);
    for (user, password) in [("alice", ""), ("", "password"), ("alice", &long), (&long, "password")] {
        assert_eq!(directory.check(user, password, NOW).await.unwrap_err(), refused());
    }
    // Nobody is there to be asked.
    assert!(matches!(directory.check("alice", "password", NOW).await, Err(Failed::Unreachable(_))));
}

#[test]
fn groups_are_known_by_their_first_name() {
    assert_eq!(common_name("cn=staff,ou=groups,dc=example"), "staff");
}
