//! The one command that helps where no tier works.
//!
//! Facts are gathered apart from the choice, so that the choice is tested without the machines it is for.

use std::{env, fs, os::unix::fs::PermissionsExt};

use nix::errno::Errno;

use crate::{Refusal, Step};

/// The device through which TUN interfaces are made.
const TUN_DEVICE: &str = "/dev/net/tun";

/// What this machine says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// AppArmor withholds capabilities in user namespaces from programs without a profile (Ubuntu since 23.10).
    pub(crate) apparmor_restricts: bool,
    /// User namespaces are for root only (Debian's and Arch's `unprivileged_userns_clone`).
    pub(crate) clone_restricted: bool,
    /// User namespaces are limited to none.
    pub(crate) userns_max_zero: bool,
    /// Permission bits of `/dev/net/tun`; `None` if there is no such file.
    pub(crate) tun_mode: Option<u32>,
    /// The TUN driver is in the kernel (listed in `/proc/misc`).
    pub(crate) tun_driver: bool,
    /// The process runs as root outside.
    pub(crate) root: bool,
    /// The command that was typed, quoted for a shell.
    pub(crate) command: String,
}

impl Facts {
    pub(crate) fn gather(root: bool) -> Self {
        let value = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let misc = value("/proc/misc").unwrap_or_default();
        Self {
            apparmor_restricts: value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1"),
            clone_restricted: value("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0"),
            userns_max_zero: value("/proc/sys/user/max_user_namespaces").as_deref() == Some("0"),
            tun_mode: fs::metadata(TUN_DEVICE).ok().map(|file| file.permissions().mode() & 0o777),
            tun_driver: misc.lines().any(|line| line.split_whitespace().nth(1) == Some("tun")),
            root,
            command: command_line(),
        }
    }
}

/// The command that removes what refused last: the later tier is the one that gets further with more rights.
pub(crate) fn remedy(refusals: &[Refusal], facts: &Facts) -> String {
    let device = refusals
        .iter()
        .find(|refusal| refusal.step == Step::Tun && refusal.source.raw_os_error() != Some(Errno::EPERM as i32));
    if device.is_some() {
        return match facts.tun_mode {
            None if facts.tun_driver => {
                format!("sudo sh -c 'mkdir -p /dev/net && mknod -m 0666 {TUN_DEVICE} c 10 200'")
            }
            // Every user may open the device (0666 is udev's default): making an interface takes CAP_NET_ADMIN anyway.
            Some(mode) if mode & 0o006 != 0o006 && !facts.root => format!("sudo chmod 0666 {TUN_DEVICE}"),
            _ => "sudo modprobe tun".into(),
        };
    }
    if refusals
        .iter()
        .any(|refusal| refusal.step == Step::Veth && refusal.source.raw_os_error() == Some(Errno::EOPNOTSUPP as i32))
    {
        return "sudo modprobe veth".into();
    }
    if facts.apparmor_restricts && !facts.root {
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".into();
    }
    if facts.clone_restricted && !facts.root {
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1".into();
    }
    if facts.userns_max_zero {
        return "sudo sysctl -w user.max_user_namespaces=15000".into();
    }
    if facts.root {
        // Root without the right to make namespaces sits in a container that withholds it.
        return "docker run --privileged --device /dev/net/tun IMAGE (this process is root in a container that withholds \
                CAP_SYS_ADMIN or CAP_NET_ADMIN)"
            .into();
    }
    format!("sudo {}", facts.command)
}

fn command_line() -> String {
    let program = env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let words = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program).chain(words).map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain =
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-=:,+@%".contains(&byte));
    if plain { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::Tier;

    fn refused(step: Step, errno: Errno) -> Vec<Refusal> {
        vec![Refusal { tier: Tier::Userns, step, source: io::Error::from_raw_os_error(errno as i32) }]
    }

    fn facts() -> Facts {
        Facts {
            apparmor_restricts: false,
            clone_restricted: false,
            userns_max_zero: false,
            tun_mode: Some(0o666),
            tun_driver: true,
            root: false,
            command: "demo --keep".into(),
        }
    }

    #[test]
    fn the_sysctl_that_forbids_is_named() {
        let apparmor = Facts { apparmor_restricts: true, ..facts() };
        let text = remedy(&refused(Step::Veth, Errno::EPERM), &apparmor);
        assert_eq!(text, "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
        let text = remedy(&refused(Step::Tun, Errno::EPERM), &apparmor);
        assert!(text.contains("apparmor"), "{text}");
        let clone = Facts { clone_restricted: true, ..facts() };
        assert!(remedy(&refused(Step::UserNamespace, Errno::EPERM), &clone).ends_with("unprivileged_userns_clone=1"));
        let zero = Facts { userns_max_zero: true, ..facts() };
        assert!(remedy(&refused(Step::UserNamespace, Errno::ENOSPC), &zero).contains("max_user_namespaces="));
    }

    #[test]
    fn the_tun_device_has_its_own_remedies() {
        let closed = Facts { tun_mode: Some(0o600), ..facts() };
        assert_eq!(remedy(&refused(Step::Tun, Errno::EACCES), &closed), "sudo chmod 0666 /dev/net/tun");
        let missing = Facts { tun_mode: None, ..facts() };
        assert!(remedy(&refused(Step::Tun, Errno::ENOENT), &missing).contains("mknod"));
        let driverless = Facts { tun_mode: None, tun_driver: false, ..facts() };
        assert_eq!(remedy(&refused(Step::Tun, Errno::ENOENT), &driverless), "sudo modprobe tun");
    }

    #[test]
    fn otherwise_root_helps_and_root_without_rights_is_in_a_container() {
        assert_eq!(remedy(&refused(Step::UserNamespace, Errno::EPERM), &facts()), "sudo demo --keep");
        let root = Facts { root: true, ..facts() };
        assert!(remedy(&refused(Step::NetworkNamespace, Errno::EPERM), &root).starts_with("docker run --privileged"));
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--keep"), "--keep");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
