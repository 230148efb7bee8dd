//! Several Controllers of one database.

use std::time::{Duration, Instant};

use ringfort_controller::core::Change;
use ringfort_identity::RoleUri;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;

use super::*;

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Invites another Controller and has it join, into a folder of its own beside the first one's.
pub(crate) async fn join(world: &World, name: &str) -> (PathBuf, v1::Joined, Client) {
    let (cookie, ticket) = world.invite(api::Invitee::Controller {}).await;
    let client = Client::new("");
    let joined = world.core.join(client.join(&cookie, &ticket), NOW).await.unwrap();
    let place = world.folder.path().join(name);
    let state = state(&place);
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let pem = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", der));
    std::fs::write(state.join("rootCA.pem"), pem(&joined.root)).unwrap();
    std::fs::write(state.join("intermediate.pem"), pem(&joined.chain[0])).unwrap();
    std::fs::write(state.join("intermediate.key"), client.key.serialize_pem()).unwrap();
    // As whoever sets up a further one does by hand.
    std::fs::copy(crate::state(world.folder.path()).join("sealing.key"), state.join("sealing.key")).unwrap();
    (place, joined, client)
}

/// A certificate by the intermediate of a Controller that joined, whatever for.
fn forged(world: &World, joined: &v1::Joined, client: &Client, role: Role, id: &str) -> CertificateDer<'static> {
    let intermediate = CertificateDer::from(joined.chain[0].to_vec());
    let key = KeyPair::from_pem(&client.key.serialize_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&intermediate, key).unwrap();
    let uri = RoleUri::new(world.core.organisation(), role, id).unwrap().to_string();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2027, 1, 1), rcgen::date_time_ymd(2028, 1, 1));
    params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
}

async fn settings_of(world: &World, place: &Path, address: &str) -> Settings {
    let mut settings = settings(world.folder.path()).await;
    settings.address = address.into();
    if settings.database.is_none() {
        // Two processes may use one file of SQLite. That is good for this test only.
        let file = |state: PathBuf| state.join("database.sqlite");
        std::os::unix::fs::symlink(file(state(world.folder.path())), file(state(place))).ok();
    }
    settings
}

pub(crate) async fn another(world: &World) -> Core {
    let (place, ..) = join(world, "second").await;
    let settings = settings_of(world, &place, "second.example:8443").await;
    let second = Core::open(&state(&place), &settings, None, NOW).await.unwrap();
    world.core.hear(NOW).await.unwrap();
    second
}

fn next(changes: &mut Receiver<Change>) -> Change {
    changes.try_recv().unwrap()
}

#[tokio::test]
async fn any_controller_answers_any_request() {
    let world = World::new().await;
    world.grant("wiki", "alice", NOW).await;
    let second = another(&world).await;
    // Logged in here, served there, and the other way round.
    let alice = Client::new("laptop");
    let here = world.login("alice", &alice, NOW).await;
    let there = second.bearer(&claims_of(&world.core, &alice, "alice").await, &alice.thumbprint(), NOW).unwrap();
    assert_eq!(here.session(), there.session());
    let tokens = second.entitlements(&there, NOW).await.unwrap();
    assert_eq!(tokens.known.controllers, ["second.example:8443", "controller.example:8443"]);
    assert_eq!((tokens.known.signers.len(), tokens.known.intermediates.len()), (2, 2));
    let key = alice.thumbprint();
    let connect: Verified<ConnectToken> =
        world.verify(&tokens.connect, &audience::session(&there.session().to_string()), Holder::Key(&key), NOW);
    let entitlement: Verified<EntitlementToken> =
        world.verify(&tokens.entitlements[0], &audience::site(&connect.sites[0].site), Holder::Key(&key), NOW);
    assert_eq!(entitlement.seq, 1);
    // Sequence numbers are those of the database.
    let (again, _) = world.entitlements(&here, NOW).await;
    assert_eq!(again[0].seq, 2);
    // A certificate of the second one's intermediate is good everywhere.
    let chain = second.certificate(&there, &alice.request(), NOW).await.unwrap().chain;
    let chain: Vec<_> = chain.iter().map(|one| URL_SAFE_NO_PAD.decode(one).unwrap()).collect();
    assert_eq!(world.peer(&chain[..1], Role::Device, NOW).key(), &key);
}

