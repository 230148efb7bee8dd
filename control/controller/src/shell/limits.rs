//! Every limit of the listener and of what is behind it, with its reason.

use std::time::Duration;

use super::rates::Rate;

/// Connections that have shown no certificate, and those whose handshake is under way. More are dropped as soon as they are
/// accepted: each costs a descriptor and some 40 KiB.
pub(crate) const UNAUTHENTICATED_MAX: usize = 1_024;
/// Connections of peers that have shown a certificate: twice the Gateways and administrators of a large organisation.
pub(crate) const AUTHENTICATED_MAX: usize = 8_192;
/// Connections of one key: a Gateway has two while its stream begins anew, a client or an administrator as many as commands
/// run side by side.
pub(crate) const OF_ONE_KEY_MAX: usize = 32;
/// How long a connection without a certificate may live: a login takes seconds, its password hash included.
pub(crate) const UNAUTHENTICATED_LIFE: Duration = Duration::from_secs(60);
/// Pause after a connection that could not be accepted: no descriptors are left, most likely.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections waiting to be accepted.
pub(crate) const BACKLOG: u32 = 1_024;

/// How long the head of an HTTP/1 request may take, and how long such a connection may idle.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(5);
/// Bytes of a request's header fields.
pub(crate) const HEADER_BYTES_MAX: usize = 32 << 10;
/// Fields of a request.
pub(crate) const HEADER_FIELDS_MAX: usize = 64;
/// How long the body of a request may take.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(10);
/// Bytes of a request's body, before and after authentication but for the administrator's.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of an administrator's request body: a resource with thousands of networks.
pub(crate) const ADMIN_BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of one gRPC message from a Gateway: 10,000 live sessions with names of 200 bytes.
pub(crate) const GRPC_BYTES_MAX: usize = 4 << 20;
/// Requests at a time on one HTTP/2 connection.
pub(crate) const STREAMS_MAX: u32 = 64;
/// How often a silent HTTP/2 peer is asked whether it is there, and how long it may take to answer.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(10);

/// How often is looked whether this Controller can decide, and how long its database may take to answer.
pub(crate) const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// As [`HEALTH_EVERY`].
pub(crate) const HEALTH_TIME: Duration = Duration::from_secs(2);
/// Requests for health and reflection of one address (IPv6: of one /64) that may be open: several probes of a host, or some of many
/// hosts behind one address.
pub(crate) const OPEN_OF_ONE_ADDRESS_MAX: usize = 16;
/// Bytes of one gRPC message of theirs: the name of a service, a file or a symbol.
pub(crate) const SMALL_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// How long all of joining may take after the handshake.
pub(crate) const JOIN_TIME: Duration = Duration::from_secs(10);

/// How long a nonce is good for (`docs/CONTROL.md`, "Tokens").
pub(crate) const NONCE_LIFE: Duration = Duration::from_secs(120);
/// Nonces given within that time. Beyond it the oldest go, and whoever had one asks again.
pub(crate) const NONCES_MAX: usize = 16_384;

/// How long a login at an identity provider may take: people look for their keys.
pub(crate) const OIDC_LIFE: Duration = Duration::from_secs(300);
/// Such logins under way, some 1 KiB each, and of one address. Of one address the oldest makes room; beyond the whole, the oldest of the
/// /24 or /48 that has the most.
pub(crate) const OIDC_BEGUN_MAX: usize = 4_096;
pub(crate) const OIDC_OF_ONE_ADDRESS_MAX: usize = 16;
/// Attempts under way at one identity provider, or at the organisation's own system of one-time passwords: one that does not answer for ten seconds keeps nobody from another one, nor from a
/// password of ours.
pub(crate) const AT_ONE_PROVIDER_MAX: usize = 16;

/// Requests of one device or host for tokens, certificates, registrations: logging in takes four, a client that does well asks a few
/// times an hour, a host once a second at most.
pub(crate) const DEVICE_RATE: Rate = Rate { burst: 60, every: Duration::from_secs(1) };
/// The same of all devices of one user: four devices that do nothing else.
pub(crate) const USER_RATE: Rate = Rate { burst: 240, every: Duration::from_millis(250) };
/// Devices, and users, whose requests are counted, some 100 bytes each; beyond it those who ask least are forgotten.
pub(crate) const RATES_MAX: usize = 16_384;
/// How often it is written down of one of them that they ask too often.
pub(crate) const LIMITED_WRITTEN_EVERY: Duration = Duration::from_secs(60);

/// Audit rows a second that somebody can cause who is nobody; more are counted only, so that nobody fills the disk.
pub(crate) const NOISE_ROWS_PER_SECOND: u32 = 20;
/// The same for holders of certificates, who can be found and revoked.
pub(crate) const KNOWN_ROWS_PER_SECOND: u32 = 200;

/// Pushes waiting for one Gateway. One that does not keep up is dropped and begins again.
pub(crate) const PUSHES_WAITING_MAX: usize = 1_024;
/// How long a Gateway may take for the first message of its stream.
pub(crate) const HELLO_TIME: Duration = Duration::from_secs(10);
/// How often a Gateway's configuration, and with it its lease, is renewed.
pub(crate) const CONFIGURATION_RENEWAL: Duration = Duration::from_secs(60);

/// Operations waiting for one Gateway, and those that it has not answered.
pub(crate) const OPERATIONS_WAITING_MAX: usize = 8;
/// How long a Gateway may take to answer an operation.
pub(crate) const OPERATION_TIME: Duration = Duration::from_secs(10);
/// Serials of which it is remembered how soon each Gateway confirmed them: 5 MiB with 1,000 Gateways.
pub(crate) const SERIALS_MEASURED_MAX: usize = 64;
/// What Gateways confirm is written to the database at most this often, for all of them together.
pub(crate) const CONFIRMATIONS_EVERY: Duration = Duration::from_millis(20);
/// Pause after confirmations that could not be written.
pub(crate) const CONFIRMATIONS_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for receipts in one request; who wants to wait longer asks again.
pub(crate) const RECEIPTS_TIME: Duration = Duration::from_secs(ringfort_proto::api::RECEIPTS_SECONDS_MAX);
/// Requests that wait for receipts at a time. Beyond it the answer is what is known at once.
pub(crate) const RECEIPTS_WAITING_MAX: usize = 64;
/// How often a waiting request looks at what other Controllers have written.
pub(crate) const RECEIPTS_LOOK: Duration = Duration::from_millis(200);

/// How long connections may take to end when the Controller stops.
pub(crate) const STOP_TIME: Duration = Duration::from_secs(3);
