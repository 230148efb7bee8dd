//! Ringfort end to end: real processes of the real program in a laboratory of namespaces, on both I/O backends.
//!
//! Every case builds a world of its own, so cases depend on no order and run side by side. None waits for a time to pass
//! where an event can be waited for. That a packet did *not* arrive is shown by one sent behind it which did: the way from
//! a tunnel to the site keeps their order.

#![forbid(unsafe_code)]

mod bypass;
mod commands;
mod configuration;
mod extensions;
mod fragments;
mod identity;
mod load;
mod malformed;
mod mtu;
mod restart;
mod return_path;
mod roaming;
mod rules;
mod sockets;
mod spoof;
mod workers;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use ringfort_netlab::{LabError, enter};

use world::Backend;

/// A case's name and what it does.
type Case<A> = (&'static str, fn(A) -> anyhow::Result<()>);

macro_rules! cases {
    ($($module:ident { $($case:ident,)+ })+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($case)), $module::$case),)+)+]
    };
}

/// Cases that packets are in; each runs on both backends.
const CASES: &[Case<Backend>] = cases! {
    rules {
        pages_pass_by_rule,
        pages_without_a_rule_are_refused_at_once,
        any_port_and_ping_pass,
        udp_and_ping_without_a_rule_are_refused,
        an_outer_ipv6_path_serves_too,
    }
    spoof {
        foreign_sources_reach_nothing,
        a_family_that_the_session_lacks_reaches_nothing,
    }
    fragments {
        large_datagrams_pass_both_ways,
        later_fragments_need_their_first,
        tiny_and_overlapping_fragments_are_dropped,
        fragments_of_a_refused_packet_are_refused,
    }
    extensions {
        options_before_udp_pass,
        options_hide_no_refused_port,
        routing_headers_are_dropped,
    }
    malformed {
        malformed_packets_are_counted_and_dropped,
        foreign_datagrams_hurt_nobody,
    }
    mtu {
        packets_up_to_the_mtu_leave_the_client,
        the_site_learns_the_mtu,
        streams_arrive_unchanged,
        a_narrow_path_carries_streams_too,
    }
    return_path {
        replies_pass_and_unsolicited_packets_do_not,
        icmp_errors_pass_for_a_live_flow_only,
        the_site_opens_flows_by_rule_only,
    }
    restart {
        a_killed_gateway_comes_back,
        a_gateway_waits_for_its_interface,
        a_killed_client_comes_back,
        a_stopped_gateway_leaves_nothing,
        a_stopped_client_leaves_nothing,
    }
    workers {
        each_worker_has_its_core_socket_and_queue,
        packets_on_a_foreign_queue_still_pass,
        one_worker_is_one_thread,
    }
    identity {
        a_known_device_has_a_session,
        foreign_certificates_get_nothing,
        an_unknown_device_gets_nothing,
        the_newest_session_of_a_device_replaces_the_older,
        a_client_refuses_another_gateway,
    }
    roaming {
        a_session_goes_on_from_another_address,
        a_machine_with_another_address_keeps_its_tunnel,
        a_record_sent_on_from_elsewhere_costs_nobody_much,
    }
    bypass {
        other_traffic_goes_its_own_way,
        traffic_for_the_tunnel_never_leaves_beside_it,
    }
    load {
        parallel_streams_meet_no_error,
    }
    commands {
        written_files_are_accepted,
        the_demo_passes,
    }
};

/// Cases that end before a packet flows.
const CASES_WITHOUT_PACKETS: &[Case<()>] = cases! {
    configuration {
        a_file_that_is_wrong_is_refused,
        credentials_that_are_wrong_are_refused,
        a_core_that_is_not_there_is_refused,
        a_route_to_the_gateway_itself_is_refused,
    }
};

fn main() -> ExitCode {
    if let Err(error) = enter(probe_tun) {
        return unavailable(&error);
    }
    let both = [Backend::IoUring, Backend::Epoll].into_iter();
    let packets = both
        .flat_map(|backend| CASES.iter().map(move |(name, case)| (backend, name, case)))
        .map(|(backend, name, case)| Trial::test(format!("{}::{name}", backend.name()), move || told(case(backend))));
    let others = CASES_WITHOUT_PACKETS.iter().map(|(name, case)| Trial::test(*name, move || told(case(()))));
    libtest_mimic::run(&Arguments::from_args(), packets.chain(others).collect()).exit_code()
}

fn told(result: anyhow::Result<()>) -> Result<(), Failed> {
    result.map_err(|error| format!("{error:#}").into())
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