/// The claims token of another login.
async fn claims_of(core: &Core, client: &Client, user: &str) -> String {
    let request = client.credentials(user, &format!("{user} password"));
    core.login(&request, client.thumbprint(), FROM, NOW).await.unwrap().claims
}

#[tokio::test]
async fn what_one_decides_all_carry_out_in_one_order() {
    let world = World::new().await;
    let second = another(&world).await;
    let bearer = Client::new("second-admin-device").login(&second, "root", "first password", NOW).await.unwrap();
    let admin = second.administrator(&bearer, NOW).await.unwrap();
    let alice = Client::new("laptop");
    let claims = claims_of(&world.core, &alice, "alice").await;
    let (mut here, mut there) = (world.core.changes(), second.changes());

    world.grant("wiki", "alice", NOW).await;
    let revocation = api::NewRevocation {
        scope: api::RevocationScope::User("alice".into()),
        reason: "for a test".into(),
        grace_seconds: None,
    };
    // The second one has not heard of the grant yet when it revokes.
    let pushed = second.admin_revoke(&admin, revocation, NOW).await.unwrap();
    assert_eq!(second.serial().n, 1);
    assert!(pushed.serial.ends_with("/1"), "{}", pushed.serial);
    for changes in [&mut here, &mut there] {
        assert!(matches!(next(changes), Change::Entitlement { .. }));
    }
    // Each signs the list by its own key; the numbers are the database's.
    assert!(matches!(next(&mut there), Change::Revocations { serial, .. } if serial == second.serial()));
    world.core.bearer(&claims, &alice.thumbprint(), NOW).unwrap();
    world.core.hear(NOW).await.unwrap();
    assert!(matches!(next(&mut here), Change::Revocations { serial, .. } if serial == second.serial()));
    refused(world.core.bearer(&claims, &alice.thumbprint(), NOW), "token_revoked");
    world.core.hear(NOW).await.unwrap();
    assert!(here.try_recv().is_err(), "nothing is told twice");
    // The next one goes on from there.
    world.revoke(api::RevocationScope::User("bob".into()), None, NOW).await.unwrap();
    assert_eq!(world.core.serial().n, 2);
}

#[tokio::test]
async fn a_controller_that_was_away_for_long_has_its_gateways_begin_anew() {
    let world = World::new().await;
    let second = another(&world).await;
    world.revoke(api::RevocationScope::User("bob".into()), None, NOW).await.unwrap();
    // Two hours later the news of now is gone.
    let much_later = later(7_200);
    world.grant("wiki", "alice", much_later).await;
    world.revoke(api::RevocationScope::User("alice".into()), None, much_later).await.unwrap();
    let mut changes = second.changes();
    second.hear(much_later).await.unwrap();
    assert_eq!((next(&mut changes), next(&mut changes)), (Change::Authorities, Change::Missed));
    assert_eq!(second.serial(), world.core.serial());
    assert_eq!(second.serial().n, 2);
}

