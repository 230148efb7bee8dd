//! The client of DTLS 1.3 (RFC 9147 §6, RFC 8446 §2).
//!
//! ```text
//!  ClientHello ─▶ AwaitHello ──ServerHello──▶ AwaitExtensions ─▶ AwaitCertificate ─▶ AwaitSignature ─▶ AwaitFinished ─▶ done
//!                   │  ▲                                          (a CertificateRequest before it, or none)
//!                   ╰──╯ HelloRetryRequest, once
//! ```
//!
//! The first ClientHello carries no key share: a server of ours asks for a cookie before anything else, and with it for the best
//! group that both know, so that a share in the first hello would be made in vain, and a hybrid one would not fit into its
//! datagram. The second one has the cookie in front, so that it is in the first fragment.

use std::sync::Arc;

use ringfort_identity::PeerIdentity;
use rustls_pki_types::CertificateDer;

use super::reassembly::Message;
use super::{Context, Failure, Outcome, Step, suite_from_number, suite_number, unexpected};
use crate::alert::{Alert, Fatal, fail};
use crate::cid::ConnectionId;
use crate::config::ClientConfig;
use crate::crypto::{
    self, ExporterSecret, Group, KeyShare, Randomness, SCHEMES_13, Schedule, Signed, Transcript, check_finished,
    choose_signer, finished_mac,
};
use crate::record::{PLAIN_HEADER_BYTES, Secret, Suite};
use crate::wire::U16List;
use crate::wire::hello::{ClientOffer, ServerHello};
use crate::wire::messages::{
    HEADER_BYTES, MessageType, parse_certificate, parse_certificate_request, parse_certificate_verify,
    parse_encrypted_extensions, write_certificate, write_certificate_verify,
};

