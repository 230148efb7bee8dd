//! Written policies: what they allow, how denials are named, and what is refused with which words.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::IpAddr;

use ipnet::IpNet;
use ringfort_packet::flow::FlowKey;
use ringfort_policy::{
    Catalogue, DEFAULT_DENY, NAMES_MAX, NETWORKS_PER_RULE_MAX, Network, PolicyError, RuleName, RuleSpec,
    SERVICES_PER_RULE_MAX, ServiceSpec, compile, never_reachable,
};
use ringfort_rules::{CompileError, Decision, Direction, PortRange, RULES_MAX, RuleSet, Service};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    rules: Vec<RuleSpec>,
}

fn read(text: &str) -> Result<Vec<RuleSpec>, String> {
    toml::from_str::<File>(text).map(|file| file.rules).map_err(|error| error.to_string())
}

fn judge(rules: &RuleSet, direction: Direction, site: &str, protocol: u8, port: u16) -> Decision {
    let site: IpAddr = site.parse().unwrap();
    let client: IpAddr = if site.is_ipv4() { "100.64.0.2" } else { "fd00::2" }.parse().unwrap();
    let (source, destination) = match direction {
        Direction::ToSite => (client, site),
        Direction::ToClient => (site, client),
    };
    rules.judge(direction, &FlowKey::new(source, destination, protocol, 40_000, port).unwrap())
}

const POLICY: &str = r#"
[[rules]]
name = "no-printer"
action = "deny"
to = ["10.98.0.9"]
services = ["any"]

[[rules]]
name = "wiki"
action = "allow"
to = ["10.98.0.0/28", "2001:db8:98::/64"]
services = ["tcp/80", "udp/5000-5100", "icmp-echo"]

[[rules]]
name = "remote-help"
action = "allow"
direction = "to-client"
from = ["10.98.0.9"]
services = ["tcp/3389"]
"#;

// Covers: C5 allow
// Covers: C5 refuse
#[test]
fn a_written_policy_allows_what_it_says_and_denials_have_names() {
    let mut catalogue = Catalogue::default();
    let rules = compile(&read(POLICY).unwrap(), &mut catalogue, &never_reachable(&[], &[])).unwrap();
    let named = |direction, site, protocol, port| match judge(&rules, direction, site, protocol, port) {
        Decision::Allow(rule) => format!("allow {}", catalogue.name(rule).unwrap()),
        Decision::Deny(rule) => format!("deny {}", catalogue.denied_by(rule).unwrap()),
    };
    assert_eq!(named(Direction::ToSite, "10.98.0.10", 6, 80), "allow wiki");
    assert_eq!(named(Direction::ToSite, "2001:db8:98::1", 17, 5_100), "allow wiki");
    assert_eq!(named(Direction::ToSite, "2001:db8:98::1", 58, 1), "allow wiki");
    assert_eq!(named(Direction::ToSite, "10.98.0.9", 6, 80), "deny no-printer");
    assert_eq!(named(Direction::ToSite, "10.98.0.10", 6, 81), "deny default-deny");
    assert_eq!(named(Direction::ToSite, "10.98.0.10", 17, 5_101), "deny default-deny");
    assert_eq!(named(Direction::ToClient, "10.98.0.9", 6, 3_389), "allow remote-help");
    assert_eq!(named(Direction::ToClient, "10.98.0.10", 6, 3_389), "deny default-deny");
    assert_eq!(named(Direction::ToSite, "10.98.0.9", 6, 3_389), "deny no-printer");
}

