//! The one error type: what was attempted, what the kernel answered, and what helps.

use std::io;

/// Why an interface, an address, a route or a sysctl could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No netlink socket could be opened in the calling thread's network namespace.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused. `detail` is its own sentence (extended acknowledgement), where it gave one.
    #[error("cannot {attempt}: {source}{}{}", in_brackets(detail), remedy(source))]
    Refused {
        /// What was attempted, on which interface, in words that follow "cannot".
        attempt: String,
        /// The kernel's answer.
        source: io::Error,
        /// The kernel's explanation, if any.
        detail: Option<String>,
    },
    /// The kernel's answer lacked what was asked for or could not be parsed.
    #[error("cannot {attempt}: the kernel's answer {what}")]
    Answer {
        /// What was attempted.
        attempt: String,
        /// What is wrong with the answer, in words that follow "the kernel's answer".
        what: String,
    },
    /// An argument the kernel would not be asked about: a prefix of the wrong length, a name that is no interface name,
    /// a sysctl outside `net/`.
    #[error("cannot {attempt}: {what}")]
    Argument {
        /// What was attempted.
        attempt: String,
        /// What is wrong with the argument.
        what: &'static str,
    },
}

impl LinkError {
    /// The `errno` of the kernel's refusal; `None` where the kernel did not refuse.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(source) | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Answer { .. } | Self::Argument { .. } => None,
        }
    }

    /// Whether the interface, address or route is missing (`ENODEV`, `ESRCH`, `EADDRNOTAVAIL`, `ENOENT`).
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(errno::ENODEV | errno::ESRCH | errno::EADDRNOTAVAIL | errno::ENOENT))
    }

    /// Whether the interface, address or route is there already (`EEXIST`).
    pub fn is_already_there(&self) -> bool {
        self.errno() == Some(errno::EEXIST)
    }
}

fn in_brackets(detail: &Option<String>) -> String {
    detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(errno::EPERM | errno::EACCES) => {
            "; this needs CAP_NET_ADMIN in the network namespace: run as root or under a unit that grants it"
        }
        Some(errno::EEXIST) => "; it is there already: remove it, or choose another name or address",
        Some(errno::ENODEV) => "; there is no such interface in this network namespace",
        Some(errno::ESRCH | errno::EADDRNOTAVAIL) => "; there is nothing to remove",
        Some(errno::ENETUNREACH | errno::EHOSTUNREACH) => {
            "; the next hop is not on a network of that interface: add the address and set the interface up first"
        }
        Some(errno::EOPNOTSUPP) => {
            "; the kernel lacks this kind of interface: load its module (for example `modprobe veth`)"
        }
        Some(errno::EROFS) => "; /proc/sys is mounted read-only: containers need to be started as privileged ones",
        _ => "",
    }
}

/// `errno` values of Linux that this crate tells apart (asm-generic/errno.h; x86-64 and AArch64 share them).
pub(crate) mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ESRCH: i32 = 3;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EROFS: i32 = 30;
    pub(super) const EOPNOTSUPP: i32 = 95;
    pub(super) const EADDRNOTAVAIL: i32 = 99;
    pub(super) const ENETUNREACH: i32 = 101;
    pub(super) const EHOSTUNREACH: i32 = 113;
    pub(crate) const ENOBUFS: i32 = 105;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i32) -> LinkError {
        LinkError::Refused {
            attempt: "set interface wan0 (2) up".into(),
            source: io::Error::from_raw_os_error(code),
            detail: Some("because".into()),
        }
    }

    #[test]
    fn text_names_attempt_answer_and_remedy() {
        let text = refused(1).to_string();
        assert!(text.starts_with("cannot set interface wan0 (2) up: Operation not permitted"), "{text}");
        assert!(text.contains("(because); this needs CAP_NET_ADMIN"), "{text}");
    }

    #[test]
    fn kinds_follow_the_errno() {
        assert!(refused(19).is_not_found() && !refused(19).is_already_there());
        assert!(refused(17).is_already_there() && !refused(17).is_not_found());
        assert!(!refused(1).is_not_found());
    }
}
