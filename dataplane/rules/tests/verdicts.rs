//! The firewall's promises one by one: every reason to drop, the life of flows, the limits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ringfort_packet::flow::FlowKey;
use ringfort_packet::parse::{Fragment, Parsed, Transport};
use ringfort_rules::{
    Action, Direction, DropReason, FLOWS_PER_SESSION_MAX, FRAGMENT_LIFETIME, FRAGMENTED_PACKETS_MAX,
    FRAGMENTED_PACKETS_PER_SESSION_MAX, Firewall, FlowState, InnerAddresses, PortRange, Rule, RuleSet, Service,
    SessionRules, Traffic, Verdict,
};
use ringfort_types::{BootInstant, RuleId, SessionId, WorkerIndex};

use Direction::{ToClient, ToSite};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

/// The rule that allows hosts 10.98.0.0/24 and 2001:db8::/64 at port 80, and echo.
const WEB: RuleId = RuleId(1);
/// The rule that denies 10.98.0.66.
const NOT_THERE: RuleId = RuleId(2);
/// The rule by which 10.98.0.9 may open TCP to port 22 of the client, and echo.
const DOWN: RuleId = RuleId(3);

const PASS_WEB: Verdict = Verdict::Pass { rule: WEB };
const DENY: Verdict = Verdict::Deny { rule: None };

/// One session, one firewall, and a clock.
struct Bench {
    firewall: Firewall,
    session: SessionRules,
    now: BootInstant,
}

impl Bench {
    fn new() -> Self {
        Self::with(Firewall::new(7))
    }

    fn with(firewall: Firewall) -> Self {
        let mut bench = Self { firewall, session: session(1), now: BootInstant::from_nanos(1_000) };
        bench.session.install(policy(), BootInstant::FAR_FUTURE);
        bench
    }

    fn judge(&mut self, direction: Direction, packet: &Parsed) -> Verdict {
        self.firewall.judge(&self.session, direction, packet, packet.total_bytes.into(), self.now)
    }