#[test]
fn a_policy_for_everything_reaches_nothing_guarded() {
    let own: IpAddr = "10.98.0.1".parse().unwrap();
    let pool: IpNet = "100.64.0.0/16".parse().unwrap();
    let guarded = never_reachable(&[own, "2001:db8:98::1".parse().unwrap()], &[pool, "fd00:64::/64".parse().unwrap()]);
    let everything = r#"
        rules = [
            { name = "gateway-ssh", action = "allow", to = ["10.98.0.1"], services = ["tcp/22"] },
            { name = "all", action = "allow", to = ["0.0.0.0/0", "::/0"], services = ["any"] },
        ]"#;
    let mut catalogue = Catalogue::default();
    let rules = compile(&read(everything).unwrap(), &mut catalogue, &guarded).unwrap();
    for site in [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "224.0.0.251",
        "255.255.255.255",
        "10.98.0.1",
        "100.64.7.7",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8:98::1",
        "fd00:64::9",
    ] {
        assert_eq!(judge(&rules, Direction::ToSite, site, 6, 80), Decision::Deny(None), "{site}");
    }
    let id_of = |name: &str| catalogue.clone().id(&name.parse().unwrap()).unwrap();
    for site in ["10.98.0.2", "8.8.8.8", "100.65.0.1", "2001:db8:98::2", "fd00:ec2::255"] {
        assert_eq!(judge(&rules, Direction::ToSite, site, 6, 80), Decision::Allow(id_of("all")), "{site}");
    }
    assert_eq!(judge(&rules, Direction::ToSite, "10.98.0.1", 6, 22), Decision::Allow(id_of("gateway-ssh")));
}

#[test]
fn services_read_as_written() {
    let range = |first, last| PortRange::new(first, last).unwrap();
    for (text, service) in [
        ("any", Service::Any),
        ("tcp", Service::Tcp(PortRange::ALL)),
        ("udp", Service::Udp(PortRange::ALL)),
        ("tcp/80", Service::Tcp(range(80, 80))),
        ("tcp/0-65535", Service::Tcp(PortRange::ALL)),
        ("udp/5000-5100", Service::Udp(range(5_000, 5_100))),
        ("icmp-echo", Service::Echo),
        ("protocol/47", Service::Protocol(47)),
    ] {
        assert_eq!(text.parse::<ServiceSpec>().unwrap().service(), service, "{text}");
    }
    for text in [
        "",
        "tcp/",
        "tcp/-80",
        "tcp/80-",
        "tcp/+80",
        "tcp/65536",
        "tcp/1-2-3",
        "TCP/80",
        " tcp/80",
        "tcp/80 ",
        "80/tcp",
        "icmp",
        "sctp/5",
        "protocol/256",
        "protocol/",
        "tcp/٨٠",
    ] {
        let error = text.parse::<ServiceSpec>().unwrap_err().to_string();
        assert!(error.contains("tcp/80") && error.contains(&format!("{text:?}")), "{error}");
    }
    let error = "tcp/90-80".parse::<ServiceSpec>().unwrap_err().to_string();
    assert!(error.contains("swap"), "{error}");
}

