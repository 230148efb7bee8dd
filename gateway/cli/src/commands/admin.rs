//! `ringfort admin`: what an administrator asks of the Controller.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use ringfort_client::{Admin, List, PasswordSource, Removed};
use ringfort_proto::api::{
    AdministratorRole, CaptureLimits, Drain, EntitlementChange, Invitee, Membership, Named, NewGroup, NewInvitation,
    NewResource, NewRevocation, NewService, NewSite, NewUser, Operation, OperationRequest, Principal, RevocationScope,
    RoleChange, UserEmail,
};
use ringfort_types::UnixSeconds;
use serde_json::Value;
use zeroize::Zeroize;

use super::client::totp_text;
use super::{policy, receipts, since, state_folder, table, wait_for};

/// Grace of a demanded renewal, in seconds (A23).
const GRACE_SECONDS: u32 = 30;
/// Seconds for which receipts are waited for, unless said otherwise.
const WAIT_SECONDS: &str = "10";
/// Audit events that are listed, unless said otherwise.
const EVENTS_SHOWN: u32 = 1_000;

#[derive(Args)]
pub(crate) struct Options {
    /// State folder of a client whose user is logged in as an administrator.
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print the Controller's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Users.
    #[command(subcommand)]
    User(UserCommand),
    /// Service accounts: programs that act without a user.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Sites.
    #[command(subcommand)]
    Site(SiteCommand),
    /// Resources: what is protected at a site.
    #[command(subcommand)]
    Resource(ResourceCommand),
    /// Groups of users.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Other Controllers.
    #[command(subcommand)]
    Controller(ControllerCommand),
    /// Gateways.
    #[command(subcommand)]
    Gateway(GatewayCommand),
    /// Hosts that register themselves.
    #[command(subcommand)]
    Host(HostCommand),
    /// Relays.
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Entitle a user or a group to a Resource.
    Entitle(Entitlement),
    /// Take an entitlement back; it is gone at the next packet.
    Unentitle(Entitlement),
    /// Invite a Gateway, a user's machine, a service's, a host, a Relay or another Controller: prints the command with which it joins.
    #[command(subcommand)]
    Invite(InviteCommand),
    /// Put a policy into force that is declared in a file: shows the difference first.
    Apply(policy::Apply),
    /// Print what is in force, as such a file.
    Export,
    /// Show what is wrong with such a file, without asking the Controller.
    Lint(policy::File),
    /// Take back at once what a user, a group, a device or everybody has, or one token.
    Revoke(Revocation),
    /// Demand that what a user, a group, a device or everybody has is renewed, or one token, which happens unnoticed.
    Renew(Renewal),
    /// List something.
    List {
        /// What.
        #[arg(value_enum)]
        what: Listed,
        /// Of the audit log: events of the last so many minutes, hours or days (30m, 24h, 7d), or since a number of seconds since 1970.
        #[arg(long, value_name = "TIME", value_parser = since::parse)]
        since: Option<since::Since>,
        /// Of the audit log: at most so many, the newest; 1,000 by default.
        #[arg(long, value_name = "NUMBER")]
        limit: Option<u32>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Everything, administrators included.
    Owner,
    /// Everything but administrators.
    Admin,
    /// Lists and the audit log.
    Auditor,
    /// Nothing.
    None,
}

impl RoleName {
    const fn role(self) -> Option<AdministratorRole> {
        match self {
            Self::Owner => Some(AdministratorRole::Owner),
            Self::Admin => Some(AdministratorRole::Admin),
            Self::Auditor => Some(AdministratorRole::Auditor),
            Self::None => None,
        }
    }
}

#[derive(Subcommand)]
enum ControllerCommand {
    /// Remove a Controller: nothing that it signed is believed any more, and it ends.
    Remove {
        /// Its address or its id, as `list controllers` shows them.
        name: String,
    },
}

#[derive(Subcommand)]
enum RelayCommand {
    /// Remove a Relay: its key is revoked, and Gateways and clients are not told of it any more.
    Remove {
        /// Its FQDN.
        name: String,
    },
    /// List the Relays with the Gateways that say to be connected to them.
    List,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Change what a user may administer.
    Role {
        /// Login name.
        name: String,
        /// From now on.
        #[arg(value_enum)]
        role: RoleName,
    },
    /// Remove a user; what they have is revoked at once.
    Remove {
        /// Login name.
        name: String,
    },
    /// Make a user.
    Add {
        /// Login name.
        name: String,
        /// What the user may administer.
        #[arg(long, value_enum, default_value_t = RoleName::None)]
        role: RoleName,
        /// Read the first password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
        /// The address by which identity providers know the user.
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
        /// The user logs in at an identity provider only.
        #[arg(long, requires = "email", conflicts_with = "password_stdin")]
        no_password: bool,
    },
    /// Set the address by which identity providers know a user. Also the same one ends their logins there, and lets them begin anew.
    Email {
        /// Login name.
        name: String,
        /// The address; without one the user logs in at no provider.
        address: Option<String>,
    },
    /// Let a user or service log in no more; what they have is revoked at once, the keys of their machines for good.
    Disable {
        /// Login name.
        name: String,
    },
    /// Let a user or service log in again, with new keys: from new state folders.
    Enable {
        /// Login name.
        name: String,
    },
    /// Give a user one-time passwords, to be asked for whichever way they log in; prints the secret, once.
    Totp {
        /// Login name.
        name: String,
        /// Take them away instead.
        #[arg(long)]
        remove: bool,
    },
    /// Have your own system check a user's one-time passwords, in place of an authenticator app's: [identity.external_otp] in
    /// controller.toml.
    ExternalOtp {
        /// Login name.
        name: String,
        /// Have it not asked any more instead.
        #[arg(long)]
        remove: bool,
    },
}

#[derive(Subcommand)]
enum ServiceCommand {
    /// Remove a service; what it has is revoked at once.
    Remove {
        /// Name.
        name: String,
    },
    /// Make a service: an account that logs in by its certificate alone.
    Add {
        /// Name.
        name: String,
    },
}

#[derive(Subcommand)]
enum SiteCommand {
    /// Remove a site.
    Remove {
        /// Name.
        name: String,
    },
    /// Make a site.
    Add {
        /// Name.
        name: String,
        /// Pool of clients' inner addresses with the Gateways' own address, such as 10.97.0.1/16; one per family.
        #[arg(long = "pool", value_name = "ADDRESS/BITS", required = true)]
        pools: Vec<String>,
    },
}

#[derive(Subcommand)]
enum ResourceCommand {
    /// Remove a Resource; nobody reaches it any more.
    Remove {
        /// Name.
        name: String,
    },
    /// Make a Resource.
    Add {
        /// Name; denials name it.
        name: String,
        /// Name of its site.
        #[arg(long)]
        site: String,
        /// Address or network at the site; may be given several times.
        #[arg(long, value_name = "NETWORK", required = true)]
        to: Vec<String>,
        /// Service there, such as tcp/443 or icmp-echo; may be given several times.
        #[arg(long = "service", value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
}

#[derive(Subcommand)]
enum GroupCommand {
    /// Remove a group.
    Remove {
        /// Name.
        name: String,
    },
    /// Make a group.
    Add {
        /// Name.
        name: String,
    },
    /// Members of a group.
    #[command(subcommand)]
    Member(MemberCommand),
}

#[derive(Subcommand)]
enum GatewayCommand {
    /// Let no new session come to a Gateway, for maintenance; live ones go on.
    Drain {
        /// Name.
        name: String,
        /// Let them come again.
        #[arg(long)]
        off: bool,
        /// End the live sessions too: their clients go to the site's other Gateways, and connections may break.
        #[arg(long, conflicts_with = "off")]
        end_sessions: bool,
    },
    /// Have a Gateway read its own file again: the ceiling, and where clients reach it.
    Reload {
        /// Name.
        name: String,
    },
    /// Change what a Gateway logs, until it is started anew.
    LogLevel {
        /// Name.
        name: String,
        /// A level, or filters such as `info,ringfort_daemon=debug`.
        filter: String,
    },
    /// Have a Gateway take the signed package of a version, for the installer of its site. What it takes, and whose signature
    /// counts, is in the Gateway's own file.
    Upgrade {
        /// Name.
        name: String,
        /// The version: three numbers.
        version: String,
        /// SHA-256 of the package, in hexadecimal.
        #[arg(long, value_name = "HEX")]
        sha256: String,
    },
    /// Write packets of a Gateway's tunnel interface to a file there, where the Gateway's own file allows that.
    Capture {
        /// Name.
        name: String,
        /// How long, in seconds.
        #[arg(long, default_value_t = 30)]
        seconds: u32,
        /// At most so many packets.
        #[arg(long, default_value_t = 10_000)]
        packets: u32,
        /// At most so many bytes of the file.
        #[arg(long, default_value_t = 4 << 20)]
        bytes: u32,
        /// So many bytes of each packet.
        #[arg(long, default_value_t = 64)]
        snap: u32,
    },
    /// List them: whether they are alive and connected, and what they have applied.
    List,
    /// Remove a Gateway: its key is revoked, and nobody is sent there any more.
    Remove {
        /// Name.
        name: String,
    },
}

#[derive(Subcommand)]
enum HostCommand {
    /// Authorise a host by its name, which gets its key by an invitation; an invitation does both.
    Add {
        /// Its hostname.
        name: String,
    },
    /// Take a host's right to register itself back: its key is revoked, and open invitations of its name are void.
    Remove {
        /// Its hostname.
        name: String,
    },
    /// List the hosts with what they said last, and how long ago.
    List,
}

#[derive(Subcommand)]
enum MemberCommand {
    /// Put a user into a group.
    Add(Member),
    /// Take a user out of a group.
    Remove(Member),
}

#[derive(Args)]
struct Member {
    /// Name of the group.
    group: String,
    /// Login name of the user.
    user: String,
}

#[derive(Args)]
#[command(group(ArgGroup::new("principal").required(true).args(["user", "group"])))]
struct Entitlement {
    /// Name of the Resource.
    resource: String,
    /// Login name of a user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Name of a group.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

#[derive(Subcommand)]
enum InviteCommand {
    /// A Gateway.
    Gateway {
        /// Its name.
        name: String,
        /// Name of its site.
        #[arg(long)]
        site: String,
        /// Seconds until the invitation expires; 7 days by default.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
    },
    /// A host that registers itself.
    Host {
        /// Its hostname.
        name: String,
        /// Seconds until the invitation expires; 7 days by default.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
    },
    /// A Relay.
    Relay {
        /// Its FQDN.
        name: String,
        /// Seconds until the invitation expires; 7 days by default.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
    },
    /// A user's machine.
    Device {
        /// Login name of the user.
        #[arg(long, value_name = "NAME")]
        user: String,
        /// Seconds until the invitation expires; 7 days by default.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
    },
    /// Another Controller, which will use the same PostgreSQL database.
    Controller {
        /// Seconds until the invitation expires; 7 days by default.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
    },
    /// A service's machine.
    Service {
        /// Name of the service.
        name: String,
        /// Seconds until the invitation expires; 7 days by default.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
    },
}

#[derive(Args)]
struct Scope {
    /// What it is about.
    #[arg(value_enum)]
    scope: ScopeName,
    /// Name of a user, service or group, client id of a device, or jti of a token.
    name: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScopeName {
    User,
    Group,
    Device,
    Token,
    Everyone,
}

#[derive(Args)]
struct Revocation {
    #[command(flatten)]
    scope: Scope,
    /// Shown to the user.
    #[arg(long)]
    reason: String,
    /// Wait until every Gateway has applied it, for so many seconds at most; 10 by default.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = WAIT_SECONDS)]
    wait: Option<u32>,
}

#[derive(Args)]
struct Renewal {
    #[command(flatten)]
    scope: Scope,
    /// Shown to the user.
    #[arg(long, default_value = "renewal demanded")]
    reason: String,
    /// Seconds after which what was not renewed is dead.
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE_SECONDS)]
    grace: u32,
    /// Wait until every Gateway has applied it, for so many seconds at most; 10 by default.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = WAIT_SECONDS)]
    wait: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Listed {
    Users,
    Gateways,
    Controllers,
    Sessions,
    Relays,
    Audit,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let json = options.json;
    if let Command::Lint(file) = &options.command {
        return policy::check(file, json);
    }
    let state = state_folder(options.state, "client")?;
    wait_for(async {
        let mut admin = Admin::open(&state)?;
        carry_out(&mut admin, options.command, json).await
    })
}

async fn carry_out(admin: &mut Admin, command: Command, json: bool) -> Result<()> {
    let (answer, text) = match command {
        Command::User(UserCommand::Add { name, role, password_stdin, email, no_password }) => {
            let source = if password_stdin { PasswordSource::Stdin } else { PasswordSource::Terminal };
            let password = match no_password {
                true => String::new(),
                false => source.read(&format!("First password of {name}"))?.to_string(),
            };
            let mut user = NewUser { name, password, role: role.role(), email };
            let answer = admin.add_user(&user).await;
            user.password.zeroize();
            (answer?, format!("user {} made", user.name))
        }
        Command::User(UserCommand::Role { name, role }) => {
            let change = RoleChange { name, role: role.role() };
            (admin.change_role(&change).await?, format!("role of {} changed", change.name))
        }
        Command::User(UserCommand::Email { name, address }) => {
            let text = format!("{name}: {}", address.as_deref().unwrap_or("no e-mail address"));
            let answer = admin.set_email(&UserEmail { name, email: address }).await?;
            let text = format!("{text}; {}", pushed(&answer));
            (answer, text)
        }
        Command::User(UserCommand::Disable { name }) => {
            let answer = admin.disable_user(&name).await?;
            let text = format!("{name} disabled; {}", pushed(&answer));
            (answer, text)
        }
        Command::User(UserCommand::Enable { name }) => {
            (admin.enable_user(&name).await?, format!("{name} may log in again, from new state folders"))
        }
        Command::User(UserCommand::Totp { name, remove: true }) => {
            (admin.remove_totp(&name).await?, format!("{name} is asked for no one-time password"))
        }
        Command::User(UserCommand::Totp { name, remove: false }) => {
            let made = admin.new_totp(&name).await?;
            let text = totp_text(&made);
            (serde_json::to_value(made)?, text)
        }
        Command::User(UserCommand::ExternalOtp { name, remove: true }) => {
            (admin.remove_external_otp(&name).await?, format!("{name} is asked for no one-time password"))
        }
        Command::User(UserCommand::ExternalOtp { name, remove: false }) => {
            let text = format!("{name} is asked for a one-time password of your own system");
            (admin.set_external_otp(&name).await?, text)
        }
        Command::Service(ServiceCommand::Add { name }) => {
            let service = NewService { name };
            (admin.add_service(&service).await?, format!("service {} made", service.name))
        }
        Command::Service(ServiceCommand::Remove { name }) => remove(admin, Removed::User, &name).await?,
        Command::Site(SiteCommand::Add { name, pools }) => {
            let site = NewSite { name, pools };
            (admin.add_site(&site).await?, format!("site {} made", site.name))
        }
        Command::Resource(ResourceCommand::Add { name, site, to, services }) => {
            let resource = NewResource { name, site, to, services };
            (admin.add_resource(&resource).await?, format!("resource {} made", resource.name))
        }
        Command::Group(GroupCommand::Add { name }) => {
            let group = NewGroup { name };
            (admin.add_group(&group).await?, format!("group {} made", group.name))
        }
        Command::User(UserCommand::Remove { name }) => remove(admin, Removed::User, &name).await?,
        Command::Site(SiteCommand::Remove { name }) => remove(admin, Removed::Site, &name).await?,
        Command::Resource(ResourceCommand::Remove { name }) => remove(admin, Removed::Resource, &name).await?,
        Command::Group(GroupCommand::Remove { name }) => remove(admin, Removed::Group, &name).await?,
        Command::Controller(ControllerCommand::Remove { name }) => remove(admin, Removed::Controller, &name).await?,
        Command::Gateway(GatewayCommand::Remove { name }) => remove(admin, Removed::Gateway, &name).await?,
        Command::Gateway(GatewayCommand::Drain { name, off, end_sessions }) => {
            let drain = Drain { name, draining: !off };
            let text = if off { "admits new sessions again" } else { "is drained: no new session comes to it" };
            let answer = admin.drain(&drain).await?;
            if end_sessions {
                operate(admin, drain.name, Operation::EndSessions).await?
            } else {
                (answer, format!("{} {text}", drain.name))
            }
        }
        Command::Gateway(GatewayCommand::Reload { name }) => operate(admin, name, Operation::Reload).await?,
        Command::Gateway(GatewayCommand::LogLevel { name, filter }) => {
            operate(admin, name, Operation::LogLevel(filter)).await?
        }
        Command::Gateway(GatewayCommand::Upgrade { name, version, sha256 }) => {
            operate(admin, name, Operation::Upgrade { version, sha256 }).await?
        }
        Command::Gateway(GatewayCommand::Capture { name, seconds, packets, bytes, snap }) => {
            let limits = CaptureLimits { seconds, packets, bytes, snap_bytes: snap };
            operate(admin, name, Operation::Capture(limits)).await?
        }
        Command::Gateway(GatewayCommand::List) => return list(admin, Listed::Gateways, json).await,
        Command::Group(GroupCommand::Member(MemberCommand::Add(Member { group, user }))) => {
            let answer = admin.add_member(&Membership { group, user }).await?;
            let text = pushed(&answer);
            (answer, text)
        }
        Command::Group(GroupCommand::Member(MemberCommand::Remove(Member { group, user }))) => {
            let answer = admin.remove_member(&Membership { group, user }).await?;
            let text = pushed(&answer);
            (answer, text)
        }
        Command::Host(HostCommand::Add { name }) => {
            let host = Named { name };
            (admin.add_host(&host).await?, format!("host {} authorised", host.name))
        }
        Command::Relay(RelayCommand::Remove { name }) => remove(admin, Removed::Relay, &name).await?,
        Command::Relay(RelayCommand::List) => return list(admin, Listed::Relays, json).await,
        Command::Host(HostCommand::Remove { name }) => remove(admin, Removed::Host, &name).await?,
        Command::Host(HostCommand::List) => {
            let answer = admin.hosts().await?;
            if !json {
                table::print(&host_rows(&answer), &["name", "joined", "age", "port", "addresses", "version"]);
                return Ok(());
            }
            (answer, String::new())
        }
        Command::Entitle(entitlement) => {
            let answer = admin.entitle(&change(entitlement)?).await?;
            let text = pushed(&answer);
            (answer, text)
        }
        Command::Unentitle(entitlement) => {
            let answer = admin.unentitle(&change(entitlement)?).await?;
            let text = pushed(&answer);
            (answer, text)
        }
        Command::Invite(invite) => {
            let (invitation, address) = invitation(invite);
            let answer = admin.invite(&invitation).await?;
            let text = format!("ringfort join {} --ticket {}{address}", answer.url, answer.ticket);
            (serde_json::to_value(answer)?, text)
        }
        Command::Revoke(Revocation { scope, reason, wait }) => {
            let revocation = NewRevocation { scope: scope.parse()?, reason, grace_seconds: None };
            return revoke(admin, &revocation, wait, json).await;
        }
        Command::Renew(Renewal { scope, reason, grace, wait }) => {
            let revocation = NewRevocation { scope: scope.parse()?, reason, grace_seconds: Some(grace) };
            return revoke(admin, &revocation, wait, json).await;
        }
        Command::Apply(apply) => return policy::apply(admin, apply, json).await,
        Command::Export => return policy::export(admin, json).await,
        Command::Lint(file) => return policy::check(&file, json),
        Command::List { what: Listed::Audit, since, limit } => return list_audit(admin, since, limit, json).await,
        Command::List { what, since, limit } => {
            ensure!(since.is_none() && limit.is_none(), "--since and --limit are for `list audit`");
            return list(admin, what, json).await;
        }
    };
    say(&answer, &text, json);
    Ok(())
}

fn say(answer: &Value, text: &str, json: bool) {
    if json {
        println!("{answer:#}");
    } else {
        println!("{text}");
    }
}

async fn list(admin: &mut Admin, what: Listed, json: bool) -> Result<()> {
    let (list, columns): (_, &[&str]) = match what {
        Listed::Users => (List::Users, &["name", "role", "active", "groups", "id"]),
        Listed::Gateways => (
            List::Gateways,
            &[
                "name",
                "site",
                "alive",
                "connected",
                "draining",
                "duplicate_at",
                "applied",
                "addresses",
                "last_seen",
                "id",
            ],
        ),
        Listed::Controllers => (List::Controllers, &["address", "started_at", "id"]),
        Listed::Sessions => (List::Sessions, &["user", "client_id", "auth_time", "expires_at", "claims"]),
        Listed::Relays => (List::Relays, &["name", "joined_at", "gateways"]),
        Listed::Audit => return list_audit(admin, None, None, json).await,
    };
    show(&admin.list(list).await?, columns, json);
    Ok(())
}

async fn list_audit(admin: &mut Admin, since: Option<since::Since>, limit: Option<u32>, json: bool) -> Result<()> {
    let since = since.map_or(UnixSeconds(0), |since| since.before(ringfort_enrol::wall_clock()));
    let answer = admin.audit(since, limit.unwrap_or(EVENTS_SHOWN)).await?;
    show(&answer, &["at", "actor", "action", "target", "outcome", "detail", "id"], json);
    Ok(())
}

fn show(list: &Value, columns: &[&str], json: bool) {
    match json {
        true => println!("{list:#}"),
        false => table::print(list, columns),
    }
}

/// Revokes or demands renewal and, if asked to, waits for the Gateways' receipts (X6).
async fn revoke(admin: &mut Admin, revocation: &NewRevocation, wait: Option<u32>, json: bool) -> Result<()> {
    let mut answer = admin.revoke(revocation).await?;
    let mut text = pushed(&answer);
    let serial = answer["serial"].as_str().unwrap_or_default().to_owned();
    let Some(seconds) = wait.filter(|_| !serial.is_empty()) else {
        say(&answer, &text, json);
        return Ok(());
    };
    let receipts = admin.receipts(&serial, Duration::from_secs(seconds.into())).await?;
    text = format!("{text}\n{}", receipts::text(&receipts, ringfort_enrol::wall_clock()));
    answer["receipts"] = serde_json::to_value(&receipts)?;
    say(&answer, &text, json);
    let silent = receipts.gateways.iter().filter(|receipt| receipt.awaited && !receipt.done).count();
    ensure!(silent == 0, "{silent} Gateways have not confirmed {serial} within {seconds} s");
    Ok(())
}

async fn remove(admin: &mut Admin, what: Removed, name: &str) -> Result<(Value, String)> {
    let answer = admin.remove(what, name).await?;
    let text = format!("{name} removed; {}", pushed(&answer));
    Ok((answer, text))
}

async fn operate(admin: &mut Admin, name: String, operation: Operation) -> Result<(Value, String)> {
    let request = OperationRequest { name, operation };
    let answer = admin.operate(&request).await?;
    let text = format!("{}: {}", request.name, answer["detail"].as_str().unwrap_or("done"));
    Ok((answer, text))
}

fn change(entitlement: Entitlement) -> Result<EntitlementChange> {
    let Entitlement { resource, user, group } = entitlement;
    let principal = user.map(Principal::User).or(group.map(Principal::Group));
    Ok(EntitlementChange { resource, principal: principal.context("expected --user or --group")? })
}

/// What is asked for, and what the printed command needs besides.
fn invitation(invite: InviteCommand) -> (NewInvitation, &'static str) {
    match invite {
        InviteCommand::Gateway { name, site, expires_in } => {
            (NewInvitation { invitee: Invitee::Gateway { name, site }, expires_in }, "")
        }
        InviteCommand::Host { name, expires_in } => (NewInvitation { invitee: Invitee::Host { name }, expires_in }, ""),
        InviteCommand::Relay { name, expires_in } => {
            (NewInvitation { invitee: Invitee::Relay { name }, expires_in }, "")
        }
        InviteCommand::Device { user, expires_in } => {
            (NewInvitation { invitee: Invitee::Device { user }, expires_in }, "")
        }
        InviteCommand::Controller { expires_in } => (NewInvitation { invitee: Invitee::Controller {}, expires_in }, ""),
        InviteCommand::Service { name, expires_in } => {
            (NewInvitation { invitee: Invitee::Service { name }, expires_in }, "")
        }
    }
}

impl Scope {
    fn parse(self) -> Result<RevocationScope> {
        let name = || self.name.clone().context("expected a name behind it");
        Ok(match self.scope {
            ScopeName::User => RevocationScope::User(name()?),
            ScopeName::Group => RevocationScope::Group(name()?),
            ScopeName::Device => RevocationScope::Device(name()?),
            ScopeName::Token => RevocationScope::Token(name()?),
            ScopeName::Everyone => {
                ensure!(self.name.is_none(), "everyone has no name");
                RevocationScope::Everyone
            }
        })
    }
}

/// The rows of hosts with their addresses in one column.
fn host_rows(hosts: &Value) -> Value {
    let addresses = |row: &Value| -> Vec<Value> {
        let interfaces = row["interfaces"].as_array().into_iter().flatten();
        interfaces.flat_map(|interface| interface["addresses"].as_array().into_iter().flatten().cloned()).collect()
    };
    let with_addresses = |row: &Value| {
        let mut row = row.clone();
        row["addresses"] = addresses(&row).into();
        row
    };
    hosts.as_array().into_iter().flatten().map(with_addresses).collect()
}

/// What went out.
fn pushed(answer: &Value) -> String {
    let serial = match answer["serial"].as_str() {
        Some(serial) if !serial.is_empty() => format!(", revocations now at {serial}"),
        _ => String::new(),
    };
    format!("pushed {} entitlement tokens to {} Gateways{serial}", answer["entitlements"], answer["gateways"])
}