    /// Judges a packet that is to be dropped, and sees to it that exactly its reason is counted.
    fn assert_drop(&mut self, direction: Direction, packet: &Parsed, reason: DropReason) {
        let before = *self.firewall.drops();
        assert_eq!(self.judge(direction, packet), Verdict::Drop(reason));
        for (counted, packets) in self.firewall.drops().iter() {
            assert_eq!(packets, before.get(counted) + u64::from(counted == reason), "{}", counted.name());
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn state(&self, key: FlowKey) -> Option<FlowState> {
        self.firewall.flow(self.session.session(), &key).map(|flow| flow.state())
    }
}

fn session(count: u64) -> SessionRules {
    let inner = InnerAddresses { ipv4: "100.64.0.2".parse().ok(), ipv6: "fd00::2".parse().ok() };
    SessionRules::new(SessionId::new(WorkerIndex(0), count), inner)
}

fn policy() -> Arc<RuleSet> {
    let port = |port| Service::Tcp(PortRange::single(port));
    let rule = |id, action, direction, networks: &[&str], services: &[Service]| Rule {
        id,
        action,
        direction,
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        services: services.to_vec(),
    };
    let web = [port(80), Service::Udp(PortRange::single(80)), Service::Echo, Service::Protocol(47)];
    let rules = [
        rule(NOT_THERE, Action::Deny, ToSite, &["10.98.0.66/32"], &[Service::Any]),
        rule(WEB, Action::Allow, ToSite, &["10.98.0.0/24", "2001:db8::/64"], &web),
        rule(DOWN, Action::Allow, ToClient, &["10.98.0.9/32"], &[port(22), Service::Echo]),
    ];
    Arc::new(RuleSet::compile(&rules, &[]).unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Client address and site address of one family.
fn ends(site: &str) -> (IpAddr, IpAddr) {
    let site = ip(site);
    (if site.is_ipv4() { ip("100.64.0.2") } else { ip("fd00::2") }, site)
}

fn up(site: &str, transport: Transport) -> Parsed {
    let (client, site) = ends(site);
    common::packet(client, site, transport)
}

fn down(site: &str, transport: Transport) -> Parsed {
    let (client, site) = ends(site);
    common::packet(site, client, transport)
}

fn tcp(source_port: u16, destination_port: u16, flags: u8) -> Transport {
    Transport::Tcp { source_port, destination_port, flags }
}

fn udp(source_port: u16, destination_port: u16) -> Transport {
    Transport::Udp { source_port, destination_port }
}

fn echo(identifier: u16, request: bool) -> Transport {
    Transport::IcmpEcho { identifier, request }
}

fn key(site: &str, protocol: u8, client_port: u16, site_port: u16) -> FlowKey {
    let (client, site) = ends(site);
    FlowKey::new(client, site, protocol, client_port, site_port).unwrap()
}

/// The error about the packet with key `quoted`.
fn error(quoted: FlowKey) -> Transport {
    Transport::IcmpError { kind: 3, code: 4, quoted }
}

fn fragment(packet: Parsed, identification: u32, offset_bytes: u16, more: bool) -> Parsed {
    let transport = if offset_bytes == 0 { packet.transport } else { Transport::LaterFragment };
    Parsed { fragment: Some(Fragment { identification, offset_bytes, more, protocol: 17 }), transport, ..packet }
}

// Covers: A13 refuse
#[test]
fn a_session_without_rules_passes_nothing() {
    let mut bench = Bench::new();
    bench.session = session(2);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", tcp(4_000, 80, SYN))), DENY);
    assert_eq!(bench.judge(ToSite, &up("2001:db8::1", echo(1, true))), DENY);
    bench.assert_drop(ToClient, &down("10.98.0.9", tcp(4_000, 22, SYN)), DropReason::NoFlow);
}

// Covers: A13 allow
// Covers: C4 allow
#[test]
fn tcp_udp_and_echo_pass_by_a_rule_and_their_answers_return() {
    for site in ["10.98.0.10", "2001:db8::1"] {
        let mut bench = Bench::new();
        let asked_and_answered = [
            (tcp(4_000, 80, SYN), tcp(80, 4_000, SYN_ACK)),
            (udp(4_000, 80), udp(80, 4_000)),
            (echo(5, true), echo(5, false)),
        ];
        for (asked, answered) in asked_and_answered {
            bench.assert_drop(ToClient, &down(site, answered), DropReason::NoFlow);
            assert_eq!(bench.judge(ToSite, &up(site, asked)), PASS_WEB);
            assert_eq!(bench.judge(ToClient, &down(site, answered)), PASS_WEB);
        }
    }
}

// Covers: A13 refuse
// Covers: C4 refuse
#[test]
fn a_denial_names_its_rule_and_leaves_no_flow() {
    let mut bench = Bench::new();
    assert_eq!(bench.judge(ToSite, &up("10.98.0.66", tcp(4_000, 80, SYN))), Verdict::Deny { rule: Some(NOT_THERE) });
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", tcp(4_000, 81, SYN))), DENY);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(4_000, 81))), DENY);
    assert_eq!(bench.judge(ToSite, &up("10.98.1.10", echo(1, true))), DENY);
    assert_eq!(bench.judge(ToSite, &up("2001:db8:1::1", tcp(4_000, 80, SYN))), DENY);
    assert_eq!(bench.firewall.flow_count(), 0);
}

// Covers: K3 allow
// Covers: K3 refuse
#[test]
fn each_session_is_judged_by_its_own_rules() {
    let mut bench = Bench::new();
    let page = up("10.98.0.10", tcp(4_000, 80, SYN));
    assert_eq!(bench.judge(ToSite, &page), PASS_WEB);
    let mut other = session(2);
    other.install(Arc::new(RuleSet::deny_all()), BootInstant::FAR_FUTURE);
    // The same addresses and ports in another session: the open flow is not its own.
    assert_eq!(bench.firewall.judge(&other, ToSite, &page, 100, bench.now), DENY);
    let answer = down("10.98.0.10", tcp(80, 4_000, SYN_ACK));
    assert_eq!(bench.firewall.judge(&other, ToClient, &answer, 100, bench.now), Verdict::Drop(DropReason::NoFlow));
    assert_eq!(bench.judge(ToClient, &answer), PASS_WEB);
}

// Covers: A13 refuse
#[test]
fn after_revoke_the_very_next_packet_in_either_direction_is_refused() {
    for direction in [ToSite, ToClient] {
        let mut bench = Bench::new();
        let (asked, answered) = (up("10.98.0.10", udp(4_000, 80)), down("10.98.0.10", udp(80, 4_000)));
        assert_eq!(bench.judge(ToSite, &asked), PASS_WEB);
        assert_eq!(bench.judge(ToClient, &answered), PASS_WEB);
        bench.session.revoke();
        match direction {
            ToSite => assert_eq!(bench.judge(ToSite, &asked), DENY),
            ToClient => bench.assert_drop(ToClient, &answered, DropReason::NoFlow),
        }
        assert_eq!(bench.firewall.flow_count(), 0);
    }
}

#[test]
fn after_revoke_fragments_and_errors_of_open_flows_are_refused() {
    let mut bench = Bench::new();
    let packet = up("10.98.0.10", udp(4_000, 80));
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 0, true)), PASS_WEB);
    bench.session.revoke();
    bench.assert_drop(ToSite, &fragment(packet, 9, 96, true), DropReason::FragmentWithoutFirst);
    let too_big = down("10.98.0.10", error(key("10.98.0.10", 17, 4_000, 80)));
    bench.assert_drop(ToClient, &too_big, DropReason::UnrelatedIcmpError);
}

#[test]
fn a_flow_that_new_rules_still_allow_goes_on_under_the_new_rule() {
    let mut bench = Bench::new();
    let answer = down("10.98.0.10", udp(80, 4_000));
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(4_000, 80))), PASS_WEB);
    let renewed = Rule {
        id: RuleId(77),
        action: Action::Allow,
        direction: ToSite,
        networks: vec!["10.98.0.10/32".parse().unwrap()],
        services: vec![Service::Any],
    };
    bench.session.install(Arc::new(RuleSet::compile(&[renewed], &[]).unwrap()), BootInstant::FAR_FUTURE);
    assert_eq!(bench.judge(ToClient, &answer), Verdict::Pass { rule: RuleId(77) });
    let flow = bench.firewall.flow(bench.session.session(), &key("10.98.0.10", 17, 4_000, 80)).unwrap();
    assert_eq!((flow.rule(), flow.opener()), (RuleId(77), ToSite));
    assert_eq!(flow.traffic(ToSite), Traffic { packets: 1, bytes: 120 });
    assert_eq!(flow.traffic(ToClient), Traffic { packets: 1, bytes: 120 });
}