#[test]
fn networks_read_as_written() {
    for (text, net) in [
        ("10.98.0.10", "10.98.0.10/32"),
        ("10.98.0.0/24", "10.98.0.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("::/0", "::/0"),
    ] {
        assert_eq!(text.parse::<Network>().unwrap().net(), net.parse::<IpNet>().unwrap());
    }
    for text in ["", "10.98.0", "10.98.0.10/33", "10.98.0.10/", "wiki.example", "2001:db8::/129", "010.98.0.10"] {
        let error = text.parse::<Network>().unwrap_err().to_string();
        assert!(error.contains("10.98.0.0/24") && error.contains(&format!("{text:?}")), "{error}");
    }
    let error = "10.98.0.10/24".parse::<Network>().unwrap_err().to_string();
    assert!(error.contains("\"10.98.0.0/24\"") && error.contains("\"10.98.0.10\""), "{error}");
    let error = "::ffff:10.98.0.10".parse::<Network>().unwrap_err().to_string();
    assert!(error.contains("IPv4 form"), "{error}");
}

#[test]
fn a_mistake_refuses_the_policy_and_says_what_to_do() {
    let with = |fields: &str| format!("[[rules]]\nname = \"wiki\"\n{fields}");
    let good = "action = \"allow\"\nto = [\"10.98.0.10\"]\nservices = [\"tcp/80\"]\n";
    assert!(read(&with(good)).is_ok());
    for (fields, said) in [
        (good.replace("allow", "alow"), "expected `allow` or `deny`"),
        (good.replace("action = \"allow\"\n", ""), "missing field `action`"),
        (good.replace("services = [\"tcp/80\"]\n", ""), "missing field `services`"),
        (good.replace("[\"tcp/80\"]", "[]"), "expected 1 to 64 entries in `services`, found 0"),
        (good.replace("to = [\"10.98.0.10\"]\n", ""), "expected 1 to 1024 entries in `to`, found 0"),
        (good.replace("to =", "from ="), "rename the field or set the direction"),
        (format!("{good}direction = \"to-client\"\n"), "rename the field or set the direction"),
        (format!("{good}direction = \"up\"\n"), "expected `to-site` or `to-client`"),
        (format!("{good}port = 80\n"), "unknown field `port`"),
        (good.replace("10.98.0.10", "wiki"), "host names are not resolved"),
    ] {
        let error = read(&with(&fields)).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    for name in ["", "two words", "<script>", "ünder", &"x".repeat(65)] {
        let error = read(&with(good).replace("wiki", name)).unwrap_err();
        assert!(error.contains("expected a rule name of 1 to 64"), "{error}");
    }
    let error = read(&with(good).replace("wiki", DEFAULT_DENY)).unwrap_err();
    assert!(error.contains("no rule matched"), "{error}");
}

#[test]
fn errors_show_no_more_than_a_little_of_what_came() {
    let error = "\u{1b}[2J".repeat(10_000).parse::<Network>().unwrap_err().to_string();
    assert!(error.len() < 1_000 && !error.contains('\u{1b}'), "{error}");
}

fn rule(name: &str, networks: usize, services: usize) -> Result<RuleSpec, ringfort_policy::SpecError> {
    RuleSpec::new(
        name.parse().unwrap(),
        ringfort_rules::Action::Allow,
        Direction::ToSite,
        (0..networks).map(|n| format!("10.0.{}.{}", n >> 8, n & 255).parse().unwrap()).collect(),
        (0..services).map(|n| format!("tcp/{n}").parse().unwrap()).collect(),
    )
}

#[test]
fn a_rule_has_limits() {
    assert!(rule("a", NETWORKS_PER_RULE_MAX, SERVICES_PER_RULE_MAX).is_ok());
    let error = rule("a", NETWORKS_PER_RULE_MAX + 1, 1).unwrap_err().to_string();
    assert!(error.contains("1025") && error.contains("1024"), "{error}");
    let error = rule("a", 1, SERVICES_PER_RULE_MAX + 1).unwrap_err().to_string();
    assert!(error.contains("65") && error.contains("64"), "{error}");
}

#[test]
fn a_policy_has_limits() {
    let rules: Vec<RuleSpec> = (0..=RULES_MAX).map(|n| rule(&format!("r{n}"), 1, 1).unwrap()).collect();
    let mut catalogue = Catalogue::default();
    let error = compile(&rules, &mut catalogue, &[]).unwrap_err();
    assert_eq!(error, PolicyError::TooLarge(CompileError::TooManyRules { count: RULES_MAX + 1 }));
    assert!(compile(&rules[..RULES_MAX], &mut catalogue, &[]).is_ok());
    let twice = [rule("wiki", 1, 1).unwrap(), rule("wiki", 2, 1).unwrap()];
    let error = compile(&twice, &mut catalogue, &[]).unwrap_err();
    assert_eq!(error, PolicyError::DuplicateName { name: "wiki".to_owned() });
}

#[test]
fn a_name_keeps_its_id_and_a_full_catalogue_refuses_new_ones() {
    let mut catalogue = Catalogue::default();
    let name = |n: usize| format!("r{n}").parse::<RuleName>().unwrap();
    let ids: Vec<_> = (0..NAMES_MAX).map(|n| catalogue.id(&name(n)).unwrap()).collect();
    assert_eq!(catalogue.id(&name(NAMES_MAX)), Err(PolicyError::CatalogueFull));
    assert_eq!(catalogue.id(&name(17)), Ok(ids[17]));
    assert_eq!(catalogue.name(ids[17]), Some(&name(17)));
    assert_eq!(catalogue.denied_by(None), Some("default-deny"));
    assert_eq!(catalogue.denied_by(Some(ringfort_types::RuleId(NAMES_MAX as u32))), None);
}