/// A ticket is good at the Controller that invited: wherever the cookie is shown first, it is used up.
// Covers: R4 refuse
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_show_one_invitation_to_two_controllers_one_uses_it() {
    const AT_EACH: usize = 50;
    let world = World::new().await;
    let second = another(&world).await;
    let (cookie, ticket) = world.invite(api::Invitee::Gateway { name: "east-1".into(), site: "east".into() }).await;
    let mut joining = JoinSet::new();
    for n in 0..2 * AT_EACH {
        let (core, inviting) = if n % 2 == 0 { (world.core.clone(), true) } else { (second.clone(), false) };
        let request = Client::new(&format!("gateway-{n}")).join(&cookie, &ticket);
        joining.spawn(async move { (inviting, core.join(request, NOW).await.map(drop)) });
    }
    let mut used = 0;
    for answer in joining.join_all().await {
        match answer {
            (_, Err(refused)) if refused.code == "invitation_used" => {}
            (true, Ok(())) => used += 1,
            (false, Err(refused)) if refused.code == "token_wrong_audience" => used += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(used, 1);
}

/// Has what another Controller decides followed by `second`; ends with what this gives.
fn followed(second: &Core) -> JoinSet<()> {
    let (mut following, second) = (JoinSet::new(), second.clone());
    following.spawn(async move {
        second.follow(|| NOW).await;
    });
    following
}

/// Takes back something that nobody has, and waits until it is told of on `changes`.
async fn heard(world: &World, changes: &mut Receiver<Change>) {
    let token = api::RevocationScope::Token(uuid::Uuid::new_v4().to_string());
    world.revoke(token, None, NOW).await.unwrap();
    let change = tokio::time::timeout(PATIENCE, changes.recv()).await.expect("it is heard").unwrap();
    assert!(matches!(change, Change::Revocations { serial, .. } if serial == world.core.serial()), "{change:?}");
}

/// Without being told, one who looks every second would hear of decisions that follow each other a second late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_tells_of_decisions_before_it_is_looked_at() {
    if !database::is_postgres() {
        return eprintln!("only PostgreSQL tells of anything");
    }
    let world = World::new().await;
    let second = another(&world).await;
    let mut changes = second.changes();
    let _following = followed(&second);
    let mut took = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        heard(&world, &mut changes).await;
        took.push(begun.elapsed());
    }
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_millis(300), "{took:?}");
}

/// Nothing else would bring it: the database tells of a decision once, to those who listen then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_heard_of_while_the_database_tells_of_nothing() {
    const LISTENING: &str = "SELECT 1 FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'LISTEN %'";
    const END: &str =
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'LISTEN %'";
    if !database::is_postgres() {
        return eprintln!("only PostgreSQL tells of anything");
    }
    let world = World::new().await;
    let second = another(&world).await;
    let mut changes = second.changes();
    let _following = followed(&second);
    let place = state(world.folder.path());
    let rows = async |statement| database::beside(&place, statement).await;
    let somebody_listens = async || {
        let begun = Instant::now();
        while rows(LISTENING).await != 1 {
            assert!(begun.elapsed() < PATIENCE, "nobody listens");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    somebody_listens().await;
    heard(&world, &mut changes).await;
    // Connections that are there go on, and nobody can listen anew.
    rows("ALTER DATABASE {} ALLOW_CONNECTIONS false").await;
    assert_eq!(rows(END).await, 1);
    heard(&world, &mut changes).await;
    assert_eq!(rows(LISTENING).await, 0);
    rows("ALTER DATABASE {} ALLOW_CONNECTIONS true").await;
    somebody_listens().await;
}

#[tokio::test]
async fn a_removed_controller_is_believed_by_nobody_and_does_not_start_again() {
    let world = World::new().await;
    let (place, joined, _) = join(&world, "second").await;
    assert_eq!((joined.kind.as_str(), joined.chain.len()), ("controller", 1));
    let settings = settings_of(&world, &place, "second.example:8443").await;
    let second = Core::open(&state(&place), &settings, None, NOW).await.unwrap();
    world.core.hear(NOW).await.unwrap();
    let alice = Client::new("laptop");
    let claims = claims_of(&second, &alice, "alice").await;
    world.core.bearer(&claims, &alice.thumbprint(), NOW).unwrap();
    let named = |name: &str| api::Named { name: name.into() };
    let mut changes = world.core.changes();
    let own = world.core.admin_remove_controller(&world.admin(), named("controller.example:8443"), NOW).await;
    refused(own, "request_malformed");
    refused(world.core.admin_remove_controller(&world.admin(), named("nobody:1"), NOW).await, "not_found");
    world.core.admin_remove_controller(&world.admin(), named("second.example:8443"), NOW).await.unwrap();
    assert_eq!(next(&mut changes), Change::Authorities);
    refused(world.core.bearer(&claims, &alice.thumbprint(), NOW), "token_unknown_key");
    assert_eq!((world.core.controllers().len(), world.core.intermediates_der().len()), (1, 1));
    second.hear(NOW).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(10), second.follow(|| NOW)).await.expect("it ends");
    drop(second);
    let error = Core::open(&state(&place), &settings, None, NOW).await.err().unwrap();
    assert!(error.to_string().contains("removed"), "{error}");
    assert_eq!(world.core.controller_rows(&world.admin()).await.unwrap().len(), 1);
}

