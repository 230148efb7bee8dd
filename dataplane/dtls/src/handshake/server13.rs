//! The server of DTLS 1.3 (RFC 9147 §6, RFC 8446 §2), from the ClientHello whose address is known to be its sender's.
//!
//! ```text
//!  AwaitHello ──ClientHello──▶ AwaitCertificate ──▶ AwaitSignature ──▶ AwaitFinished ──Finished──▶ done
//!     │  ▲                        │     ╰─ none, and none is required ──────▲
//!     ╰──╯ no usable key share,   ╰─ not asked for ─────────────────────────╯
//!          and no cookie: HelloRetryRequest, once
//! ```
//!
//! With the answer to the ClientHello epoch 2 begins, both ways; ours ends with our Finished, the client's with its own. What
//! the client sends in epoch 3 before that cannot be opened, so nothing of it is taken before it is known who it is from.

use std::sync::Arc;

use ringfort_identity::PeerIdentity;
use rustls_pki_types::CertificateDer;

use super::reassembly::Message;
use super::server::choose_protocol;
use super::{Context, Failure, Outcome, Step, suite_number, unexpected};
use crate::alert::{Alert, Fatal, fail};
use crate::cid::ConnectionId;
use crate::config::{ClientAuth, ServerConfig};
use crate::crypto::{
    self, ExporterSecret, Group, SCHEMES_13, Schedule, Signed, Transcript, answer_share, check_finished, choose_signer,
    finished_mac,
};
use crate::record::{Secret, Suite};
use crate::wire::hello::{ClientHello, DTLS_1_3, write_hello_retry_request, write_server_hello};
use crate::wire::messages::{
    MessageType, parse_certificate, parse_certificate_verify, write_certificate, write_certificate_request,
    write_certificate_verify, write_encrypted_extensions,
};

