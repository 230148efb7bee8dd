//! First and later starts.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[tokio::test]
async fn a_restart_changes_nothing() {
    let world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    world.core.configuration(&joined.id, NOW).await.unwrap();
    world.grant("wiki", "alice", NOW).await;
    let (alice, bob) = (Client::new("laptop"), Client::new("phone"));
    let claims = async |user: &str, client: &Client| {
        let request = client.credentials(user, &format!("{user} password"));
        world.core.login(&request, client.thumbprint(), FROM, NOW).await.unwrap().claims
    };
    let of_alice = claims("alice", &alice).await;
    let of_bob = claims("bob", &bob).await;
    let bearer = world.core.bearer(&of_alice, &alice.thumbprint(), NOW).unwrap();
    let (before, _) = world.entitlements(&bearer, NOW).await;
    world.revoke(api::RevocationScope::User("bob".into()), None, NOW).await.unwrap();
    let unused = world.invite(api::Invitee::Device { user: "alice".into() }).await;
    let facts = |core: &Core| {
        let (chain, key) = core.server_credentials();
        (core.organisation().to_owned(), core.join_key_hash(), core.serial(), chain, key, core.signers_der())
    };
    let known = facts(&world.core);

    let world = world.restarted(later(60)).await;
    assert_eq!(facts(&world.core), known);
    let bearer = world.core.bearer(&of_alice, &alice.thumbprint(), later(60)).unwrap();
    let (after, _) = world.entitlements(&bearer, later(60)).await;
    assert_eq!((after[0].seq, after[0].inner, &after[0].grants), (2, before[0].inner, &before[0].grants));
    refused(world.core.bearer(&of_bob, &bob.thumbprint(), later(60)), "token_revoked");
    let configuration = world.core.configuration(&joined.id, later(60)).await.unwrap();
    let audience = audience::gateway(&joined.id);
    let configuration: Verified<ringfort_token::GatewayConfiguration> =
        world.verify(&configuration, &audience, Holder::Nobody, later(60));
    assert_eq!(configuration.seq, 2);
    world.core.join(Client::new("tablet").join(&unused.0, &unused.1), later(60)).await.unwrap();
    world.revoke(api::RevocationScope::User("alice".into()), None, later(61)).await.unwrap();
    assert_eq!(world.core.serial().n, 2);
    assert_eq!(world.core.users(&world.admin()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn the_folder_is_private_and_so_is_every_file() {
    let world = World::new().await;
    let state = state(world.folder.path());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    if settings(world.folder.path()).await.database.is_none() {
        assert!(names.iter().any(|found| found == "database.sqlite"), "{names:?}");
    }
    for name in ["rootCA.key", "rootCA.pem", "intermediate.key", "https.key", "https.pem", "signer.key"] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
    drop(world.core);
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o750)).unwrap();
    let error = Core::open(&state, &settings(world.folder.path()).await, None, NOW).await.err().unwrap();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[tokio::test]
async fn an_organisation_begins_with_an_administrator_and_with_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let error = Core::open(&state(folder.path()), &settings(folder.path()).await, None, NOW).await.err().unwrap();
    assert!(error.to_string().contains("first administrator"), "{error}");
    // A later start needs none, and takes none.
    drop(open(folder.path(), NOW).await);
    let other = FirstAdministrator { name: "mallory".into(), password: "another password".to_owned().into() };
    let core = Core::open(&state(folder.path()), &settings(folder.path()).await, Some(&other), NOW).await.unwrap();
    refused(Client::new("x").login(&core, "mallory", "another password", NOW).await, "login_refused");
    drop(core);
    std::fs::remove_file(state(folder.path()).join("rootCA.pem")).unwrap();
    let error = Core::open(&state(folder.path()), &settings(folder.path()).await, None, NOW).await.err().unwrap();
    assert!(error.to_string().contains("rootCA.pem"), "{error}");
}

#[tokio::test]
async fn own_certificates_are_renewed_in_time_and_keys_stay() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), NOW).await;
    let verified = |core: &Core, now| {
        let (chain, _) = core.server_credentials();
        assert_eq!(chain.len(), 3);
        assert_eq!(&*chain[2], core.root_der());
        let server = core.trust().verify(&chain[0], Side::Server, Role::Controller, now).unwrap();
        let signer = CertificateDer::from(core.signers_der().remove(0));
        let signer = core.trust().verify(&signer, Side::Signer, Role::Signer, now).unwrap();
        (server, signer)
    };
    let (server, signer) = verified(&first, NOW);
    assert_eq!(server.not_after(), later(90 * 86_400));
    let day = |n: u64| later(n * 86_400);

    let (same, _) = verified(&open(folder.path(), day(59)).await, day(59));
    assert_eq!(same, server);
    let core = open(folder.path(), day(61)).await;
    let (renewed, same) = verified(&core, day(61));
    assert_eq!((renewed.key(), renewed.not_after()), (server.key(), day(61 + 90)));
    assert_eq!((core.join_key_hash(), same), (first.join_key_hash(), signer.clone()));
    let moved = Settings { names: vec!["elsewhere.example".into()], ..settings(folder.path()).await };
    let core = Core::open(&state(folder.path()), &moved, None, day(62)).await.unwrap();
    let (renamed, _) = verified(&core, day(62));
    assert_eq!(renamed.key(), server.key());
    assert_ne!(renamed.serial(), renewed.serial());
    // Or while it runs, and everybody hears of it.
    let mut changes = core.changes();
    assert!(!core.renew_own_certificates(day(120)).await.unwrap());
    assert!(core.renew_own_certificates(day(123)).await.unwrap());
    let (running, _) = verified(&core, day(123));
    assert_eq!((running.key(), running.not_after()), (server.key(), day(123 + 90)));
    assert!(changes.try_recv().is_err(), "nobody stands on it");
    assert!(core.renew_own_certificates(day(245)).await.unwrap());
    assert_eq!(changes.try_recv().unwrap(), ringfort_controller::core::Change::Authorities);
    assert_eq!(
        (core.signers_der().len(), core.intermediates_der().len()),
        (1, 1),
        "they take the place of the old ones for the same keys"
    );
    // Also those of a year: the intermediate and the signer.
    let (_, renewed) = verified(&open(folder.path(), day(250)).await, day(250));
    assert_eq!((renewed.key(), renewed.not_after()), (signer.key(), day(245 + 365)));
}

// Covers: X14 allow
// Covers: X14 refuse
#[tokio::test]
async fn the_lease_of_a_configuration_is_what_the_settings_say() {
    let mut world = World::new().await;
    let (_, joined) = world.gateway("east-1", "east").await;
    for seconds in [120, 86_400] {
        let World { folder, core, owner } = world;
        drop(core);
        let settings = Settings { lease_seconds: seconds, ..settings(folder.path()).await };
        let core = Core::open(&state(folder.path()), &settings, None, NOW).await.unwrap();
        world = World { folder, core, owner };
        let text = world.core.configuration(&joined.id, NOW).await.unwrap();
        let audience = audience::gateway(&joined.id);
        let token: Verified<ringfort_token::GatewayConfiguration> = world.verify(&text, &audience, Holder::Nobody, NOW);
        assert_eq!((token.lease, token.exp), (later(seconds), later(seconds)));
    }
    for seconds in [0, 119, 86_401] {
        let settings = Settings { lease_seconds: seconds, ..settings(world.folder.path()).await };
        let refused = Core::open(&state(world.folder.path()), &settings, None, NOW).await;
        let error = refused.err().unwrap().to_string();
        assert!(error.contains("lease_seconds of 120 to 86400") && error.contains(&seconds.to_string()), "{error}");
    }
}