// Covers: C14 refuse
#[tokio::test]
async fn a_controller_that_was_stopped_during_a_restore_learns_of_it_when_it_starts() {
    let world = World::new().await;
    let (place, ..) = join(&world, "second").await;
    let second_settings = settings_of(&world, &place, "second.example:8443").await;
    let first_settings = settings(world.folder.path()).await;
    let second = Core::open(&state(&place), &second_settings, None, NOW).await.unwrap();
    let alice = Client::new("laptop");
    let before = claims_of(&second, &alice, "alice").await;
    let first_state = state(world.folder.path());
    let refused_beside = Core::restore(&first_state, &first_settings, later(10)).await.unwrap_err();
    assert!(refused_beside.to_string().contains("stop every Controller"), "{refused_beside}");
    let World { folder, core, .. } = world;
    drop(core);
    // One that runs is enough.
    let refused_beside = Core::restore(&first_state, &first_settings, later(10)).await.unwrap_err();
    assert!(refused_beside.to_string().contains("stop every Controller"), "{refused_beside}");
    drop(second);
    Core::restore(&first_state, &first_settings, later(10)).await.unwrap();

    let second = Core::open(&state(&place), &second_settings, None, later(20)).await.unwrap();
    let first = Core::open(&first_state, &first_settings, None, later(20)).await.unwrap();
    second.hear(later(20)).await.unwrap();
    assert_eq!((first.serial().epoch, second.serial().epoch), (later(10).0, later(10).0));
    for core in [&first, &second] {
        refused(core.bearer(&before, &alice.thumbprint(), later(20)), "token_unknown_key");
        assert_eq!(core.signers_der().len(), 2, "each has one, and there are no others");
    }
    let request = alice.credentials("alice", "alice password");
    let after = second.login(&request, alice.thumbprint(), FROM, later(20)).await.unwrap().claims;
    first.bearer(&after, &alice.thumbprint(), later(20)).unwrap();
    // Another start is none of another epoch.
    let signers = second.signers_der();
    drop(second);
    let second = Core::open(&state(&place), &second_settings, None, later(30)).await.unwrap();
    assert_eq!(second.signers_der(), signers);
    drop(folder);
}

#[tokio::test]
async fn a_controller_joins_only_where_the_roots_key_is() {
    let world = World::new().await;
    let (cookie, ticket) = world.invite(api::Invitee::Controller {}).await;
    let key = state(world.folder.path()).join("rootCA.key");
    std::fs::rename(&key, world.folder.path().join("safe")).unwrap();
    refused(world.core.join(Client::new("").join(&cookie, &ticket), NOW).await, "root_key_absent");
    let request = api::NewInvitation { invitee: api::Invitee::Controller {}, expires_in: None };
    refused(world.core.admin_invite(&world.admin(), request, NOW).await, "root_key_absent");
    // All else goes on without it, also over a start.
    let world = world.restarted(later(60)).await;
    assert!(!key.exists(), "no other key was made in its place");
    world.gateway("east-1", "east").await;
    // A database of another organisation is none of this one's.
    let other = World::new().await;
    let (place, ..) = join(&other, "second").await;
    let error = Core::open(&state(&place), &settings_of(&world, &place, "x.example:1").await, None, NOW).await;
    assert!(error.err().unwrap().to_string().contains("organisation"));
}