/// A first ClientHello that was answered by a HelloRetryRequest, as its sender's second one needs it.
#[derive(Clone, Debug)]
pub(crate) struct Retried {
    pub(crate) suite: Suite,
    /// The group that was asked for, if one was.
    pub(crate) group: Option<Group>,
    pub(crate) hello_hash: Vec<u8>,
    /// The cookie that was given out, if one was.
    pub(crate) cookie: Option<Vec<u8>>,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Server13 {
    config: Arc<ServerConfig>,
    random: [u8; 32],
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    AwaitHello(Option<Retried>),
    AwaitCertificate(Underway),
    AwaitSignature(Underway, Vec<CertificateDer<'static>>),
    AwaitFinished(Underway, Option<PeerIdentity>),
    Over,
}

#[derive(Clone, Debug)]
struct Underway {
    suite: Suite,
    transcript: Transcript,
    client_handshake: Secret,
    client_application: Secret,
    exporter: ExporterSecret,
}

impl Server13 {
    /// A server that awaits a ClientHello: the second one, if `retried` says what was asked of it. `random` is its hello's.
    pub(crate) const fn new(config: Arc<ServerConfig>, random: [u8; 32], retried: Option<Retried>) -> Self {
        Self { config, random, state: State::AwaitHello(retried) }
    }

    /// The epoch in which the next message is welcome.
    pub(crate) const fn epoch(&self) -> u64 {
        match self.state {
            State::AwaitHello(_) => 0,
            _ => 2,
        }
    }

    /// Whether this hello would be taken in the place of the one that is awaited.
    pub(crate) fn would_take(&self, body: &[u8]) -> bool {
        let State::AwaitHello(retried) = &self.state else { return false };
        let cookie = retried.as_ref().and_then(|retried| retried.cookie.as_deref());
        ClientHello::parse(body).is_ok_and(|hello| hello.cookie == cookie && Choice::make(&hello, &self.config).is_ok())
    }

    /// Takes the next message. One in the clear that is refused changes nothing: another may come in its place.
    pub(crate) fn handle_message(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<Step, Failure> {
        let Message { kind, body, .. } = message;
        if let State::AwaitHello(retried) = &self.state {
            let retried = retried.clone();
            return match *kind {
                MessageType::CLIENT_HELLO => Ok(self.hello(body, retried.as_ref(), cx)?),
                kind => Ok(unexpected(kind)?),
            };
        }
        match (std::mem::replace(&mut self.state, State::Over), *kind) {
            (State::AwaitCertificate(underway), MessageType::CERTIFICATE) => Ok(self.certificate(body, underway)?),
            (State::AwaitSignature(underway, chain), MessageType::CERTIFICATE_VERIFY) => {
                self.signature(body, underway, &chain, cx)
            }
            (State::AwaitFinished(underway, peer), MessageType::FINISHED) => Ok(finished(body, underway, peer, cx)?),
            (_, kind) => Ok(unexpected(kind)?),
        }
    }

    fn hello(&mut self, body: &[u8], retried: Option<&Retried>, cx: &mut Context<'_>) -> Result<Step, Fatal> {
        let hello = ClientHello::parse(body)?;
        let choice = Choice::make(&hello, &self.config)?;
        let (suite, mut transcript) = match retried {
            None => (choice.suite, Transcript::new(choice.suite)),
            Some(retried) => {
                if !hello.suites.contains(suite_number(retried.suite)) {
                    return fail(Alert::ILLEGAL_PARAMETER, "a second ClientHello without the suite that was chosen");
                }
                if hello.cookie != retried.cookie.as_deref() {
                    return fail(Alert::ILLEGAL_PARAMETER, "a second ClientHello without the cookie that was given");
                }
                let mut transcript = Transcript::after_retry(retried.suite, &retried.hello_hash);
                transcript.add(MessageType::SERVER_HELLO, &retried.request());
                (retried.suite, transcript)
            }
        };
        let group = match (retried, choice.group) {
            // What was asked for, and nothing else.
            (Some(Retried { group: Some(group), .. }), _) => {
                if hello.key_shares.into_iter().flat_map(|shares| shares.iter()).map(|(of, _)| of).ne([group.number()])
                {
                    return fail(Alert::ILLEGAL_PARAMETER, "a second ClientHello without just the key share asked for");
                }
                *group
            }
            (_, GroupChoice::Shared(group)) => group,
            (None, GroupChoice::Ask(group)) => {
                let hello_hash = Transcript::hash_of(suite, MessageType::CLIENT_HELLO, body).as_bytes().to_vec();
                let retried = Retried { suite, group: Some(group), hello_hash, cookie: None };
                cx.exchange.begin_answer();
                cx.exchange.send(MessageType::SERVER_HELLO, retried.request(), 0);
                self.state = State::AwaitHello(Some(retried));
                return Ok(Step::More);
            }
            (Some(_), GroupChoice::Ask(_)) => {
                return fail(Alert::ILLEGAL_PARAMETER, "a second ClientHello without a key share of a group of ours");
            }
        };
        transcript.add(MessageType::CLIENT_HELLO, body);
        self.answer(&hello, suite, group, choice.protocol, transcript, cx)?;
        Ok(Step::More)
    }

    /// The whole of our flight, from ServerHello to Finished.
    fn answer(
        &mut self,
        hello: &ClientHello<'_>,
        suite: Suite,
        group: Group,
        protocol: Option<&[u8]>,
        mut transcript: Transcript,
        cx: &mut Context<'_>,
    ) -> Result<(), Fatal> {
        let config = Arc::clone(&self.config);
        let signer = choose_signer(&config.own.key, &SCHEMES_13, hello.schemes.unwrap_or_default())?;
        let (share, secret) = answer_share(group, hello.share(group.number()).unwrap_or_default())?;
        cx.exchange.begin_answer();
        // An id longer than we care to send is not agreed on.
        let ids = cx.local_cid.zip(hello.connection_id.and_then(ConnectionId::new));
        let id = ids.as_ref().map(|(local, _)| local.as_bytes());
        let body = write_server_hello(&self.random, suite_number(suite), (group.number(), &share), id);
        transcript.add(MessageType::SERVER_HELLO, &body);
        cx.exchange.send(MessageType::SERVER_HELLO, body, 0);
        if let Some((local, peer)) = ids {
            cx.records.set_local_cid(local);
            cx.records.set_peer_cid(peer);
        }

        let handshake = Schedule::handshake(suite, &secret)?;
        let hash = transcript.hash();
        let client_handshake = handshake.derive("c hs traffic", &hash)?;
        let server_handshake = handshake.derive("s hs traffic", &hash)?;
        cx.records.install_rx(2, suite, &client_handshake).map_err(crypto::refused)?;
        cx.records.install_tx(2, suite, &server_handshake).map_err(crypto::refused)?;

        let mut say = |transcript: &mut Transcript, kind, body: Vec<u8>| {
            transcript.add(kind, &body);
            cx.exchange.send(kind, body, 2);
        };
        say(&mut transcript, MessageType::ENCRYPTED_EXTENSIONS, write_encrypted_extensions(protocol));
        if config.clients.policy().is_some() {
            let body = write_certificate_request(&SCHEMES_13, &config.authorities);
            say(&mut transcript, MessageType::CERTIFICATE_REQUEST, body);
        }
        say(&mut transcript, MessageType::CERTIFICATE, write_certificate(&[], &config.own.chain));
        let (scheme, signature) = crypto::sign(&*signer, Signed::ByServer, &transcript.hash())?;
        say(&mut transcript, MessageType::CERTIFICATE_VERIFY, write_certificate_verify(scheme, &signature));
        let mac = finished_mac(suite, &server_handshake, &transcript.hash())?;
        say(&mut transcript, MessageType::FINISHED, mac.as_ref().to_vec());

        let master = handshake.into_master()?;
        let hash = transcript.hash();
        let server_application = master.derive("s ap traffic", &hash)?;
        cx.records.install_tx(3, suite, &server_application).map_err(crypto::refused)?;
        let underway = Underway {
            suite,
            client_handshake,
            client_application: master.derive("c ap traffic", &hash)?,
            exporter: ExporterSecret::new(suite, master.derive("exp master", &hash)?),
            transcript,
        };
        self.state = match config.clients {
            ClientAuth::Required(_) | ClientAuth::Requested(_) => State::AwaitCertificate(underway),
            ClientAuth::None => State::AwaitFinished(underway, None),
        };
        Ok(())
    }

    fn certificate(&mut self, body: &[u8], mut underway: Underway) -> Result<Step, Fatal> {
        let chain = parse_certificate(body)?;
        underway.transcript.add(MessageType::CERTIFICATE, body);
        self.state = match (&self.config.clients, chain.is_empty()) {
            (_, false) => State::AwaitSignature(underway, chain),
            (ClientAuth::Requested(_), true) => State::AwaitFinished(underway, None),
            _ => return fail(Alert::CERTIFICATE_REQUIRED, "the client showed no certificate"),
        };
        Ok(Step::More)
    }

    fn signature(
        &mut self,
        body: &[u8],
        mut underway: Underway,
        chain: &[CertificateDer<'static>],
        cx: &Context<'_>,
    ) -> Result<Step, Failure> {
        let (Some(leaf), Some(policy)) = (chain.first(), self.config.clients.policy()) else {
            return Ok(fail(Alert::INTERNAL_ERROR, "a signature without a certificate")?);
        };
        let signature = parse_certificate_verify(body)?;
        crypto::verify(leaf, Signed::ByClient, &underway.transcript.hash(), signature)?;
        let peer = policy.judge(chain, cx.unix_time).map_err(Failure::PeerRefused)?;
        underway.transcript.add(MessageType::CERTIFICATE_VERIFY, body);
        self.state = State::AwaitFinished(underway, peer);
        Ok(Step::More)
    }
}

fn finished(body: &[u8], underway: Underway, peer: Option<PeerIdentity>, cx: &mut Context<'_>) -> Result<Step, Fatal> {
    let Underway { suite, transcript, client_handshake, client_application, exporter } = underway;
    check_finished(suite, &client_handshake, &transcript.hash(), body)?;
    cx.records.install_rx(3, suite, &client_application).map_err(crypto::refused)?;
    Ok(Step::Done(Outcome { peer, exporter }))
}

impl Retried {
    /// The body of the HelloRetryRequest that was sent.
    pub(crate) fn request(&self) -> Vec<u8> {
        write_hello_retry_request(suite_number(self.suite), self.group.map(Group::number), self.cookie.as_deref())
    }
}

/// The group of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupChoice {
    /// The client sent a share of it.
    Shared(Group),
    /// The client can, but sent no share of any group of ours.
    Ask(Group),
}

/// What a server takes of a ClientHello's offers.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) suite: Suite,
    pub(crate) group: GroupChoice,
    pub(crate) protocol: Option<&'a [u8]>,
}

impl<'a> Choice<'a> {
    /// Chooses; the order is the server's. Of the groups the best is taken of which there is a share: asking for a better one
    /// would cost a round trip where no cookie does, and its share may make the second ClientHello too long for a datagram.
    ///
    /// # Errors
    /// As RFC 8446 §4 and §9.2 say for what is missing, not for us, or not allowed.
    pub(crate) fn make(hello: &ClientHello<'a>, config: &ServerConfig) -> Result<Self, Fatal> {
        let settings = &config.settings;
        // `legacy_version` says nothing where versions are listed (RFC 8446 §4.2.1).
        if !hello.offers(DTLS_1_3) {
            return fail(Alert::PROTOCOL_VERSION, "expected a client that speaks DTLS 1.3");
        }
        if !hello.legacy_cookie.is_empty() || hello.compression != [0] {
            return fail(Alert::ILLEGAL_PARAMETER, "expected neither a legacy cookie nor compression");
        }
        if hello.pre_shared_key && !hello.psk_modes {
            return fail(Alert::MISSING_EXTENSION, "expected psk_key_exchange_modes beside pre_shared_key");
        }
        let suite = settings.suites.iter().find(|suite| hello.suites.contains(suite_number(**suite)));
        let Some(suite) = suite.copied() else {
            return fail(Alert::HANDSHAKE_FAILURE, "the client offers no cipher suite of ours");
        };
        let (Some(groups), Some(_), Some(shares)) = (hello.groups, hello.schemes, hello.key_shares) else {
            return fail(
                Alert::MISSING_EXTENSION,
                "expected supported_groups, signature_algorithms and key_share in a ClientHello",
            );
        };
        if shares.iter().any(|(group, _)| !groups.contains(group)) {
            return fail(Alert::ILLEGAL_PARAMETER, "a key share of a group that is not offered");
        }
        let offered = || settings.groups.iter().copied().filter(|group| groups.contains(group.number()));
        let shared = offered().find(|group| hello.share(group.number()).is_some());
        let group = match (shared, offered().next()) {
            (Some(group), _) => GroupChoice::Shared(group),
            (None, Some(group)) => GroupChoice::Ask(group),
            (None, None) => return fail(Alert::HANDSHAKE_FAILURE, "the client offers no group of ours"),
        };
        Ok(Self { suite, group, protocol: choose_protocol(hello, config)? })
    }
}
