//! Why the laboratory could not be entered or built.

use std::{fmt, io};

use ringfort_link::LinkError;

use crate::Tier;

/// Exit code of a command that needs namespaces where none can be had.
const EXIT_UNAVAILABLE: u8 = 3;

/// Why the laboratory could not be entered, built or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// Neither tier works on this machine. The text ends with the one command that helps.
    #[error("network namespaces are not available here:\n{}\nThis helps:\n    {remedy}", lines(refusals))]
    Unavailable {
        /// What refused, in the order tried.
        refusals: Vec<Refusal>,
        /// One command to type.
        remedy: String,
    },
    /// `enter` was called when the process already had threads: the kernel lets only a process of one thread into a new
    /// user namespace.
    #[error("the laboratory must be entered before any thread is started, but the process has {0} threads")]
    Threads(usize),
    /// The environment variable that forces a tier has a value that names none.
    #[error("{variable} is {value:?}; it may be \"userns\" or \"root\"", variable = crate::TIER_VARIABLE)]
    UnknownTier {
        /// The value found.
        value: String,
    },
    /// What the specification asks for cannot be built.
    #[error("the laboratory cannot be built: {0}")]
    Spec(String),
    /// No client of that name is in the laboratory.
    #[error("there is no client {0:?} in the laboratory")]
    UnknownClient(String),
    /// The laboratory has not that many sites.
    #[error("there is no site {number} in the laboratory: it has {sites}, numbered from 0 (see `Spec::with_sites`)")]
    UnknownSite {
        /// The number asked for.
        number: usize,
        /// How many sites there are.
        sites: usize,
    },
    /// The laboratory was built without a controller.
    #[error("there is no controller in the laboratory (see `Spec::with_controller`)")]
    NoController,
    /// An interface, an address, a route or a sysctl was refused.
    #[error("in namespace {namespace}: {source}")]
    Link {
        /// The namespace.
        namespace: String,
        /// What was refused.
        source: LinkError,
    },
    /// A system call failed.
    #[error("cannot {attempt}: {source}")]
    System {
        /// What was attempted, in words that follow "cannot".
        attempt: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The interfaces of a namespace did not come up in time.
    #[error("in namespace {namespace}: interface {interface} carried no packets within {waited_ms} ms")]
    NotOperational {
        /// The namespace.
        namespace: String,
        /// The interface.
        interface: String,
        /// How long it was waited for, in milliseconds.
        waited_ms: u128,
    },
}

impl LabError {
    /// The exit code for a command that fails with this error: 3 where namespaces cannot be had, else 1.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Unavailable { .. }) { EXIT_UNAVAILABLE } else { 1 }
    }

    pub(crate) fn system(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::System { attempt, source }
    }
}

/// One tier's failure: the first step the kernel refused.
#[derive(Debug)]
pub struct Refusal {
    /// The tier tried.
    pub tier: Tier,
    /// The step that failed.
    pub step: Step,
    /// The kernel's answer.
    pub source: io::Error,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier {}: cannot {}: {}", self.tier, self.step.words(), self.source)
    }
}

/// What a tier needs, in the order tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `unshare(CLONE_NEWUSER | CLONE_NEWNET)`.
    UserNamespace,
    /// Writing `uid_map` and `gid_map`.
    IdMaps,
    /// `unshare(CLONE_NEWNET)`.
    NetworkNamespace,
    /// Making a veth pair.
    Veth,
    /// Making a TUN device.
    Tun,
}

impl Step {
    /// All steps with the word by which a probing child names them to its parent.
    const WORDS: [(Self, &'static str, &'static str); 5] = [
        (Self::UserNamespace, "user-namespace", "make a user namespace"),
        (Self::IdMaps, "id-maps", "map the user's id to root in the user namespace"),
        (Self::NetworkNamespace, "network-namespace", "make a network namespace"),
        (Self::Veth, "veth", "make a veth pair in the network namespace"),
        (Self::Tun, "tun", "make a TUN device in the network namespace"),
    ];

    pub(crate) fn token(self) -> &'static str {
        Self::WORDS.iter().find(|(step, ..)| *step == self).map_or("", |(_, token, _)| token)
    }

    pub(crate) fn from_token(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, token, _)| *token == text).map(|(step, ..)| *step)
    }

    fn words(self) -> &'static str {
        Self::WORDS.iter().find(|(step, ..)| *step == self).map_or("", |(.., words)| words)
    }
}

fn lines(refusals: &[Refusal]) -> String {
    refusals.iter().map(|refusal| format!("    {refusal}")).collect::<Vec<_>>().join("\n")
}