#[tokio::test]
async fn what_a_joined_controller_issues_counts_until_it_is_removed() {
    let world = World::new().await;
    let (_, gateway) = world.gateway("east-1", "east").await;
    let (place, joined, key) = join(&world, "second").await;
    world.core.hear(NOW).await.unwrap();
    assert_eq!(world.core.intermediates_der().len(), 2, "known before it starts");
    assert_eq!(world.core.controllers(), ["controller.example:8443"], "and not to be asked yet");
    let rows = world.core.controller_rows(&world.admin()).await.unwrap();
    let introduced = rows.iter().find(|row| row.address.is_empty()).unwrap();
    // A Gateway is known by its key: another Controller names whom it likes.
    let leaf = forged(&world, &joined, &key, Role::Gateway, &gateway.id);
    let peer = world.core.trust().verify(&leaf, Side::Client, Role::Gateway, NOW).unwrap();
    assert_eq!(peer.id(), gateway.id);
    refused(world.core.report(&peer, &v1::ReportRequest::default(), NOW).await, "key_mismatch");
    refused(world.core.site_of(&peer).await, "key_mismatch");
    refused(world.core.enroll(&peer, &Client::new("east-1").request(), NOW).await, "key_mismatch");
    world.core.site_of(&world.gateway_peer(&gateway)).await.unwrap();

    refused(
        world.core.admin_remove_controller(&world.admin(), api::Named { name: String::new() }, NOW).await,
        "not_found",
    );
    let named = api::Named { name: introduced.id.clone() };
    world.core.admin_remove_controller(&world.admin(), named, NOW).await.unwrap();
    assert!(world.core.trust().verify(&leaf, Side::Client, Role::Gateway, NOW).is_err());
    assert_eq!(world.core.intermediates_der().len(), 1);
    // Nor does it come back under the name that it has once it has started.
    let settings = settings_of(&world, &place, "second.example:8443").await;
    let error = Core::open(&state(&place), &settings, None, NOW).await.err().unwrap().to_string();
    assert!(error.contains("was removed from its organisation"), "{error}");
}

#[tokio::test]
async fn whoever_missed_decisions_knows_whom_to_believe_all_the_same() {
    let world = World::new().await;
    let second = another(&world).await;
    let much_later = later(7_200);
    world
        .core
        .admin_remove_controller(&world.admin(), api::Named { name: "second.example:8443".into() }, NOW)
        .await
        .unwrap();
    world.revoke(api::RevocationScope::User("bob".into()), None, much_later).await.unwrap();
    let mut changes = second.changes();
    second.hear(much_later).await.unwrap();
    assert_eq!((next(&mut changes), next(&mut changes)), (Change::Authorities, Change::Missed));
    // It has heard that it is out, and ends.
    second.follow(|| much_later).await;
}

#[tokio::test]
async fn certificates_that_are_renewed_take_the_place_of_those_before() {
    let mut world = World::new().await;
    let mut now = NOW;
    for year in 1..=4 {
        // Past two thirds of a year: new certificates by the same keys.
        now = later(year * 300 * 86_400);
        world = world.restarted(now).await;
        assert_eq!((world.core.intermediates_der().len(), world.core.signers_der().len()), (1, 1), "{year}");
    }
    world.core.hear(now).await.unwrap();
}