#[test]
fn expired() {
    let mut bench = Bench::new();
    let not_after = bench.now + Duration::from_secs(60);
    bench.session.install(policy(), not_after);
    let (asked, answered) = (up("10.98.0.10", udp(4_000, 80)), down("10.98.0.10", udp(80, 4_000)));
    bench.now = BootInstant::from_nanos(not_after.as_nanos() - 1);
    assert_eq!(bench.judge(ToSite, &asked), PASS_WEB);
    bench.now = not_after;
    bench.assert_drop(ToSite, &asked, DropReason::Expired);
    bench.assert_drop(ToClient, &answered, DropReason::Expired);
}

#[test]
fn spoofed_source() {
    let mut bench = Bench::new();
    for source in ["100.64.0.3", "10.98.0.10"] {
        let packet = common::packet(ip(source), ip("10.98.0.10"), tcp(4_000, 80, SYN));
        bench.assert_drop(ToSite, &packet, DropReason::SpoofedSource);
    }
    let packet = common::packet(ip("fd00::3"), ip("2001:db8::1"), tcp(4_000, 80, SYN));
    bench.assert_drop(ToSite, &packet, DropReason::SpoofedSource);
    bench.session = SessionRules::new(SessionId::new(WorkerIndex(0), 9), InnerAddresses::default());
    bench.assert_drop(ToSite, &up("10.98.0.10", tcp(4_000, 80, SYN)), DropReason::SpoofedSource);
    bench.assert_drop(ToSite, &up("2001:db8::1", tcp(4_000, 80, SYN)), DropReason::SpoofedSource);
}

#[test]
fn foreign_destination() {
    let mut bench = Bench::new();
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(4_000, 80))), PASS_WEB);
    let packet = common::packet(ip("10.98.0.10"), ip("100.64.0.3"), udp(80, 4_000));
    bench.assert_drop(ToClient, &packet, DropReason::ForeignDestination);
}

#[test]
fn address_family_mismatch() {
    let packet = common::packet(ip("100.64.0.2"), ip("2001:db8::1"), udp(4_000, 80));
    Bench::new().assert_drop(ToSite, &packet, DropReason::AddressFamilyMismatch);
}

