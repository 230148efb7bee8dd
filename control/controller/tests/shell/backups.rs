//! Backups, and Controllers made of them.

use std::path::Path;
use std::sync::Arc;

use ringfort_controller::core::Out;
use ringfort_controller::{Options, Server, backup, restore};
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

/// Why a Controller does not start in a folder.
async fn start_refused(state: &Path, options: &Options) -> String {
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    format!("{:#}", Server::open(state, options, stopped).await.err().expect("it does not start"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_restored_beside_a_running_controller() {
    let controller = Controller::start().await;
    let mut administrator = controller.administrator().await;
    administrator.new_user("bob").await;
    let mut bob = User::with_certificate(&controller, "bob", PASSWORD).await;
    let state = controller.folder();
    let refused = blocking(move || restore(None, &state)).await.unwrap_err();
    assert!(format!("{refused:#}").contains("stop every Controller"), "{refused:#}");
    // Nothing has changed, for now and over a start. Meanwhile the connection has been silent for too long.
    administrator.reconnect().await;
    administrator.new_user("carol").await;
    let controller = controller.restart().await;
    bob.reconnect().await;
    bob.ask::<_, api::EntitlementsResponse>("entitlements", &()).await.unwrap();
    let (state, place) = (controller.folder(), Arc::clone(&controller.place));
    controller.end().await;
    blocking(move || restore(None, &state)).await.unwrap();
    drop(place);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_broke_off_is_repeated_before_a_controller_starts() {
    let controller = Controller::start().await;
    let (state, place) = (controller.folder(), Arc::clone(&controller.place));
    let (good, bad, new) = (place.path().join("good"), place.path().join("bad"), place.path().join("new"));
    let (from, first, second) = (state.clone(), good.clone(), bad.clone());
    blocking(move || backup(&from, &first).and_then(|()| backup(&from, &second))).await.unwrap();
    controller.end().await;
    std::fs::write(bad.join("rootCA.pem"), "nothing").unwrap();

    // Into a new folder: what was copied is no Controller's, and is replaced by what is copied then.
    let restored = |from: Option<&Path>, to: &Path| {
        let (from, to) = (from.map(Path::to_owned), to.to_owned());
        blocking(move || restore(from.as_deref(), &to).map_err(|error| format!("{error:#}")))
    };
    let error = restored(Some(&bad), &new).await.unwrap_err();
    assert!(error.contains("rootCA.pem"), "{error}");
    assert!(start_refused(&new, &Options::default()).await.contains("repeat `ringfort restore`"));
    std::fs::write(new.join("left"), "over").unwrap();
    std::fs::remove_file(new.join("controller.toml")).unwrap();
    assert!(
        start_refused(&new, &Controller::options()).await.contains("repeat `ringfort restore`"),
        "no new one either"
    );
    assert!(restored(None, &new).await.unwrap_err().contains("repeat it with --from"));
    restored(Some(&good), &new).await.unwrap();
    assert!(!new.join("left").exists());
    let again = Controller::start_in_folder(Arc::clone(&place), "new").await;
    again.administrator().await;
    again.end().await;

    // In place: the folder's own keys stay.
    let root = std::fs::read(state.join("rootCA.pem")).unwrap();
    std::fs::write(state.join("rootCA.pem"), "nothing").unwrap();
    assert!(restored(None, &state).await.unwrap_err().contains("rootCA.pem"));
    assert!(start_refused(&state, &Options::default()).await.contains("repeat `ringfort restore`"));
    let (from, to) = (state.clone(), place.path().join("none"));
    assert!(format!("{:#}", blocking(move || backup(&from, &to)).await.unwrap_err()).contains("broke off"));
    assert!(restored(Some(&good), &state).await.unwrap_err().contains("expected an empty folder"));
    assert!(state.join("rootCA.key").exists());
    std::fs::write(state.join("rootCA.pem"), root).unwrap();
    restored(None, &state).await.unwrap();
    let again = Controller::start_in_folder(place, "state").await;
    again.administrator().await;
    again.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_put_back_and_not_restored_is_noticed() {
    let controller = Controller::start().await;
    let is_postgres = crate::database::of(&controller.folder()).await.is_some();
    let (state, to) = (controller.folder(), controller.place.path().join("backup"));
    let (from, target) = (state.clone(), to.clone());
    blocking(move || backup(&from, &target)).await.unwrap();
    let mut administrator = controller.administrator().await;
    administrator.revoke_something().await;
    let place = Arc::clone(&controller.place);
    controller.end().await;
    if is_postgres {
        // As if it had been at more than there is.
        let seen = std::fs::read_to_string(state.join("seen.json")).unwrap();
        let mut seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        seen["event"] = (seen["event"].as_u64().unwrap() + 1).into();
        std::fs::write(state.join("seen.json"), seen.to_string()).unwrap();
    } else {
        for file in ["database.sqlite", "database.sqlite-wal", "database.sqlite-shm"] {
            drop(std::fs::remove_file(state.join(file)));
        }
        std::fs::copy(to.join("database.sqlite"), state.join("database.sqlite")).unwrap();
    }
    let error = start_refused(&state, &Options::default()).await;
    assert!(error.contains("put back from a backup") && error.contains("ringfort restore"), "{error}");
    blocking(move || restore(None, &state)).await.unwrap();
    let controller = Controller::start_in_folder(place, "state").await;
    administrator.reconnect().await;
    let refused = administrator.ask::<_, api::EntitlementsResponse>("entitlements", &()).await;
    assert_eq!(code(refused), "token_unknown_key");
    controller.administrator().await;
    controller.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_under_which_the_database_is_replaced_ends() {
    for (statement, out) in [
        ("UPDATE organisation SET epoch = epoch + 60", Out::Restored),
        ("UPDATE organisation SET epoch = epoch - 60", Out::Older),
        ("DELETE FROM news", Out::Older),
    ] {
        let controller = Controller::start().await;
        controller.administrator().await.new_site("berlin").await;
        controller.administrator().await.new_user("bob").await;
        controller.administrator().await.new_resource("web", "berlin").await;
        crate::database::execute(&controller.folder(), statement).await;
        assert_eq!(controller.ended().await, Err(out), "{statement}");
    }
}
