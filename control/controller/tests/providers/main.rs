//! Logins at real identity providers: an OpenID provider under Node, and OpenLDAP. Run by `cargo xtask e2e`, which sees to it that
//! both are there; without it there is nothing to run.
//!
//! Each case starts a Controller and a provider of its own, so that cases depend on no order.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod browser;
#[path = "../support/database.rs"]
mod database;
mod directory;
mod ldap;
mod oidc;
#[allow(dead_code)]
#[path = "../support/otp_system.rs"]
mod otp_system;
mod provider;
#[allow(dead_code)]
#[path = "../shell/support.rs"]
mod support;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Set by `cargo xtask e2e`.
const SWITCH: &str = "RINGFORT_E2E";

macro_rules! cases {
    ($($module:ident { $($case:ident),* $(,)? })*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($case)), || run($module::$case()))),*),*]
    };
}

/// A case by its name, which is that of its function, so that it can be found by both.
type Case = (&'static str, fn());

const CASES: &[Case] = cases! {
    oidc {
        from_a_browser_to_a_certificate,
        the_controller_names_its_providers,
        another_logins_code_nonce_or_state_is_refused,
        a_login_is_finished_once_and_by_its_own_key,
        only_active_users_with_a_verified_address_come_in,
        a_login_ends_with_the_providers_session,
        a_session_that_goes_on_prolongs_the_login,
        a_fresh_login_is_asked_for_anew,
        a_url_is_brought_back_by_hand,
        a_provider_under_a_ca_of_its_own,
        one_time_passwords_stand_beside_the_providers,
        the_organisations_own_system_is_asked_beside_the_provider,
    }
    ldap {
        a_directorys_password_is_a_login,
        wrong_and_empty_passwords_are_refused,
        a_directory_that_is_down_is_no_failure_of_the_users,
        one_time_passwords_stand_beside_the_directorys,
        the_organisations_own_system_is_asked_beside_the_directory,
        the_connection_is_secured_by_the_given_ca,
    }
};

fn main() -> ExitCode {
    if std::env::var_os(SWITCH).is_none() {
        println!("SKIPPED providers: run cargo xtask e2e");
        return ExitCode::SUCCESS;
    }
    let trial = |(name, case): &Case| {
        let case = *case;
        Trial::test(*name, move || {
            case();
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), CASES.iter().map(trial).collect()).exit_code()
}

/// Carries a case out on a runtime of its own.
fn run(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(case);
}
