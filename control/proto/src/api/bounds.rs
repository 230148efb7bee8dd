//! What values may be, for whoever checks them and for whoever describes them.

/// Names of users, groups, sites and Gateways: 1 to [`NAME_BYTES_MAX`] of these characters.
pub const NAME: &str = "^[A-Za-z0-9_.@+-]{1,64}$";
/// Longest name of a user, group, site or Gateway, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Names of Resources, which are names of rules too.
pub const RESOURCE_NAME: &str = "^[A-Za-z0-9_./:-]{1,64}$";
/// Names of hosts: labels in lower case.
pub const HOSTNAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$";
/// Longest name of a host, in bytes: a common name of a certificate has no more.
pub const HOSTNAME_BYTES_MAX: usize = 64;
/// Client ids, which stand in certificates.
pub const CLIENT_ID: &str = "^[A-Za-z0-9_.-]{1,128}$";
/// Binary values: base64url without padding.
pub const BASE64URL: &str = "^[A-Za-z0-9_-]*$";
/// Longest name at a login, in bytes: a directory's may be longer than ours.
pub const LOGIN_NAME_BYTES_MAX: usize = 128;
/// Shortest password of ours, in bytes.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// One-time passwords: 1 to 64 printable ASCII characters, of which those of an authenticator app are six.
pub const OTP: &str = "^[ -~]{1,64}$";
/// Longest one-time password, in bytes.
pub const OTP_BYTES_MAX: usize = 64;
/// Longest e-mail address (RFC 5321 §4.5.3.1.3).
pub const EMAIL_BYTES_MAX: usize = 254;
/// Networks of one Resource.
pub const NETWORKS_MAX: usize = 1_024;
/// Services of one Resource.
pub const SERVICES_MAX: usize = 64;
/// Longest reason of a revocation, in bytes; it is shown to the user.
pub const REASON_BYTES_MAX: usize = 256;
/// Seconds of grace that a renewal may have: a day, which is longer than a login.
pub const GRACE_SECONDS_MAX: u32 = 86_400;
/// Shortest life of an invitation, in seconds.
pub const INVITATION_SECONDS_MIN: u64 = 60;
/// Longest life of an invitation, in seconds.
pub const INVITATION_SECONDS_MAX: u64 = 30 * 86_400;
/// Events in one page of the audit log.
pub const EVENTS_MAX: u32 = 1_000;
/// Longest wait for receipts in one request, in seconds; who wants to wait longer asks again.
pub const RECEIPTS_SECONDS_MAX: u64 = 20;
/// Interfaces of one host that registers itself.
pub const HOST_INTERFACES_MAX: usize = 64;
/// Addresses of all of them.
pub const HOST_ADDRESSES_MAX: usize = 256;
/// Longest name of an interface, and longest version, in bytes.
pub const HOST_TEXT_BYTES_MAX: usize = 64;
