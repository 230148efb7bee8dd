//! Backups, and Controllers made of them.

use std::sync::Arc;

use ringfort_controller::{backup, restore};
use ringfort_proto::api;
use ringfort_proto::v1::push::What;
use ringfort_proto::v1::{Hello, Serial};

use crate::support::{Controller, PASSWORD, User, code, payload};

/// Blocking, as the commands are.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_controller_begins_a_new_epoch_in_which_nothing_issued_before_counts() {
    let controller = Controller::start().await;
    let is_postgres = crate::database::of(&controller.folder()).await.is_some();
    let mut administrator = controller.administrator().await;
    administrator.new_site("berlin").await;
    administrator.new_user("bob").await;
    administrator.new_resource("web", "berlin").await;
    let gateway = administrator.new_gateway("gw1", "berlin", controller.place.path()).await;
    administrator.grant("web", "bob").await;
    let open = administrator.invite("gw2", "berlin").await;
    let to = controller.place.path().join("backup");
    let (from, target) = (controller.folder(), to.clone());
    // While it runs.
    blocking(move || backup(&from, &target)).await.unwrap();

    // What happens after the backup is forgotten, but for those who have it.
    if !is_postgres {
        administrator.new_user("carol").await;
        User::with_certificate(&controller, "carol", PASSWORD).await;
    }
    let mut bob = User::with_certificate(&controller, "bob", PASSWORD).await;
    let seq = |tokens: &api::EntitlementsResponse| payload(&tokens.entitlements[0])["seq"].as_u64().unwrap();
    let mut before = 0;
    for _ in 0..5 {
        before = seq(&bob.ask("entitlements", &()).await.unwrap());
    }
    let revoked = administrator.revoke_something().await;
    let (epoch, n) = revoked.serial.split_once('/').unwrap();
    let known = Serial { epoch: epoch.parse().unwrap(), n: n.parse().unwrap() };
    let place = Arc::clone(&controller.place);
    controller.end().await;

    let restored = if is_postgres { Arc::clone(&place) } else { Arc::new(tempfile::tempdir().unwrap()) };
    let state = restored.path().join("state");
    blocking(move || restore((!is_postgres).then_some(to.as_path()), &state)).await.unwrap();
    let controller = Controller::start_again_in(restored).await;
    let new_epoch: u64 =
        controller.status().await["revocations"].as_str().unwrap().split_once('/').unwrap().0.parse().unwrap();
    assert!(new_epoch > known.epoch);

    // Tokens from before are dead, whoever has them.
    bob.reconnect().await;
    let refused = bob.ask::<_, api::EntitlementsResponse>("entitlements", &()).await;
    assert_eq!(code(refused), "token_unknown_key");
    if !is_postgres {
        let mut carol = User::new(&controller).await;
        assert_eq!(code(carol.login("carol", PASSWORD).await), "login_refused");
    }
    // Numbers go on above those that were given.
    let mut bob = User::with_certificate(&controller, "bob", PASSWORD).await;
    let after = seq(&bob.ask("entitlements", &()).await.unwrap());
    assert!(after > before, "{after} after {before}");
    // The Gateway hears of the new epoch, and has the certificate that it had.
    let mut subscriber = gateway.subscribe(Hello { revocations: Some(known), ..Hello::default() }).await.unwrap();
    let first = subscriber.pushes.message().await.unwrap().unwrap();
    assert_eq!(first.signers.len(), 1);
    let Some(What::Configuration(configuration)) = first.what else { panic!("{first:?}") };
    assert!(payload(&configuration)["seq"].as_u64() > Some(1 << 20));
    let backlog = subscriber.backlog().await;
    let Some(What::Revocations(list)) = backlog.first() else { panic!("{backlog:?}") };
    assert_eq!((payload(list)["epoch"].as_u64(), payload(list)["after"].as_u64()), (Some(new_epoch), Some(0)));
    // An invitation that was open may have been used since.
    let invitation = open.url.parse().unwrap();
    let folder = ringfort_enrol::Folder::create(&place.path().join("gw2")).unwrap();
    let joined = ringfort_enrol::join(&invitation, &open.ticket, &ringfort_enrol::Joiner::default(), &folder).await;
    assert!(joined.unwrap_err().to_string().contains("invitation_used"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_overwrites_nothing_and_nothing_else_is_one() {
    use std::os::unix::fs::PermissionsExt;
    let controller = Controller::start().await;
    let (state, place) = (controller.folder(), controller.place.path().to_owned());
    let text = |result: anyhow::Result<()>| format!("{:#}", result.unwrap_err());
    blocking(move || {
        let to = place.join("backup");
        backup(&state, &to).unwrap();
        for entry in std::fs::read_dir(&to).unwrap().map(Result::unwrap) {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
        assert!(text(backup(&state, &to)).contains("expected an empty folder"));
        assert!(text(backup(&to.join("nowhere"), &place.join("x"))).contains("nowhere"));
        assert!(text(backup(&place.join("x"), &place.join("y"))).contains("/x"));
        assert!(text(restore(Some(&to), &state)).contains("expected an empty folder"));
        assert!(text(restore(Some(&place), &place.join("z"))).contains("backup"));
    })
    .await;
}
