//! What goes into the machine and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ringfort_engine::gateway::Command;
use ringfort_policy::Bound;
use ringfort_rules::InnerAddresses;
use ringfort_token::{Entry, KeySet, Serial};
use ringfort_types::{BootInstant, SessionId, UnixSeconds};
use serde::{Deserialize, Serialize};

/// The time on both clocks. `boot` never runs backwards from one input to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For whatever passes in this process: deadlines, patience.
    pub boot: BootInstant,
    /// For what is signed: the Controller's clock as the caller estimates it, or its own until it knows better.
    pub wall: UnixSeconds,
}

/// What the machine starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Id of the organisation: the issuer whose tokens are believed.
    pub organisation: String,
    /// Id of the Gateway's site.
    pub site: String,
    /// The Gateway's own id.
    pub gateway: String,
    /// Keys that sign tokens, each with a verified certificate.
    pub signers: KeySet,
    /// `never_beyond` of the Gateway's own file: what no Controller can allow here. `None` sets no bound.
    pub ceiling: Option<Bound>,
    /// `no_new_sessions_after` of the Gateway's own file: how long after the Controller's newest configuration new sessions are admitted
    /// at most (X14). `None`, and whatever is longer than the lease, leaves it to that.
    pub no_new_sessions_after: Option<Duration>,
    /// Networks that only a host prefix opens, from `ringfort_policy::never_reachable`. The pools of the configuration, and
    /// the Gateway's address in each, are guarded besides.
    pub guarded: Vec<IpNet>,
    /// Ids of audit events are `<prefix>-<number>`: random, so that they differ from those of an earlier process.
    pub event_prefix: String,
}

/// Names one session channel for the life of the process. The shell makes them and uses none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

/// What a client says on its channel; nothing of it is believed yet.
#[derive(Clone, PartialEq, Eq)]
pub enum FromClient {
    /// The three things of A11.
    Present {
        /// Text of a claims token.
        claims: String,
        /// Text of an entitlement token of this site.
        entitlement: String,
        /// What the device says of itself. Nobody has signed it, and nothing is granted on it alone.
        device: BTreeMap<String, String>,
    },
    /// A tunnel, and the proof that the client is its other end (C15).
    Bind {
        /// First 16 bytes of the value exported under [`crate::EXPORTER_TUNNEL`].
        tunnel: [u8; 16],
        /// The value exported under [`crate::EXPORTER_TO_GATEWAY`] with the channel's session id as context.
        exported: [u8; 32],
    },
    /// A message that the shell could not read.
    Malformed {
        /// What was expected and what came.
        detail: String,
    },
}

impl fmt::Debug for FromClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens and exported values are nobody's business.
        f.write_str(match self {
            Self::Present { .. } => "Present",
            Self::Bind { .. } => "Bind",
            Self::Malformed { .. } => "Malformed",
        })
    }
}

/// What a client is told on its channel.
#[derive(Clone, PartialEq, Eq)]
pub enum ToClient {
    /// The first message.
    Welcome {
        /// Names the session; the context of exported values.
        session: [u8; 16],
        /// The time by which tokens are judged.
        time: UnixSeconds,
    },
    /// The tokens were believed.
    Accepted {
        /// Sequence number of the entitlement token in force.
        seq: u64,
        /// When the session ends unless something is renewed.
        ends_at: UnixSeconds,
    },
    /// The tunnel is bound; the client compares before it sends a packet.
    Bound {
        /// The value exported under [`crate::EXPORTER_TO_CLIENT`] with the channel's session id as context.
        exported: [u8; 32],
        /// The tunnel that is bound.
        tunnel: [u8; 16],
    },
    /// A packet of this session was denied.
    Denied {
        /// As people write it: `tcp/10.98.0.20:80`.
        destination: String,
        /// Name of the rule, or `default-deny`.
        rule: String,
        /// A sentence for people.
        reason: String,
    },
    /// A newer entitlement token is in force.
    Entitlement {
        /// Its text.
        token: String,
    },
    /// A renewal is asked for.
    RenewBy {
        /// When the session ends without it.
        time: UnixSeconds,
        /// What the administrator said.
        reason: String,
    },
    /// The Gateway is drained: the client is asked to go to another one of the site.
    Draining,
    /// The last message.
    Goodbye {
        /// A stable code.
        code: &'static str,
        /// The same for people.
        message: String,
        /// Id of the audit event.
        event: String,
    },
}

impl fmt::Debug for ToClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Welcome { .. } => f.write_str("Welcome"),
            Self::Accepted { seq, ends_at } => write!(f, "Accepted {{ seq: {seq}, ends_at: {ends_at} }}"),
            Self::Bound { .. } => f.write_str("Bound"),
            Self::Denied { destination, rule, .. } => write!(f, "Denied {{ {destination} by {rule} }}"),
            Self::Entitlement { .. } => f.write_str("Entitlement"),
            Self::RenewBy { time, .. } => write!(f, "RenewBy {{ {time} }}"),
            Self::Draining => f.write_str("Draining"),
            Self::Goodbye { code, event, .. } => write!(f, "Goodbye {{ {code}, {event} }}"),
        }
    }
}