#[test]
fn fragment_without_first() {
    let mut bench = Bench::new();
    let allowed = up("10.98.0.10", udp(4_000, 80));
    bench.assert_drop(ToSite, &fragment(allowed, 9, 96, true), DropReason::FragmentWithoutFirst);
    // A refused first passes nothing behind it.
    let refused = up("10.98.0.10", udp(4_000, 81));
    assert_eq!(bench.judge(ToSite, &fragment(refused, 10, 0, true)), DENY);
    bench.assert_drop(ToSite, &fragment(refused, 10, 96, true), DropReason::FragmentWithoutFirst);
    // What calls itself a later fragment without being a fragment is none.
    bench.assert_drop(ToSite, &up("10.98.0.10", Transport::LaterFragment), DropReason::FragmentWithoutFirst);
    // A passed first passes neither another packet's fragments, nor other ends', nor the other direction's.
    assert_eq!(bench.judge(ToSite, &fragment(allowed, 11, 0, true)), PASS_WEB);
    bench.assert_drop(ToSite, &fragment(allowed, 12, 96, true), DropReason::FragmentWithoutFirst);
    let elsewhere = up("10.98.0.11", udp(4_000, 80));
    bench.assert_drop(ToSite, &fragment(elsewhere, 11, 96, true), DropReason::FragmentWithoutFirst);
    let back = down("10.98.0.10", udp(80, 4_000));
    bench.assert_drop(ToClient, &fragment(back, 11, 96, true), DropReason::FragmentWithoutFirst);
    assert_eq!(bench.judge(ToSite, &fragment(allowed, 11, 96, true)), PASS_WEB);
}

#[test]
fn later_fragments_pass_and_count_until_the_packet_is_whole() {
    let mut bench = Bench::new();
    let packet = up("10.98.0.10", udp(4_000, 80));
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 0, true)), PASS_WEB);
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 200, false)), PASS_WEB);
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 100, true)), PASS_WEB);
    let flow = bench.firewall.flow(bench.session.session(), &key("10.98.0.10", 17, 4_000, 80)).unwrap();
    assert_eq!(flow.traffic(ToSite), Traffic { packets: 3, bytes: 360 });
    bench.assert_drop(ToSite, &fragment(packet, 9, 100, true), DropReason::FragmentWithoutFirst);
    // The identification is free for another packet.
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 0, true)), PASS_WEB);
}

#[test]
fn later_fragments_pass_no_longer_than_the_lifetime() {
    let mut bench = Bench::new();
    let packet = up("10.98.0.10", udp(4_000, 80));
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 0, true)), PASS_WEB);
    bench.wait(FRAGMENT_LIFETIME.as_secs() - 1);
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 96, true)), PASS_WEB);
    bench.wait(1);
    bench.assert_drop(ToSite, &fragment(packet, 9, 96, true), DropReason::FragmentWithoutFirst);
}

#[test]
fn duplicate_first_fragment() {
    let mut bench = Bench::new();
    let packet = up("10.98.0.10", udp(4_000, 80));
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 0, true)), PASS_WEB);
    bench.assert_drop(ToSite, &fragment(packet, 9, 0, true), DropReason::DuplicateFirstFragment);
    // Rules that changed in between make the packet begin anew.
    bench.session.install(policy(), BootInstant::FAR_FUTURE);
    assert_eq!(bench.judge(ToSite, &fragment(packet, 9, 0, true)), PASS_WEB);
}

#[test]
fn fragment_hides_transport() {
    let mut first = fragment(up("2001:db8::1", udp(4_000, 80)), 9, 0, true);
    first.fragment = first.fragment.map(|fragment| Fragment { protocol: 60, ..fragment });
    Bench::new().assert_drop(ToSite, &first, DropReason::FragmentHidesTransport);
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let mut bench = Bench::new();
    let packet = fragment(up("2001:db8::1", udp(4_000, 80)), 9, 0, false);
    assert_eq!(bench.judge(ToSite, &packet), PASS_WEB);
    assert_eq!(bench.judge(ToSite, &packet), PASS_WEB);
    bench.assert_drop(ToSite, &fragment(packet, 9, 96, false), DropReason::FragmentWithoutFirst);
}

