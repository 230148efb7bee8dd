//! The installed units and kernel settings: what must not be lost when somebody edits them.

#![allow(clippy::expect_used, reason = "helpers of tests stop at the first surprise")]

use std::collections::BTreeMap;
use std::path::Path;

/// What the Controller's unit says, likewise.
const CONTROLLER_ESSENTIALS: [(&str, &str); 12] = [
    ("AmbientCapabilities", "CAP_NET_BIND_SERVICE"),
    ("CapabilityBoundingSet", "CAP_NET_BIND_SERVICE"),
    ("DevicePolicy", "closed"),
    ("ExecStart", "/usr/bin/ringfort controller --state /var/lib/ringfort/controller"),
    ("NoNewPrivileges", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectSystem", "strict"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
    ("StateDirectoryMode", "0700"),
    ("SystemCallFilter", "@system-service ~@privileged @keyring @setuid @chown"),
    ("Type", "notify"),
    ("User", "ringfort"),
];

/// What the Gateway's unit says, in the words that matter. An empty value means that the directive must be there.
const ESSENTIALS: [(&str, &str); 17] = [
    ("AmbientCapabilities", "CAP_NET_ADMIN CAP_NET_BIND_SERVICE"),
    ("CapabilityBoundingSet", "CAP_NET_ADMIN CAP_NET_BIND_SERVICE"),
    ("DeviceAllow", "/dev/net/tun rw"),
    ("DevicePolicy", "closed"),
    ("ExecStart", "/usr/bin/ringfort gateway --state /var/lib/ringfort/gateway --config /etc/ringfort/gateway.toml"),
    ("LimitMEMLOCK", ""),
    ("MemoryDenyWriteExecute", "yes"),
    ("NoNewPrivileges", "yes"),
    ("ProtectHome", "yes"),
    ("ProtectSystem", "strict"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_NETLINK AF_UNIX"),
    ("RestrictNamespaces", "yes"),
    ("RuntimeDirectory", "ringfort"),
    ("StateDirectory", "ringfort"),
    ("SystemCallFilter", "@system-service ~@privileged @keyring @setuid @chown"),
    ("Type", "notify"),
    ("User", "ringfort"),
];

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the repository");
    std::fs::read_to_string(root.join("systemd").join(path)).expect(path)
}

/// `KEY=VALUE` lines; values of a repeated key are joined. Fails on a line that is neither that nor a comment, a section
/// or empty, and on a directive without a comment right above it.
fn directives(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut directives: BTreeMap<String, String> = BTreeMap::new();
    let mut above = "";
    for line in text.lines() {
        if !(line.is_empty() || line.starts_with('#') || line.starts_with('[')) {
            let (key, value) = line.split_once('=').ok_or(format!("{line:?} is no directive"))?;
            if !above.starts_with('#') {
                return Err(format!("{key} has no comment above it"));
            }
            let joined = directives.entry(key.trim().to_owned()).or_default();
            *joined = format!("{joined} {}", value.trim()).trim().to_owned();
        }
        above = line;
    }
    Ok(directives)
}

fn judge_unit(text: &str, essentials: &[(&str, &str)]) -> Result<(), String> {
    let directives = directives(text)?;
    for (key, expected) in essentials {
        let (key, expected) = (*key, *expected);
        let value = directives.get(key).ok_or(format!("{key} is missing"))?;
        if !expected.is_empty() && value != expected {
            return Err(format!("{key} is {value:?}"));
        }
    }
    Ok(())
}

#[test]
fn the_gateways_unit_keeps_its_hardening() {
    assert_eq!(judge_unit(&file("ringfort-gateway.service"), &ESSENTIALS), Ok(()));
}

#[test]
fn the_controllers_unit_keeps_its_hardening() {
    assert_eq!(judge_unit(&file("ringfort-controller.service"), &CONTROLLER_ESSENTIALS), Ok(()));
}

#[test]
fn a_softened_unit_is_noticed() {
    let unit = file("ringfort-gateway.service");
    for (from, to, expected) in [
        (
            "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE",
            "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_SYS_ADMIN",
            "CapabilityBoundingSet",
        ),
        ("NoNewPrivileges=yes", "NoNewPrivileges=no", "NoNewPrivileges"),
        ("DeviceAllow=/dev/net/tun rw\n", "", "DeviceAllow is missing"),
        ("# No homes.\n", "", "ProtectHome has no comment"),
        ("Type=notify", "Type", "no directive"),
    ] {
        let changed = unit.replace(from, to);
        assert_ne!(changed, unit, "{from}");
        let error = judge_unit(&changed, &ESSENTIALS).expect_err(from);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn kernel_settings_forward_both_families_and_allow_large_buffers() {
    let text = file("sysctl.d/90-ringfort.conf");
    let settings: BTreeMap<&str, &str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let expected = [
        ("net.core.rmem_max", "8388608"),
        ("net.core.wmem_max", "8388608"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
    ];
    assert_eq!(settings, BTreeMap::from(expected));
}
