use prost::Message as _;
use ringfort_proto::v1::{Accepted, Draining, Entitlement, RenewBy, Welcome};

use super::*;
use crate::testing::Organisation;

const DIGEST: [u8; 32] = [7; 32];
const SESSION: [u8; SESSION_ID_BYTES] = [9; SESSION_ID_BYTES];

/// A site, and the other ends of its channel and its tunnel.
struct World {
    site: Site,
    now: BootInstant,
    client: ExporterSecret,
    gateway: ExporterSecret,
}

fn gateways(names: &[&str]) -> Vec<SiteGateway> {
    let gateway = |(n, id): (u8, &&str)| SiteGateway {
        id: (*id).into(),
        address: ([192, 0, 2, n], 443).into(),
        digests: vec![DIGEST],
    };
    (1..).zip(names).map(gateway).collect()
}

fn to_client(say: to_client::Say) -> ToClient {
    ToClient { say: Some(say) }
}

impl World {
    fn new(names: &[&str]) -> Self {
        let now = BootInstant::from_nanos(1_000_000_000);
        let (client, gateway) = Organisation::new().tunnel();
        Self { site: Site::new(gateways(names), present("one"), now), now, client, gateway }
    }

    fn actions(&mut self) -> Vec<Action> {
        self.site.handle_timeout(self.now);
        std::iter::from_fn(|| self.site.poll_action()).collect()
    }

    fn says(&mut self, say: to_client::Say) -> Vec<Action> {
        self.site.handle_message(to_client(say), self.now);
        self.actions()
    }

    fn passes(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.actions()
    }

    /// Opens a channel to `gateway`, whose tokens are accepted.
    fn accepted(&mut self) {
        assert!(matches!(self.actions()[..], [Action::Open(_)]));
        self.site.handle_opened(DIGEST, self.now);
        self.says(welcome());
        self.says(accepted(4));
    }

    fn established(&mut self, number: u64, digest: [u8; 32]) -> Vec<Action> {
        self.site.handle_established(TunnelNumber(number), digest, self.client.clone(), self.now);
        self.actions()
    }

    /// What the Gateway answers to Bind.
    fn answer(&self) -> Bound {
        let tunnel = self.gateway.export(LABEL_TUNNEL, &[])[..TUNNEL_ID_BYTES].to_vec();
        Bound { exported: self.gateway.export(LABEL_GATEWAY, &SESSION).to_vec().into(), tunnel: tunnel.into() }
    }

    fn bound(&mut self) {
        self.accepted();
        self.established(1, DIGEST);
        let answer = self.answer();
        assert_eq!(self.says(to_client::Say::Bound(answer)), [Action::Release(TunnelNumber(1))]);
        self.site.handle_up();
        assert!(self.site.is_up() && self.site.is_bound());
    }

    fn goodbye(&mut self, code: &str) -> Vec<Action> {
        self.says(to_client::Say::Goodbye(Goodbye { code: code.into(), message: "m".into(), event: "e".into() }))
    }
}

fn present(claims: &str) -> Present {
    Present { claims: claims.into(), ..Present::default() }
}

fn welcome() -> to_client::Say {
    to_client::Say::Welcome(Welcome { session: SESSION.to_vec().into(), time: 0 })
}

fn accepted(seq: u64) -> to_client::Say {
    to_client::Say::Accepted(Accepted { seq, ends_at: 99 })
}

// Covers: C15 allow
// Covers: A11 allow
#[test]
fn a_tunnel_is_released_once_both_ends_have_shown_the_same_secret() {
    let mut world = World::new(&["g1"]);
    assert_eq!(world.actions(), [Action::Open(gateways(&["g1"]).remove(0))]);
    world.site.handle_opened(DIGEST, world.now);
    let started = world.says(welcome());
    let presented = say(to_gateway::Say::Present(present("one")));
    assert_eq!(started, [Action::StartTunnel(gateways(&["g1"]).remove(0)), Action::Say(presented)]);
    // Bound only when the tokens are accepted, whichever comes first.
    assert_eq!(world.established(1, DIGEST), []);
    let bind = Bind {
        tunnel: world.gateway.export(LABEL_TUNNEL, &[])[..TUNNEL_ID_BYTES].to_vec().into(),
        exported: world.gateway.export(LABEL_CLIENT, &SESSION).to_vec().into(),
    };
    assert_eq!(world.says(accepted(4)), [Action::Say(say(to_gateway::Say::Bind(bind)))]);
    assert!(!world.site.is_bound());
    let answer = world.answer();
    assert_eq!(world.says(to_client::Say::Bound(answer)), [Action::Release(TunnelNumber(1))]);
    assert!(world.site.is_bound() && !world.site.is_up(), "the Gateway has not let it in yet");
    world.site.handle_up();
    assert!(world.site.is_up());
    assert_eq!(world.site.standing(), (4, 99));
}