#[test]
fn session_fragment_limit_and_fragment_table_full() {
    let mut bench = Bench::new();
    let packet = up("10.98.0.10", udp(4_000, 80));
    let sessions = FRAGMENTED_PACKETS_MAX as u32 / FRAGMENTED_PACKETS_PER_SESSION_MAX;
    for count in 0..sessions {
        bench.session = session(count.into());
        bench.session.install(policy(), BootInstant::FAR_FUTURE);
        for identification in 0..FRAGMENTED_PACKETS_PER_SESSION_MAX {
            assert_eq!(bench.judge(ToSite, &fragment(packet, identification, 0, true)), PASS_WEB);
        }
        let reason =
            if count + 1 < sessions { DropReason::SessionFragmentLimit } else { DropReason::FragmentTableFull };
        bench.assert_drop(ToSite, &fragment(packet, 99_999, 0, true), reason);
        // What is awaited is still awaited.
        assert_eq!(bench.judge(ToSite, &fragment(packet, 3, 96, true)), PASS_WEB);
    }
    bench.wait(FRAGMENT_LIFETIME.as_secs());
    assert_eq!(bench.judge(ToSite, &fragment(packet, 99_999, 0, true)), PASS_WEB);
}

#[test]
fn unrelated_icmp_error() {
    let mut bench = Bench::new();
    let asked = up("10.98.0.10", udp(4_000, 80));
    let flow = key("10.98.0.10", 17, 4_000, 80);
    let too_big = down("10.98.0.1", error(flow));
    bench.assert_drop(ToClient, &too_big, DropReason::UnrelatedIcmpError);
    assert_eq!(bench.judge(ToSite, &asked), PASS_WEB);
    // From any router on the way, about this flow, to its sender.
    assert_eq!(bench.judge(ToClient, &too_big), PASS_WEB);
    // About another flow, about a packet that travelled the other way, and for somebody else.
    let other = down("10.98.0.1", error(key("10.98.0.10", 17, 4_001, 80)));
    bench.assert_drop(ToClient, &other, DropReason::UnrelatedIcmpError);
    let own_answer = down("10.98.0.1", error(flow.reversed()));
    bench.assert_drop(ToClient, &own_answer, DropReason::UnrelatedIcmpError);
    let elsewhere = common::packet(
        ip("10.98.0.1"),
        ip("100.64.0.2"),
        error(FlowKey::new(ip("100.64.0.3"), ip("10.98.0.10"), 17, 4_000, 80).unwrap()),
    );
    bench.assert_drop(ToClient, &elsewhere, DropReason::UnrelatedIcmpError);
    // To the site, the client may complain about answers, to the host that sent them.
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", error(flow.reversed()))), PASS_WEB);
    bench.assert_drop(ToSite, &up("10.98.0.11", error(flow.reversed())), DropReason::UnrelatedIcmpError);
    bench.assert_drop(ToSite, &up("10.98.0.10", error(flow)), DropReason::UnrelatedIcmpError);
    // Errors keep nothing open.
    bench.wait(29);
    assert_eq!(bench.judge(ToClient, &too_big), PASS_WEB);
    bench.wait(1);
    bench.assert_drop(ToClient, &too_big, DropReason::UnrelatedIcmpError);
}

#[test]
fn unsupported_icmp() {
    let mut bench = Bench::new();
    let timestamp = Transport::IcmpOther { kind: 13, code: 0 };
    bench.assert_drop(ToSite, &up("10.98.0.10", timestamp), DropReason::UnsupportedIcmp);
    bench.assert_drop(ToClient, &down("10.98.0.10", timestamp), DropReason::UnsupportedIcmp);
}

#[test]
fn unsolicited_echo_reply() {
    let mut bench = Bench::new();
    bench.assert_drop(ToSite, &up("10.98.0.10", echo(5, false)), DropReason::UnsolicitedEchoReply);
    bench.assert_drop(ToClient, &down("10.98.0.9", echo(5, false)), DropReason::NoFlow);
}

#[test]
fn no_flow() {
    let mut bench = Bench::new();
    bench.assert_drop(ToClient, &down("10.98.0.10", tcp(80, 4_000, SYN)), DropReason::NoFlow);
    // A down rule opens TCP with a SYN only.
    bench.assert_drop(ToClient, &down("10.98.0.9", tcp(4_000, 22, ACK)), DropReason::NoFlow);
    bench.assert_drop(ToClient, &down("10.98.0.9", tcp(4_000, 23, SYN)), DropReason::NoFlow);
    let pass_down = Verdict::Pass { rule: DOWN };
    assert_eq!(bench.judge(ToClient, &down("10.98.0.9", tcp(4_000, 22, SYN))), pass_down);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.9", tcp(22, 4_000, SYN_ACK))), pass_down);
    assert_eq!(bench.judge(ToClient, &down("10.98.0.9", tcp(4_000, 22, ACK))), pass_down);
}