/// What the shell is to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Tell every worker.
    Engine(Command),
    /// Tell a client.
    Send {
        /// On this channel.
        channel: ChannelId,
        /// This.
        message: ToClient,
    },
    /// Close a channel once what was sent on it is out. Nothing is heard from it any more.
    Close {
        /// Which.
        channel: ChannelId,
    },
    /// Write down that something was refused.
    Audit(AuditEvent),
    /// Tell the Controller what is in force at the workers.
    Applied(Applied),
    /// Write a part of [`Persisted`] to disk: it has changed ([`crate::Admission::persisted`]).
    Persist(Part),
    /// Begin the Controller's stream anew: it left a gap.
    Resubscribe,
}

/// Something that was refused, or ended without the client's will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// Its id, which the client was told as well.
    pub id: String,
    /// When.
    pub at: UnixSeconds,
    /// One of [`crate::codes`].
    pub code: &'static str,
    /// Distinguished name of the session, where there is one.
    pub session: Option<String>,
    /// What was expected, what came, what to do.
    pub detail: String,
}

/// What the workers have confirmed since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Revocations up to here.
    pub revocations: Option<Serial>,
    /// The configuration.
    pub configuration_seq: Option<u64>,
    /// Pushed entitlement tokens that came into force on a live session: its name, their sequence number.
    pub entitlements: Vec<(String, u64)>,
}

/// What survives a restart, so that a Gateway that starts without its Controller refuses what it refused before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persisted {
    /// Text of the newest configuration; it is verified again when it is restored.
    pub configuration: Option<String>,
    /// What was taken back.
    pub revocations: Revocations,
    /// What was seen.
    pub sequences: Sequences,
}

/// A deny list as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// Where it stands.
    pub serial: Serial,
    /// Its entries with their numbers.
    pub entries: Vec<(u64, Entry)>,
    /// Whether the Gateway itself was removed. It is told so by being refused: no list reaches a Gateway whose key is on it.
    #[serde(default)]
    pub removed: bool,
}

/// The highest sequence numbers seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequences {
    /// Of the configuration.
    pub configuration: u64,
    /// Of entitlement tokens, by the session's distinguished name.
    pub entitlements: BTreeMap<String, Sequence>,
}

/// The highest sequence number seen of one session's entitlement tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// The number.
    pub seq: u64,
    /// Seconds since 1970 from when on no token of the session from before can be good, so that the number may be forgotten.
    pub keep_until: u64,
}

/// A part of [`Persisted`] that is written by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// [`Persisted::configuration`].
    Configuration,
    /// [`Persisted::revocations`].
    Revocations,
    /// [`Persisted::sequences`].
    Sequences,
}

/// Why no new session is admitted. Live ones go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAdmitting {
    /// Nothing is known yet of what may be forwarded to.
    #[error("this gateway has no configuration yet; wait until it has heard from its controller")]
    NoConfiguration,
    /// The configuration's lease is over, or the time that the site leaves it without its Controller (X14).
    #[error(
        "this gateway has not heard from its controller for so long that it has admitted nobody new since {ended}; restore the connection"
    )]
    LeaseOver {
        /// Since when.
        ended: UnixSeconds,
    },
    /// The wall clock is behind the last Controller time that was kept.
    #[error("the gateway's clock is behind the last time its controller told it; set the clock")]
    ClockBehind,
    /// The wall clock is too far from the Controller's.
    #[error("the gateway's clock is {seconds} s from its controller's, more than is trusted; set the clock")]
    ClockSkew {
        /// How far.
        seconds: u64,
    },
    /// The Controller has removed this Gateway.
    #[error("this gateway was removed; connect to another one")]
    Removed,
    /// The Gateway is about to stop, or is kept free for maintenance.
    #[error("this gateway is draining: it is about to stop, or to be worked on; connect to another one")]
    Draining,
}

/// A live session, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView<'a> {
    /// Its distinguished name.
    pub dn: &'a str,
    /// The user's name, for people.
    pub user: &'a Arc<str>,
    /// The client id.
    pub device: &'a str,
    /// What the device said of itself.
    pub device_claims: &'a BTreeMap<String, String>,
    /// Its tunnel.
    pub tunnel: SessionId,
    /// Where its datagrams come from.
    pub outer: SocketAddr,
    /// Its addresses inside.
    pub inner: InnerAddresses,
    /// Sequence number of the entitlement token in force.
    pub seq: u64,
    /// When it ends unless something is renewed.
    pub ends_at: UnixSeconds,
    /// Whether its channel is open.
    pub has_channel: bool,
}