/// The machine moved: the channel is opened anew at once, at the same Gateway, and the tunnel stays as it is.
// Covers: X10 allow
#[test]
fn a_machine_that_moves_keeps_its_tunnel() {
    let mut world = World::new(&["g1", "g2"]);
    world.bound();
    world.site.handle_network_changed(world.now);
    let actions = world.actions();
    assert!(matches!(&actions[..], [Action::Close, Action::Open(gateway)] if &*gateway.id == "g1"), "{actions:?}");
    assert!(world.site.is_up(), "packets pass all along");
    world.site.handle_opened(DIGEST, world.now);
    assert!(!world.says(welcome()).iter().any(|action| matches!(action, Action::StartTunnel(_))));
    let bind = world.says(accepted(4));
    assert!(matches!(&bind[..], [Action::Say(_)]), "the same tunnel is bound again: {bind:?}");
    // Without a channel there is nothing to open anew.
    let mut world = World::new(&["g1"]);
    world.site.handle_network_changed(world.now);
    assert!(matches!(world.actions()[..], [Action::Open(_)]));
}

// Covers: C15 refuse
#[test]
fn another_secret_releases_nothing() {
    let mut world = World::new(&["g1"]);
    world.accepted();
    world.established(1, DIGEST);
    let mut answer = world.answer();
    let (_, somebody) = Organisation::new().tunnel();
    answer.exported = somebody.export(LABEL_GATEWAY, &SESSION).to_vec().into();
    assert_eq!(world.says(to_client::Say::Bound(answer)), [Action::StopTunnel, Action::Close]);
    assert!(!world.site.is_up() && world.site.trouble().contains("nothing was sent"));
}

#[test]
fn an_answer_about_an_earlier_tunnel_releases_nothing() {
    let mut world = World::new(&["g1"]);
    world.accepted();
    world.established(1, DIGEST);
    let earlier = world.answer();
    (world.client, world.gateway) = Organisation::new().tunnel();
    assert!(matches!(world.established(2, DIGEST)[..], [Action::Say(_)]), "the new tunnel is bound anew");
    assert_eq!(world.says(to_client::Say::Bound(earlier)), []);
    let answer = world.answer();
    assert_eq!(world.says(to_client::Say::Bound(answer)), [Action::Release(TunnelNumber(2))]);
}

// Covers: C12 refuse
#[test]
fn a_tunnel_to_another_certificate_than_the_channels_is_ended() {
    let mut world = World::new(&["g1"]);
    world.accepted();
    assert_eq!(world.established(1, [8; 32]), [Action::StopTunnel, Action::Close]);
    assert!(world.site.trouble().contains("different certificates"));
}

// Covers: A15 allow
#[test]
fn a_lost_channel_binds_the_same_tunnel_again() {
    let mut world = World::new(&["g1", "g2"]);
    world.bound();
    world.site.handle_closed("lost".into(), world.now);
    assert!(world.site.is_up() && !world.site.is_bound(), "packets pass meanwhile");
    assert_eq!(world.actions(), [Action::Close]);
    let again = world.passes(PAUSE_FIRST);
    assert_eq!(again, [Action::Open(gateways(&["g1"]).remove(0))], "the same Gateway, which has the session");
    world.site.handle_opened(DIGEST, world.now);
    assert!(matches!(world.says(welcome())[..], [Action::Say(_)]), "the tunnel is not started anew");
    assert!(matches!(world.says(accepted(4))[..], [Action::Say(ToGateway { say: Some(to_gateway::Say::Bind(_)) })]));
    let answer = world.answer();
    world.says(to_client::Say::Bound(answer));
    assert!(world.site.is_up() && world.site.is_bound());
}

#[test]
fn another_gateway_is_tried_where_one_does_not_answer() {
    let mut world = World::new(&["g1", "g2"]);
    for id in ["g1", "g2", "g1"] {
        let opened = world.passes(PAUSE_MAX);
        let to = opened.iter().find_map(|action| match action {
            Action::Open(gateway) => Some(&*gateway.id),
            _ => None,
        });
        assert_eq!(to, Some(id));
        world.site.handle_closed("refused".into(), world.now);
    }
    assert_eq!(world.passes(Duration::ZERO), [Action::Close], "it pauses in between");
    // One that is silent counts as lost.
    world.passes(PAUSE_MAX);
    world.site.handle_opened(DIGEST, world.now);
    assert_eq!(world.passes(ANSWER_TIME_MAX), [Action::Close]);
}

#[test]
fn a_tunnel_that_is_down_is_bound_anew_when_it_is_back() {
    let mut world = World::new(&["g1"]);
    world.bound();
    world.site.handle_down("silent".into(), world.now);
    assert!(!world.site.is_up() && !world.site.is_bound());
    assert_eq!(world.actions(), [], "its worker tries again by itself");
    assert!(matches!(world.established(2, DIGEST)[..], [Action::Say(_)]));
    // Without a channel there is nothing to bind it to: it begins with the next Welcome.
    world.site.handle_closed("lost".into(), world.now);
    world.site.handle_down("silent".into(), world.now);
    assert_eq!(world.actions(), [Action::Close, Action::StopTunnel]);
}

