//! The control side end to end: real processes of the real program in a laboratory of namespaces.
//!
//! Every case builds an organisation of its own, so cases depend on no order and run side by side. None waits for a time to
//! pass to see that something does not happen, unless it says why.

#![allow(missing_docs)]

mod bounds;
mod changes;
mod clock;
mod doors;
mod hosts;
mod login;
mod moves;
mod operations;
mod policies;
mod receipts;
mod renewals;
mod restart;
mod roles;
mod service;
mod several;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use ringfort_netlab::{LabError, enter};

/// A case by its name, which is that of its function, so that it can be found by both.
type Case = (&'static str, fn() -> anyhow::Result<()>);

macro_rules! cases {
    ($($module:ident { $($case:ident),* $(,)? })*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($case)), $module::$case)),*),*]
    };
}

const CASES: &[Case] = cases! {
    login {
        from_url_and_fingerprint_alone,
        a_wrong_password_gives_nothing,
        tokens_and_certificate_are_of_one_session,
    }
    changes {
        a_grant_reaches_a_live_session,
        what_is_taken_back_is_refused_at_once,
        groups_grant_and_take_back,
        a_revocation_ends_the_session_and_a_login_begins_another,
        a_revoked_device_does_not_come_back,
        a_renewal_is_not_noticed,
        whatever_is_revoked_ends_the_live_session,
    }
    restart {
        a_controller_that_was_killed_loses_nothing,
        a_gateway_that_was_killed_refuses_what_it_refused_before,
        a_gateway_goes_on_without_its_controller,
        nobody_new_is_admitted_long_after_the_last_word_of_the_controller,
        a_client_that_was_killed_comes_back,
        everything_ends_when_it_is_asked_to,
    }
    operations {
        a_drained_gateway_admits_nobody_new_until_it_is_over,
        the_sessions_of_a_drained_gateway_are_ended_when_it_is_asked,
        a_reload_brings_the_ceiling_without_dropping_anybody,
        a_gateway_logs_as_it_is_told,
        a_signed_package_is_laid_for_the_sites_installer,
        packets_are_captured_where_the_site_allows_it,
    }
    moves {
        a_drained_gateway_is_left_for_another_of_its_site,
    }
    renewals {
        packets_flow_over_the_end_of_the_tokens_that_began_them,
        packets_flow_over_the_end_of_the_certificate_that_began_them,
        who_cannot_renew_ends_at_the_time_that_was_told,
        a_gateway_dials_out_and_needs_no_inbound_port,
    }
    policies {
        a_policy_is_exported_changed_and_applied,
    }
    roles {
        an_auditor_sees_and_an_admin_changes_but_neither_makes_administrators,
    }
    receipts {
        a_revocation_is_confirmed_with_its_milliseconds,
        a_silent_gateway_is_named_with_the_end_of_its_sessions,
        what_is_not_on_disk_is_not_confirmed,
        a_group_is_revoked_in_one_decision,
        a_removed_gateway_is_nowhere_any_more,
    }
    service {
        a_service_comes_up_without_a_login,
        nobody_logs_in_as_a_service,
    }
    bounds {
        the_local_ceiling_holds_whatever_is_granted,
        the_allow_list_has_the_sites_resources_and_no_others,
    }
    doors {
        a_tunnel_without_its_channel_carries_nothing,
        roles_open_their_own_doors_only,
        each_role_at_a_gateways_listeners,
    }
    hosts {
        another_implementation_registers_by_the_files_alone,
        only_authorised_hosts_register_and_for_themselves_only,
        what_a_host_says_is_bounded,
        certificates_that_are_not_good_end_the_handshake,
        a_host_registers_at_the_interval_and_when_its_network_changes,
        any_other_mode_registers_nothing,
        a_host_outlasts_its_controller,
        a_host_says_what_was_refused,
        a_host_renews_its_certificate,
        a_gateway_is_reached_where_its_host_says_it_is,
    }
};

/// Cases that need PostgreSQL, which `cargo xtask e2e` starts; they are passed over where [`several::SERVER`] names none.
const SEVERAL: &[Case] = cases! {
    several {
        one_of_two_controllers_is_killed,
    }
};

/// Cases that need libfaketime; they are passed over where [`clock::LIBRARY`] names none.
const CLOCK: &[Case] = cases! {
    clock {
        a_gateway_whose_clock_is_hours_ahead_admits_nobody_and_says_why,
        a_client_whose_clock_is_hours_off_is_told_so,
    }
};

fn main() -> ExitCode {
    if let Err(error) = enter(probe_tun) {
        return unavailable(&error);
    }
    let trial = |(name, case): &Case| {
        let case = *case;
        Trial::test(*name, move || case().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let ignored = std::env::var_os(several::SERVER).is_none();
    let several = SEVERAL.iter().map(|case| trial(case).with_ignored_flag(ignored));
    let ignored = std::env::var_os(clock::LIBRARY).is_none();
    let clock = CLOCK.iter().map(|case| trial(case).with_ignored_flag(ignored));
    let trials = CASES.iter().map(trial).chain(several).chain(clock).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn probe_tun() -> std::io::Result<ringfort_io::Tun> {
    ringfort_io::Tun::open("rfprobe%d", 1, Duration::ZERO).map_err(std::io::Error::other)
}

/// Where namespaces are impossible nothing was tested. CI must not take that for success.
fn unavailable(error: &LabError) -> ExitCode {
    println!("{error}");
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        println!("test result: FAILED. The end-to-end tests need network namespaces, and CI must have them");
        return ExitCode::from(101);
    }
    ExitCode::from(error.exit_code())
}
