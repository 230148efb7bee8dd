use ringfort_enrol::wall_clock;

use super::*;
use crate::testing::{DN, Organisation, before};

/// A folder with everything in it.
fn stored(organisation: &Organisation) -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::create(&place.path().join("state")).unwrap();
    tokens(organisation).store(&folder.lock().unwrap()).unwrap();
    (place, folder)
}

fn tokens(organisation: &Organisation) -> Tokens {
    let (judge, now) = (organisation.judge(), wall_clock());
    let claims = judge.claims(&organisation.sign(&organisation.claims()), now).unwrap();
    let connect = judge.connect(&organisation.sign(&organisation.connect(&["s1", "s2"])), &claims.token, now).unwrap();
    let texts = ["s2", "s1"].map(|site| organisation.sign(&organisation.entitlement(site, 3)));
    let entitlements = judge.entitlements(&texts, &claims.token, &connect.token, now).unwrap();
    Tokens { claims, connect: Some(connect), entitlements }
}

fn load(organisation: &Organisation, folder: &Folder) -> Result<Tokens, TokensError> {
    Tokens::load(folder, &organisation.judge(), wall_clock())
}

// Covers: C2 allow
// Covers: A7 allow
#[test]
fn what_was_stored_is_believed_again() {
    let organisation = Organisation::new();
    let (_place, folder) = stored(&organisation);
    let loaded = load(&organisation, &folder).unwrap();
    assert_eq!(loaded.claims.token.sub, DN);
    let seqs: Vec<_> = loaded.entitlements.iter().map(|(site, held)| (site.as_str(), held.token.seq)).collect();
    assert_eq!(seqs, [("s1", 3), ("s2", 3)]);
    use std::os::unix::fs::PermissionsExt;
    for name in [file::CLAIMS, file::CONNECT, &file::entitlement("s1")] {
        let mode = std::fs::metadata(folder.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // The claims token is the last of them.
    let written = |name: &str| std::fs::metadata(folder.file(name)).unwrap().modified().unwrap();
    assert!(written(file::CLAIMS) >= written(file::CONNECT));
    // A site that is no more leaves nothing behind.
    let mut fewer = loaded.clone();
    fewer.entitlements.remove("s1");
    fewer.store(&folder.lock().unwrap()).unwrap();
    assert!(!folder.has(&file::entitlement("s1")) && folder.has(&file::entitlement("s2")));
}

// Covers: C2 refuse
#[test]
fn a_file_that_was_changed_or_is_anothers_is_refused() {
    let organisation = Organisation::new();
    let elsewhere = Organisation::new();
    let mut foreign_key = organisation.entitlement("s1", 9);
    foreign_key.cnf.jkt = Organisation::other_key();
    let mut foreign_session = organisation.entitlement("s1", 9);
    foreign_session.sub = "UID=c2,CN=u1,O=example".into();
    let mut foreign_claims = organisation.claims();
    foreign_claims.sub = "UID=c2,CN=u1,O=example".into();
    let entitlement = file::entitlement("s1");
    let cases = [
        (file::CLAIMS, elsewhere.sign(&elsewhere.claims()), "unknown key id"),
        (file::CLAIMS, organisation.sign(&organisation.connect(&[])), "type rf-claims+jwt"),
        (file::CLAIMS, organisation.sign(&foreign_claims), "expected a claims token of session"),
        (&entitlement, organisation.sign(&organisation.entitlement("s2", 9)), "site:s1"),
        (&entitlement, organisation.sign(&foreign_key), "another key"),
        (&entitlement, organisation.sign(&foreign_session), "expected an entitlement token of session"),
        (file::CONNECT, organisation.sign(&organisation.connect(&["../x"])), "ids of letters"),
        (file::CONNECT, "x".repeat(300 << 10), "at most"),
        (file::CONNECT, "nothing".into(), "connect token"),
    ];
    for (name, text, why) in cases {
        let (_place, folder) = stored(&organisation);
        folder.write(name, text.as_bytes(), ringfort_enrol::Secrecy::Secret).unwrap();
        let error = load(&organisation, &folder).unwrap_err().to_string();
        assert!(error.contains(why), "{name}: expected {why}, found {error}");
    }
    // One bit of the signed part.
    let (_place, folder) = stored(&organisation);
    let mut bytes = folder.read(&entitlement).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    folder.write(&entitlement, &bytes, ringfort_enrol::Secrecy::Secret).unwrap();
    assert!(load(&organisation, &folder).unwrap_err().to_string().contains("signature"));
}

#[test]
fn what_has_expired_is_fetched_anew_and_a_login_that_ended_says_so() {
    let organisation = Organisation::new();
    let (_place, folder) = stored(&organisation);
    let mut connect = organisation.connect(&["s1"]);
    connect.iat = before(connect.iat, 700);
    (connect.nbf, connect.exp) = (connect.iat, before(connect.exp, 700));
    folder.write(file::CONNECT, organisation.sign(&connect).as_bytes(), ringfort_enrol::Secrecy::Secret).unwrap();
    let loaded = load(&organisation, &folder).unwrap();
    assert!(loaded.connect.is_none() && loaded.entitlements.is_empty());
    let mut claims = organisation.claims();
    claims.iat = before(claims.iat, 13 * 3_600);
    (claims.nbf, claims.exp) = (claims.iat, before(claims.exp, 13 * 3_600));
    folder.write(file::CLAIMS, organisation.sign(&claims).as_bytes(), ringfort_enrol::Secrecy::Secret).unwrap();
    assert!(matches!(load(&organisation, &folder), Err(TokensError::LoginEnded)));
    folder.remove(file::CLAIMS).unwrap();
    assert!(matches!(load(&organisation, &folder), Err(TokensError::NotLoggedIn)));
}

// Covers: A7 refuse
#[test]
fn there_is_one_entitlement_token_per_site_of_the_connect_token() {
    let organisation = Organisation::new();
    let (judge, now) = (organisation.judge(), wall_clock());
    let claims = judge.claims(&organisation.sign(&organisation.claims()), now).unwrap().token;
    let connect = judge.connect(&organisation.sign(&organisation.connect(&["s1"])), &claims, now).unwrap().token;
    for sites in [&["s1", "s1"][..], &["s3"], &["s1", "s3"]] {
        let texts: Vec<_> = sites.iter().map(|site| organisation.sign(&organisation.entitlement(site, 1))).collect();
        assert!(matches!(judge.entitlements(&texts, &claims, &connect, now), Err(TokensError::Site)), "{sites:?}");
    }
}

#[test]
fn a_pushed_token_must_be_newer() {
    let organisation = Organisation::new();
    let (mut tokens, judge, now) = (tokens(&organisation), organisation.judge(), wall_clock());
    let mut push = |site: &str, seq| {
        let text = organisation.sign(&organisation.entitlement(site, seq));
        tokens.take_pushed(&judge, "s1", &text, now).map_err(|error| error.to_string())
    };
    assert!(push("s1", 3).unwrap_err().contains("4 or higher"));
    assert!(push("s2", 4).unwrap_err().contains("site:s1"));
    push("s1", 4).unwrap();
    assert!(push("s1", 4).unwrap_err().contains("5 or higher"));
    // A renewal that was under way meanwhile does not bring the older one back.
    let known = std::mem::take(&mut tokens.entitlements);
    tokens.entitlements = self::tokens(&organisation).entitlements;
    tokens.keep_newer(known);
    assert_eq!(tokens.entitlements["s1"].token.seq, 4);
}

// Covers: A24 allow
#[test]
fn a_login_beside_is_taken_up_and_what_is_of_no_use_is_not() {
    let organisation = Organisation::new();
    let (_place, folder) = stored(&organisation);
    let (holder, now) = (organisation.judge().holder(), wall_clock());
    folder.write_identity(&Organisation::identity()).unwrap();
    folder.write_certificates(ringfort_enrol::file::CA, std::slice::from_ref(&organisation.root)).unwrap();
    folder.write_certificates(ringfort_enrol::file::SIGNERS, std::slice::from_ref(&organisation.signer)).unwrap();
    let chain = organisation.certificate("c1", "u1", true);
    folder.write_certificates(ringfort_enrol::file::CHAIN, &chain).unwrap();
    let folder = folder.lock().unwrap();
    let ours = load(&organisation, &folder).unwrap();
    assert!(ours.beside(&folder, holder, now).is_none(), "nobody has logged in");

    let mut again = tokens(&organisation);
    let mut claims = organisation.claims();
    (claims.jti, claims.exp) = ("again".into(), claims.exp + std::time::Duration::from_secs(60));
    again.claims = organisation.judge().claims(&organisation.sign(&claims), now).unwrap();
    again.store(&folder).unwrap();
    let beside = ours.beside(&folder, holder, now).expect("somebody has");
    assert_eq!((beside.tokens.claims.token.exp, beside.identity.id.as_str()), (claims.exp, "c1"));
    assert_eq!(beside.tokens.entitlements.len(), 2);
    assert!(beside.tokens.beside(&folder, holder, now).is_none(), "it was taken up");

    // A certificate of another user, a claims token that has expired, one of nobody: ours may be stored over them.
    let other = organisation.certificate("c1", "u2", true);
    folder.write_certificates(ringfort_enrol::file::CHAIN, &other).unwrap();
    assert!(ours.beside(&folder, holder, now).is_none());
    folder.write_certificates(ringfort_enrol::file::CHAIN, &chain).unwrap();
    assert!(ours.beside(&folder, holder, now).is_some());
    assert!(ours.beside(&folder, holder, now + std::time::Duration::from_secs(13 * 3_600)).is_none());
    assert!(ours.beside(&folder, Organisation::other_key(), now).is_none());
    folder.write(file::CLAIMS, b"nothing", ringfort_enrol::Secrecy::Secret).unwrap();
    assert!(ours.beside(&folder, holder, now).is_none());
    folder.remove(file::CLAIMS).unwrap();
    assert!(ours.beside(&folder, holder, now).is_none());
}

// Covers: A9 refuse
#[test]
fn a_certificate_is_for_our_key_and_the_session_of_the_claims() {
    let organisation = Organisation::new();
    let (judge, now, claims) = (organisation.judge(), wall_clock(), organisation.claims());
    judge.certificate(&organisation.certificate("c1", "u1", true), &claims, now).unwrap();
    let elsewhere = Organisation::new();
    for (chain, why) in [
        (organisation.certificate("c1", "u2", true), "UID=c1,CN=u2"),
        (organisation.certificate("c2", "u1", true), "UID=c2,CN=u1"),
        (organisation.certificate("c1", "u1", false), "does not belong"),
        (elsewhere.certificate("c1", "u1", true), "certificate refused"),
        (vec![organisation.signer.clone()], "certificate refused"),
        (Vec::new(), "found none"),
    ] {
        let error = judge.certificate(&chain, &claims, now).unwrap_err().to_string();
        assert!(error.contains(why), "expected {why}, found {error}");
    }
}

#[test]
fn signers_stand_under_the_ca() {
    let (organisation, elsewhere) = (Organisation::new(), Organisation::new());
    let holder = organisation.key.thumbprint().unwrap();
    let judge = Judge::new(
        &Organisation::identity(),
        holder,
        organisation.trust.clone(),
        std::slice::from_ref(&elsewhere.signer),
        wall_clock(),
    );
    assert!(matches!(judge, Err(TokensError::Signer(_))));
}