#[test]
fn a_packet_that_asks_to_open_is_no_answer() {
    let mut bench = Bench::new();
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", tcp(4_000, 80, SYN))), PASS_WEB);
    bench.assert_drop(ToClient, &down("10.98.0.10", tcp(80, 4_000, SYN)), DropReason::NoFlow);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", echo(5, true))), PASS_WEB);
    bench.assert_drop(ToClient, &down("10.98.0.10", echo(5, true)), DropReason::NoFlow);
    // With a rule of its own it passes, and both sides' requests live together.
    assert_eq!(bench.judge(ToSite, &up("10.98.0.9", echo(6, true))), PASS_WEB);
    assert_eq!(bench.judge(ToClient, &down("10.98.0.9", echo(6, true))), Verdict::Pass { rule: DOWN });
    assert_eq!(bench.judge(ToSite, &up("10.98.0.9", echo(6, true))), PASS_WEB);
    assert_eq!(bench.judge(ToClient, &down("10.98.0.9", echo(6, false))), PASS_WEB);
}

#[test]
fn tcp_is_taken_up_in_mid_stream_to_the_site_only() {
    let mut bench = Bench::new();
    let answer = down("10.98.0.10", tcp(80, 4_000, ACK));
    bench.assert_drop(ToClient, &answer, DropReason::NoFlow);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", tcp(4_000, 80, ACK))), PASS_WEB);
    assert_eq!(bench.judge(ToClient, &answer), PASS_WEB);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", tcp(4_000, 81, ACK))), DENY);
}

#[test]
fn flow_table_full() {
    let mut bench = Bench::with(Firewall::with_flows_max(4, 7));
    for port in 0..4 {
        assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(port, 80))), PASS_WEB);
    }
    bench.assert_drop(ToSite, &up("10.98.0.10", udp(4, 80)), DropReason::FlowTableFull);
    // The open ones go on.
    for port in 0..4 {
        assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(port, 80))), PASS_WEB);
    }
    // The sweep of a packet that finds the table full makes room where flows are idle.
    bench.wait(30);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(4, 80))), PASS_WEB);
}

#[test]
fn session_flow_limit() {
    let mut bench = Bench::new();
    for n in 0..FLOWS_PER_SESSION_MAX {
        assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(n as u16, 80))), PASS_WEB);
    }
    bench.assert_drop(ToSite, &up("10.98.0.10", udp(9_999, 80)), DropReason::SessionFlowLimit);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(1, 80))), PASS_WEB);
    let mut other = session(2);
    other.install(policy(), BootInstant::FAR_FUTURE);
    let verdict = bench.firewall.judge(&other, ToSite, &up("10.98.0.10", udp(1, 80)), 100, bench.now);
    assert_eq!(verdict, PASS_WEB);
    // A flow that ends gives its place to the next.
    bench.wait(30);
    bench.firewall.sweep(bench.now, 1);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(9_999, 80))), PASS_WEB);
}

#[test]
fn a_closed_session_leaves_its_room_to_others() {
    let mut bench = Bench::with(Firewall::with_flows_max(4, 7));
    for port in 0..4 {
        assert_eq!(bench.judge(ToSite, &up("10.98.0.10", tcp(port, 80, SYN))), PASS_WEB);
    }
    bench.firewall.close_session(bench.session.session());
    bench.session = session(2);
    bench.session.install(policy(), BootInstant::FAR_FUTURE);
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", tcp(1, 80, SYN))), PASS_WEB);
    assert_eq!(bench.firewall.flow_count(), 1);
}

#[test]
fn a_sweep_visits_no_more_than_it_was_told() {
    let mut bench = Bench::new();
    for port in 0..100 {
        assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(port, 80))), PASS_WEB);
    }
    bench.wait(30);
    for left in [90, 80, 70] {
        bench.firewall.sweep(bench.now, 10);
        assert_eq!(bench.firewall.flow_count(), left);
    }
}