#[tokio::test]
async fn one_key_seals_for_all() {
    let world = World::new().await;
    let (place, ..) = join(&world, "second").await;
    let settings = settings_of(&world, &place, "second.example:8443").await;
    let (own, key) = (state(world.folder.path()).join("sealing.key"), state(&place).join("sealing.key"));
    let refusal = async || format!("{:#}", Core::open(&state(&place), &settings, None, NOW).await.err().unwrap());
    std::fs::remove_file(&key).unwrap();
    let error = refusal().await;
    assert!(
        error.contains("sealing.key") && error.contains("copy the file") && error.contains("found none"),
        "{error}"
    );
    assert!(!key.exists(), "none is made in its place");
    std::fs::write(&key, URL_SAFE_NO_PAD.encode([7; 32])).unwrap();
    let error = refusal().await;
    assert!(error.contains("sealing.key") && error.contains("found one with the digest"), "{error}");
    std::fs::copy(&own, &key).unwrap();
    Core::open(&state(&place), &settings, None, NOW).await.unwrap();
    // The first one needs its own as well.
    std::fs::rename(&own, place.join("safe")).unwrap();
    let first = crate::settings(world.folder.path()).await;
    let error = Core::open(&state(world.folder.path()), &first, None, NOW).await.err().unwrap();
    assert!(error.to_string().contains("found none"), "{error}");
}

#[tokio::test]
async fn no_host_is_called_like_any_controller() {
    let world = World::new().await;
    let add = async |name: &str| {
        world.core.admin_add_host(&world.admin(), api::Named { name: name.into() }, NOW).await.map(drop)
    };
    add("third.example").await.unwrap();
    add("second.example").await.unwrap();
    let (place, ..) = join(&world, "second").await;
    let mut settings = settings_of(&world, &place, "second.example:8443").await;
    settings.names = vec!["Other.example".into()];
    let error = Core::open(&state(&place), &settings, None, NOW).await.err().unwrap();
    assert!(error.to_string().contains("second.example"), "{error}");
    world.core.admin_remove_host(&world.admin(), api::Named { name: "second.example".into() }, NOW).await.unwrap();
    let second = Core::open(&state(&place), &settings, None, NOW).await.unwrap();
    for own in ["second.example", "other.example", "controller.example"] {
        refused(add(own).await, "request_malformed");
        let invitee = api::Invitee::Host { name: own.into() };
        let request = api::NewInvitation { invitee, expires_in: None };
        refused(world.core.admin_invite(&world.admin(), request, NOW).await, "request_malformed");
    }
    // Removed it gives its names back.
    drop(second);
    let named = api::Named { name: "second.example:8443".into() };
    world.core.admin_remove_controller(&world.admin(), named, NOW).await.unwrap();
    add("second.example").await.unwrap();
}

#[tokio::test]
async fn of_two_first_starts_on_one_database_one_makes_the_organisation() {
    let folder = tempfile::tempdir().unwrap();
    let places = ["one", "other"].map(|name| folder.path().join(name));
    let settings = settings(&places[0]).await;
    if settings.database.is_none() {
        for place in &places {
            std::fs::create_dir_all(state(place)).unwrap();
            std::fs::set_permissions(state(place), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }
        std::os::unix::fs::symlink(
            state(&places[0]).join("database.sqlite"),
            state(&places[1]).join("database.sqlite"),
        )
        .unwrap();
    }
    // The tables are there, and nothing in them.
    let error = Core::open(&state(&places[0]), &settings, None, NOW).await.err().unwrap();
    assert!(error.to_string().contains("first administrator"), "{error}");
    let first = FirstAdministrator { name: "root".into(), password: "first password".to_owned().into() };
    let start = |place: &Path| {
        let (place, settings, first) = (state(place), &settings, &first);
        async move { Core::open(&place, settings, Some(first), NOW).await }
    };
    let (one, other) = tokio::join!(start(&places[0]), start(&places[1]));
    let (core, error, loser) = match (one, other) {
        (Ok(core), Err(error)) => (core, error, &places[1]),
        (Err(error), Ok(core)) => (core, error, &places[0]),
        _ => panic!("expected one organisation"),
    };
    assert!(error.to_string().contains("has an organisation"), "{error}");
    assert!(!state(loser).join("rootCA.pem").exists(), "it made no root of its own");
    Client::new("x").login(&core, "root", "first password", NOW).await.unwrap();
}