// Covers: A23 refuse
#[test]
fn after_a_revocation_nothing_is_tried_with_the_same_tokens() {
    for code in CODES_FINAL {
        let mut world = World::new(&["g1"]);
        world.bound();
        assert_eq!(world.goodbye(code), [Action::StopTunnel, Action::Close], "{code}");
        assert!(world.site.is_ended() && !world.site.is_up());
        assert_eq!(world.passes(Duration::from_secs(3_600)), [], "{code}");
        assert_eq!(world.site.poll_timeout(), None);
        assert_eq!(world.site.goodbye().map(|goodbye| goodbye.code.as_str()), Some(code));
        world.site.set_tokens(present("two"), world.now);
        world.site.set_certificate(world.now);
        assert_eq!(world.actions(), [], "a renewal under way changes nothing");
        world.site.begin_anew(world.now);
        assert!(matches!(world.actions()[..], [Action::Open(_)]), "another login does");
    }
}

// Covers: A23 allow
#[test]
fn what_has_expired_is_renewed_once() {
    let mut world = World::new(&["g1"]);
    world.bound();
    assert_eq!(world.goodbye("token_expired"), [Action::StopTunnel, Action::Close, Action::Renew]);
    world.site.set_tokens(present("two"), world.now);
    world.actions();
    world.site.handle_opened(DIGEST, world.now);
    world.says(welcome());
    assert_eq!(world.goodbye("token_expired"), [Action::StopTunnel, Action::Close], "no circle");
    assert!(world.site.is_ended());
}

#[test]
fn what_says_nothing_about_the_tokens_is_tried_again() {
    for code in CODES_AGAIN {
        let mut world = World::new(&["g1"]);
        world.bound();
        let keeps_tunnel = code == "channel_lost";
        assert_eq!(world.goodbye(code).contains(&Action::StopTunnel), !keeps_tunnel, "{code}");
        assert!(matches!(world.passes(PAUSE_FIRST)[..], [Action::Open(_)]), "{code}");
    }
}

#[test]
fn new_tokens_are_shown_while_the_tunnel_stays() {
    let mut world = World::new(&["g1"]);
    world.bound();
    let renew_by = RenewBy { time: 50, reason: "because".into() };
    assert_eq!(world.says(to_client::Say::RenewBy(renew_by)), [Action::RenewAsked]);
    world.site.set_tokens(present("two"), world.now);
    assert_eq!(world.actions(), [Action::Say(say(to_gateway::Say::Present(present("two"))))]);
    assert_eq!(world.says(accepted(5)), []);
    assert!(world.site.is_up() && world.site.is_bound());
    let pushed = to_client::Say::Entitlement(Entitlement { token: "t".into() });
    assert_eq!(world.says(pushed), [Action::Pushed("t".into())]);
    // A new certificate needs both anew.
    world.site.set_certificate(world.now);
    assert!(matches!(world.actions()[..], [Action::StopTunnel, Action::Close, Action::Open(_)]));
}

// Covers: K6 allow
#[test]
fn a_gateway_that_is_drained_asks_and_the_session_goes_on_meanwhile() {
    let mut world = World::new(&["g1", "g2"]);
    world.bound();
    assert_eq!(world.says(to_client::Say::Draining(Draining {})), [Action::Go]);
    assert!(world.site.is_up() && world.site.is_bound() && world.site.is_asked_to_go());
    assert_eq!(world.site.elsewhere().map(|gateway| &*gateway.id), Some("g2"));
    // Where there is no other, there is none to go to, until the Controller names one.
    world.site.set_gateways(gateways(&["g1"]));
    assert_eq!(world.site.elsewhere(), None);
    world.site.set_gateways(gateways(&["g3", "g1"]));
    assert_eq!(world.site.elsewhere().map(|gateway| &*gateway.id), Some("g3"));
    // A new channel has not asked.
    world.site.handle_closed("lost".into(), world.now);
    assert!(!world.site.is_asked_to_go());
    world.passes(PAUSE_FIRST);
    world.site.handle_opened(DIGEST, world.now);
    world.says(welcome());
    world.says(accepted(4));
    let answer = world.answer();
    world.says(to_client::Say::Bound(answer));
    assert!(world.site.is_bound() && !world.site.is_asked_to_go());
}

/// A message of a later version is one without content to this one.
// Covers: K6 refuse
#[test]
fn what_this_version_does_not_know_changes_nothing() {
    let mut world = World::new(&["g1"]);
    world.bound();
    // Field 99, an empty message.
    let unknown = ToClient::decode(&b"\x9a\x06\x00"[..]).unwrap();
    assert_eq!(unknown, ToClient { say: None });
    world.site.handle_message(unknown, world.now);
    assert_eq!(world.actions(), []);
    assert!(world.site.is_up() && world.site.is_bound());
}

#[test]
fn denials_are_kept_and_bounded() {
    let mut world = World::new(&["g1"]);
    world.bound();
    for n in 0..DENIALS_MAX + 1 {
        let denied = Denied { destination: n.to_string(), ..Denied::default() };
        world.says(to_client::Say::Denied(denied));
    }
    let kept: Vec<_> = world.site.denials().map(|denied| denied.destination.as_str()).collect();
    assert_eq!((kept.len(), kept[0]), (DENIALS_MAX, "1"));
}