#[test]
fn idle_flows_end_after_the_time_of_their_state() {
    let tcp_up = |flags| (ToSite, tcp(4_000, 80, flags));
    let tcp_down = |flags| (ToClient, tcp(80, 4_000, flags));
    type Case<'a> = (FlowState, u8, &'a [(Direction, Transport)]);
    let cases: [Case<'_>; 10] = [
        (FlowState::UdpOneWay, 17, &[(ToSite, udp(4_000, 80)), (ToSite, udp(4_000, 80))]),
        (FlowState::UdpTwoWay, 17, &[(ToSite, udp(4_000, 80)), (ToClient, udp(80, 4_000))]),
        (FlowState::TcpOpening, 6, &[tcp_up(SYN), tcp_down(SYN_ACK)]),
        (FlowState::TcpOpening, 6, &[tcp_up(SYN), tcp_down(SYN_ACK), tcp_up(SYN)]),
        (FlowState::TcpEstablished, 6, &[tcp_up(SYN), tcp_down(SYN_ACK), tcp_up(ACK)]),
        (FlowState::TcpEstablished, 6, &[tcp_up(SYN), tcp_down(SYN_ACK), tcp_up(ACK), tcp_down(FIN_ACK)]),
        (FlowState::TcpClosing, 6, &[tcp_up(SYN), tcp_down(SYN_ACK), tcp_up(FIN_ACK), tcp_down(FIN_ACK), tcp_up(ACK)]),
        (FlowState::TcpClosing, 6, &[tcp_up(SYN), tcp_down(RST)]),
        (FlowState::Echo, 1, &[(ToSite, echo(80, true)), (ToClient, echo(80, false))]),
        (FlowState::Other, 47, &[(ToSite, Transport::Other { protocol: 47 })]),
    ];
    for (state, protocol, packets) in cases {
        let (client_port, site_port) = match protocol {
            1 => (80, 80),
            47 => (0, 0),
            _ => (4_000, 80),
        };
        let key = key("10.98.0.10", protocol, client_port, site_port);
        let mut bench = Bench::new();
        for (direction, transport) in packets {
            let packet = match direction {
                ToSite => up("10.98.0.10", *transport),
                ToClient => down("10.98.0.10", *transport),
            };
            assert_eq!(bench.judge(*direction, &packet), PASS_WEB);
        }
        assert_eq!(bench.state(key), Some(state));
        let about = down("10.98.0.1", error(key));
        bench.wait(state.idle_timeout().as_secs() - 1);
        assert_eq!(bench.judge(ToClient, &about), PASS_WEB, "{state:?}");
        bench.wait(1);
        bench.assert_drop(ToClient, &about, DropReason::UnrelatedIcmpError);
        assert_eq!(bench.firewall.flow_count(), 0);
    }
}

#[test]
fn a_syn_on_a_closing_flow_opens_it_anew() {
    let mut bench = Bench::new();
    let flow = key("10.98.0.10", 6, 4_000, 80);
    for (direction, flags, state) in [
        (ToSite, SYN, FlowState::TcpOpening),
        (ToClient, RST, FlowState::TcpClosing),
        (ToSite, SYN, FlowState::TcpOpening),
        (ToSite, ACK, FlowState::TcpOpening),
        (ToClient, SYN_ACK, FlowState::TcpOpening),
        (ToSite, ACK, FlowState::TcpEstablished),
    ] {
        let packet = match direction {
            ToSite => up("10.98.0.10", tcp(4_000, 80, flags)),
            ToClient => down("10.98.0.10", tcp(80, 4_000, flags)),
        };
        assert_eq!(bench.judge(direction, &packet), PASS_WEB);
        assert_eq!(bench.state(flow), Some(state));
    }
}

#[test]
fn the_same_ports_under_ipv4_and_ipv6_are_two_flows() {
    let mut bench = Bench::new();
    assert_eq!(bench.judge(ToSite, &up("10.98.0.10", udp(4_000, 80))), PASS_WEB);
    bench.assert_drop(ToClient, &down("2001:db8::1", udp(80, 4_000)), DropReason::NoFlow);
    let mapped = Ipv4Addr::new(10, 98, 0, 10).to_ipv6_mapped().into();
    let packet = common::packet(mapped, ip("fd00::2"), udp(80, 4_000));
    bench.assert_drop(ToClient, &packet, DropReason::NoFlow);
}