/// Our ClientHello is at least so long: a server's answer with a cookie is then never longer, and so need not be refused for
/// amplifying (RFC 9147 §5.1). With the headers it stays below 300 bytes.
const HELLO_BODY_BYTES_MIN: usize = 250;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Client13 {
    config: Arc<ClientConfig>,
    /// Where the randoms of our hellos come from: each attempt has another.
    randomness: Randomness,
    random: [u8; 32],
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    AwaitHello(Hello),
    AwaitExtensions(Underway),
    AwaitCertificate(Underway, Option<Request>),
    AwaitSignature(Underway, Option<Request>, Vec<CertificateDer<'static>>),
    AwaitFinished(Underway, Option<Request>, Option<PeerIdentity>),
    Over,
}

/// What was said before the server's hello.
#[derive(Clone, Debug)]
struct Hello {
    /// Our newest ClientHello.
    body: Vec<u8>,
    share: Option<Arc<KeyShare>>,
    retry: Option<Retry>,
}

#[derive(Clone, Debug)]
struct Retry {
    suite: Suite,
    transcript: Transcript,
}

#[derive(Clone, Debug)]
struct Underway {
    suite: Suite,
    transcript: Transcript,
    handshake: Schedule,
    client_handshake: Secret,
    server_handshake: Secret,
}

/// A CertificateRequest.
#[derive(Clone, Debug)]
struct Request {
    context: Vec<u8>,
    schemes: Vec<u8>,
}

impl Client13 {
    /// Begins: the ClientHello is in the exchange. `seed` is 32 random bytes.
    pub(crate) fn new(config: Arc<ClientConfig>, seed: &[u8; 32], cx: &mut Context<'_>) -> Self {
        let mut client = Self { config, randomness: Randomness::new(seed), random: [0; 32], state: State::Over };
        client.begin_anew(cx);
        client
    }

    /// Forgets what has been said and says the first hello of another attempt.
    pub(crate) fn begin_anew(&mut self, cx: &mut Context<'_>) {
        self.random = self.randomness.draw();
        let body = self.offer(None, None, cx);
        cx.exchange.send(MessageType::CLIENT_HELLO, body.clone(), 0);
        self.state = State::AwaitHello(Hello { body, share: None, retry: None });
    }

    /// Whether the second hello, with the cookie, has gone out and nothing has come back.
    pub(crate) const fn awaits_answer_to_cookie(&self) -> bool {
        matches!(&self.state, State::AwaitHello(hello) if hello.retry.is_some())
    }

    fn offer(&self, cookie: Option<&[u8]>, share: Option<&KeyShare>, cx: &Context<'_>) -> Vec<u8> {
        let settings = &self.config.settings;
        let suites: Vec<u16> = settings.suites.iter().map(|suite| suite_number(*suite)).collect();
        let groups: Vec<u16> = settings.groups.iter().map(|group| group.number()).collect();
        ClientOffer {
            random: self.random,
            cookie,
            suites: &suites,
            groups: &groups,
            schemes: &SCHEMES_13,
            share: share.map(|share| (share.group().number(), share.public())),
            connection_id: cx.local_cid.as_ref().map(ConnectionId::as_bytes),
            protocol: settings.protocol.as_deref().unwrap_or_default(),
            body_bytes_min: HELLO_BODY_BYTES_MIN
                .min(settings.handshake_datagram_bytes_max - PLAIN_HEADER_BYTES - HEADER_BYTES),
        }
        .write()
    }

    /// The epoch in which the next message is welcome.
    pub(crate) const fn epoch(&self) -> u64 {
        match self.state {
            State::AwaitHello(_) => 0,
            _ => 2,
        }
    }

    /// Takes the next message. One in the clear that is refused changes nothing: another may come in its place.
    pub(crate) fn handle_message(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<Step, Failure> {
        let Message { kind, body, .. } = message;
        if let State::AwaitHello(hello) = &self.state {
            self.state = match *kind {
                MessageType::SERVER_HELLO => self.server_hello(body, hello, cx)?,
                kind => return Ok(unexpected(kind)?),
            };
            return Ok(Step::More);
        }
        let state = std::mem::replace(&mut self.state, State::Over);
        self.state = match (state, *kind) {
            (State::AwaitExtensions(mut underway), MessageType::ENCRYPTED_EXTENSIONS) => {
                self.check_extensions(body)?;
                underway.transcript.add(*kind, body);
                State::AwaitCertificate(underway, None)
            }
            (State::AwaitCertificate(mut underway, None), MessageType::CERTIFICATE_REQUEST) => {
                let (context, schemes) = parse_certificate_request(body)?;
                if !context.is_empty() {
                    return Ok(fail(Alert::ILLEGAL_PARAMETER, "expected a CertificateRequest without context")?);
                }
                let schemes = schemes.iter().flat_map(u16::to_be_bytes).collect();
                underway.transcript.add(*kind, body);
                State::AwaitCertificate(underway, Some(Request { context: context.to_vec(), schemes }))
            }
            (State::AwaitCertificate(mut underway, request), MessageType::CERTIFICATE) => {
                let chain = parse_certificate(body)?;
                if chain.is_empty() {
                    return Ok(fail(Alert::DECODE_ERROR, "the server showed no certificate")?);
                }
                underway.transcript.add(*kind, body);
                State::AwaitSignature(underway, request, chain)
            }
            (State::AwaitSignature(mut underway, request, chain), MessageType::CERTIFICATE_VERIFY) => {
                let Some(leaf) = chain.first() else {
                    return Ok(fail(Alert::INTERNAL_ERROR, "a signature without a certificate")?);
                };
                let signature = parse_certificate_verify(body)?;
                crypto::verify(leaf, Signed::ByServer, &underway.transcript.hash(), signature)?;
                let peer = self.config.servers.judge(&chain, cx.unix_time).map_err(Failure::PeerRefused)?;
                underway.transcript.add(*kind, body);
                State::AwaitFinished(underway, request, peer)
            }
            (State::AwaitFinished(underway, request, peer), MessageType::FINISHED) => {
                return Ok(self.finished(body, underway, request, peer, cx)?);
            }
            (_, kind) => return Ok(unexpected(kind)?),
        };
        Ok(Step::More)
    }

    fn server_hello(&self, body: &[u8], hello: &Hello, cx: &mut Context<'_>) -> Result<State, Fatal> {
        let server = ServerHello::parse(body)?;
        let settings = &self.config.settings;
        let suite = suite_from_number(server.suite).filter(|suite| settings.suites.contains(suite));
        let Some(suite) = suite else {
            return fail(
                Alert::ILLEGAL_PARAMETER,
                format!("the server chose suite {:#06x}, which was not offered", server.suite),
            );
        };
        if server.is_retry {
            return self.retry(body, &server, suite, hello, cx);
        }
        let Hello { body: our_hello, share, retry } = hello;
        let mut transcript = match retry {
            Some(retry) if retry.suite != suite => {
                return fail(Alert::ILLEGAL_PARAMETER, "the server changed the suite after its HelloRetryRequest");
            }
            Some(retry) => retry.transcript.clone(),
            None => Transcript::new(suite),
        };
        if !server.has_key_share {
            return fail(Alert::MISSING_EXTENSION, "a ServerHello without a key share");
        }
        let Some(share) = share.as_ref().filter(|share| share.group().number() == server.group) else {
            return fail(Alert::ILLEGAL_PARAMETER, "the server answers a key share that was not sent");
        };
        let ids = match (cx.local_cid, server.connection_id) {
            (_, None) => None,
            (None, Some(_)) => return fail(Alert::UNSUPPORTED_EXTENSION, "a connection id that was not offered"),
            (Some(local), Some(peer)) => {
                let Some(peer) = ConnectionId::new(peer) else {
                    return fail(Alert::ILLEGAL_PARAMETER, "a connection id longer than we send");
                };
                Some((local, peer))
            }
        };
        transcript.add(MessageType::CLIENT_HELLO, our_hello);
        transcript.add(MessageType::SERVER_HELLO, body);
        let secret = share.complete(server.share)?;
        let handshake = Schedule::handshake(suite, &secret)?;
        let hash = transcript.hash();
        let client_handshake = handshake.derive("c hs traffic", &hash)?;
        let server_handshake = handshake.derive("s hs traffic", &hash)?;
        if let Some((local, peer)) = ids {
            cx.records.set_local_cid(local);
            cx.records.set_peer_cid(peer);
        }
        cx.exchange.begin_answer();
        cx.records.install_rx(2, suite, &server_handshake).map_err(crypto::refused)?;
        cx.records.install_tx(2, suite, &client_handshake).map_err(crypto::refused)?;
        Ok(State::AwaitExtensions(Underway { suite, transcript, handshake, client_handshake, server_handshake }))
    }

    /// Says hello again, as the server asks.
    fn retry(
        &self,
        body: &[u8],
        server: &ServerHello<'_>,
        suite: Suite,
        hello: &Hello,
        cx: &mut Context<'_>,
    ) -> Result<State, Fatal> {
        if hello.retry.is_some() {
            return fail(Alert::UNEXPECTED_MESSAGE, "a second HelloRetryRequest");
        }
        let share = if server.has_key_share {
            let group = Group::from_number(server.group).filter(|group| self.config.settings.groups.contains(group));
            let Some(group) = group else {
                return fail(Alert::ILLEGAL_PARAMETER, "the server asks for a group that was not offered");
            };
            Some(Arc::new(KeyShare::new(group)?))
        } else if server.cookie.is_none() {
            return fail(
                Alert::ILLEGAL_PARAMETER,
                "a HelloRetryRequest that asks for nothing (RFC 8446 section 4.1.4)",
            );
        } else {
            // It asks for nothing but the cookie, and will ask for a group never: without a share there is no handshake.
            return fail(
                Alert::HANDSHAKE_FAILURE,
                "a HelloRetryRequest without a group in answer to a hello without shares",
            );
        };
        let hash = Transcript::hash_of(suite, MessageType::CLIENT_HELLO, &hello.body);
        let mut transcript = Transcript::after_retry(suite, hash.as_bytes());
        transcript.add(MessageType::SERVER_HELLO, body);
        let body = self.offer(server.cookie, share.as_deref(), cx);
        cx.exchange.begin_answer();
        cx.exchange.send(MessageType::CLIENT_HELLO, body.clone(), 0);
        Ok(State::AwaitHello(Hello { body, share, retry: Some(Retry { suite, transcript }) }))
    }

    fn check_extensions(&self, body: &[u8]) -> Result<(), Fatal> {
        match (parse_encrypted_extensions(body)?, &self.config.settings.protocol) {
            (None, _) => Ok(()),
            (Some(chosen), Some(ours)) if chosen == ours => Ok(()),
            (Some(_), Some(_)) => fail(Alert::ILLEGAL_PARAMETER, "the server chose a protocol that was not offered"),
            (Some(_), None) => fail(Alert::UNSUPPORTED_EXTENSION, "the server names a protocol and was not asked"),
        }
    }

    fn finished(
        &self,
        body: &[u8],
        underway: Underway,
        request: Option<Request>,
        peer: Option<PeerIdentity>,
        cx: &mut Context<'_>,
    ) -> Result<Step, Fatal> {
        let Underway { suite, mut transcript, handshake, client_handshake, server_handshake } = underway;
        check_finished(suite, &server_handshake, &transcript.hash(), body)?;
        transcript.add(MessageType::FINISHED, body);
        let master = handshake.into_master()?;
        let hash = transcript.hash();
        let client_application = master.derive("c ap traffic", &hash)?;
        let server_application = master.derive("s ap traffic", &hash)?;
        let exporter = ExporterSecret::new(suite, master.derive("exp master", &hash)?);

        cx.exchange.begin_answer();
        let mut say = |transcript: &mut Transcript, kind, body: Vec<u8>| {
            transcript.add(kind, &body);
            cx.exchange.send(kind, body, 2);
        };
        if let Some(Request { context, schemes }) = request {
            let own = self.config.own.as_ref();
            let chain = own.map(|own| &*own.chain).unwrap_or_default();
            say(&mut transcript, MessageType::CERTIFICATE, write_certificate(&context, chain));
            if let Some(own) = own {
                let signer = choose_signer(&own.key, &SCHEMES_13, U16List::parse("signature_algorithms", &schemes)?)?;
                let (scheme, signature) = crypto::sign(&*signer, Signed::ByClient, &transcript.hash())?;
                let body = write_certificate_verify(scheme, &signature);
                say(&mut transcript, MessageType::CERTIFICATE_VERIFY, body);
            }
        }
        let mac = finished_mac(suite, &client_handshake, &transcript.hash())?;
        say(&mut transcript, MessageType::FINISHED, mac.as_ref().to_vec());
        cx.records.install_rx(3, suite, &server_application).map_err(crypto::refused)?;
        cx.records.install_tx(3, suite, &client_application).map_err(crypto::refused)?;
        Ok(Step::Done(Outcome { peer, exporter }))
    }
}
