//! The server of DTLS 1.2 (RFC 6347 §4.2, RFC 5246 §7.3), from the ClientHello whose address is known to be its sender's.
//!
//! ```text
//!  AwaitHello ──ClientHello──▶ AwaitFlight ──Finished──▶ done
//!                               Certificate, ClientKeyExchange, CertificateVerify in the clear, Finished sealed
//! ```
//!
//! Up to the Finished everything is in the clear, so nothing of it is believed for good. Certificate and ClientKeyExchange make
//! keys; a record that these open proves both, since the master secret depends on them and on all before (RFC 7627), and the
//! Finished in it proves the CertificateVerify too. Only then is the signature checked and the certificate judged: whatever is
//! refused then was the peer's own. What does not fit before that is waited for to come again.
//!
//! ChangeCipherSpec needs no reading: an epoch says what it says (RFC 6347 §4.1).

use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::choice12::Choice12;
use super::client_flight::{ClientFlight, Heard, Part};
use super::reassembly::Message;
use super::{Context, Failure, Outcome, Step, unexpected};
use crate::alert::{Alert, Fatal, fail};
use crate::cid::ConnectionId;
use crate::config::{ClientAuth, ServerConfig};
use crate::cookie::Parameters;
use crate::crypto::{self, ExporterSecret, KeyShare, Master12, SCHEMES_12, Signed, Transcript12, choose_signer};
use crate::record::{Keys12, RecordLayer, Suite};
use crate::wire::hello::ClientHello;
use crate::wire::messages::{Fragment, MessageType, parse_certificate_verify};
use crate::wire::messages12::{
    ServerHello12, parse_certificate_12, parse_client_key_exchange, write_certificate_12, write_certificate_request_12,
    write_key_exchange_parameters, write_server_key_exchange,
};

/// The end of the random by which a server says that it speaks DTLS 1.3 too: a client that does likewise learns that somebody
/// has taken its offer away (RFC 8446 §4.1.3).
const DOWNGRADE_TO_12: [u8; 8] = *b"DOWNGRD\x01";
/// How often keys are made of what came in the clear, and signatures are tried: each key exchange costs about 25 µs.
const ATTEMPTS_MAX: u8 = 32;

/// A first ClientHello that was answered by a HelloVerifyRequest, as its sender's second one needs it.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) cookie: Vec<u8>,
    pub(crate) parameters: Parameters,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Server12 {
    config: Arc<ServerConfig>,
    random: [u8; 32],
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    AwaitHello(Option<Verified>),
    AwaitFlight(Box<Underway>),
    Over,
}

#[derive(Clone, Debug)]
struct Underway {
    suite: Suite,
    share: Arc<KeyShare>,
    client_random: [u8; 32],
    /// Up to ServerHelloDone.
    transcript: Transcript12,
    cids: Option<(ConnectionId, ConnectionId)>,
    flight: ClientFlight,
    agreed: Option<Agreed>,
    finished: Option<Message>,
    attempts_left: u8,
}

/// What comes of a Certificate and a ClientKeyExchange.
#[derive(Clone, Debug)]
struct Agreed {
    /// Up to ClientKeyExchange.
    transcript: Transcript12,
    chain: Vec<CertificateDer<'static>>,
    master: Master12,
    server_keys: Keys12,
}

impl Server12 {
    /// A server that awaits a ClientHello: the second one, if `verified` says what it must be like. `random` is its hello's.
    pub(crate) fn new(config: Arc<ServerConfig>, mut random: [u8; 32], verified: Option<Verified>) -> Self {
        if let Some(end) = random.last_chunk_mut() {
            *end = DOWNGRADE_TO_12;
        }
        Self { config, random, state: State::AwaitHello(verified) }
    }

    /// The epoch in which the next message is welcome that counts: what is in the clear behind the hello is for
    /// [`Server12::handle_fragment`].
    pub(crate) const fn epoch(&self) -> u64 {
        match self.state {
            State::AwaitHello(_) => 0,
            _ => 1,
        }
    }

    /// Whether this hello would be taken in the place of the one that is awaited.
    pub(crate) fn would_take(&self, body: &[u8]) -> bool {
        let State::AwaitHello(verified) = &self.state else { return false };
        ClientHello::parse(body).is_ok_and(|hello| self.check(&hello, verified.as_ref()).is_ok())
    }

    /// Takes the ClientHello, or a message that came sealed. A hello that is refused changes nothing.
    pub(crate) fn handle_message(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<Step, Failure> {
        match (&mut self.state, message.kind) {
            (State::AwaitHello(_), MessageType::CLIENT_HELLO) => Ok(self.hello(message, cx)?),
            (State::AwaitFlight(underway), MessageType::FINISHED) => {
                underway.finished = Some(message.clone());
                self.conclude(cx)
            }
            (_, kind) => Ok(unexpected(kind)?),
        }
    }

    /// Takes a fragment of the client's second flight, as far as that is in the clear. What is wrong with it is
    /// [`Step::Refused`] as long as somebody else may have sent it.
    ///
    /// # Errors
    /// What the client itself has done wrong.
    pub(crate) fn handle_fragment(&mut self, fragment: &Fragment<'_>, cx: &mut Context<'_>) -> Result<Step, Failure> {
        let State::AwaitFlight(underway) = &mut self.state else { return Ok(Step::More) };
        // A record that the keys have opened has proved what they come of, and a signature costs nothing before.
        let is_too_late = match (underway.finished.is_some(), fragment.kind == MessageType::CERTIFICATE_VERIFY) {
            (true, false) => true,
            (false, true) => false,
            _ => underway.attempts_left == 0,
        };
        if is_too_late {
            return Ok(Step::More);
        }
        match underway.flight.handle_fragment(fragment) {
            Heard::Nothing => Ok(Step::More),
            Heard::Wrong(fatal) => Ok(Step::Refused(fatal)),
            Heard::Whole(Part::Signature, _) => self.conclude(cx),
            Heard::Whole(part, before) => match underway.agree(&self.random, cx) {
                Ok(()) => Ok(Step::More),
                Err((to_blame, fatal)) => {
                    underway.flight.put_back(to_blame, before.filter(|_| to_blame == part));
                    Ok(Step::Refused(fatal))
                }
            },
        }
    }

    /// Refuses a sealed Finished that has another place than what was said in the clear leaves for it: a signature is missing
    /// before it, or is there without a certificate. Its sender has said so himself, as the keys are of what he said.
    pub(crate) fn check_place(&self, content: &[u8]) -> Result<(), Fatal> {
        let State::AwaitFlight(underway) = &self.state else { return Ok(()) };
        let (Some(agreed), Some((fragment, _))) = (&underway.agreed, Fragment::split_first(content)) else {
            return Ok(());
        };
        let place = underway.flight.finished(!agreed.chain.is_empty());
        if fragment.kind == MessageType::FINISHED && fragment.sequence != place {
            return fail(Alert::UNEXPECTED_MESSAGE, "a Finished with a message too few or too many before it");
        }
        Ok(())
    }

    fn check<'a>(&self, hello: &ClientHello<'a>, verified: Option<&Verified>) -> Result<Choice12<'a>, Fatal> {
        let is_as_asked = match verified {
            Some(Verified { cookie, parameters }) => {
                hello.legacy_cookie == cookie && Parameters::of(hello) == *parameters
            }
            None => hello.legacy_cookie.is_empty(),
        };
        if !is_as_asked {
            return fail(Alert::ILLEGAL_PARAMETER, "expected the first ClientHello with the cookie that it was given");
        }
        Choice12::make(hello, &self.config)
    }

    /// The whole of our flight, from ServerHello to ServerHelloDone.
    fn hello(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<Step, Fatal> {
        let hello = ClientHello::parse(&message.body)?;
        let State::AwaitHello(verified) = &self.state else { return unexpected(message.kind) };
        let choice = self.check(&hello, verified.as_ref())?;
        let config = Arc::clone(&self.config);
        let signer = choose_signer(&config.own.key, &SCHEMES_12, hello.schemes.unwrap_or_default())?;
        let share = KeyShare::new(choice.group)?;
        let parameters = write_key_exchange_parameters(choice.group.number(), share.public());
        let signed = [&hello.random[..], &self.random, &parameters].concat();
        let (scheme, signature) = crypto::sign_12(&*signer, &signed)?;

        let mut transcript = Transcript12::default();
        transcript.add(MessageType::CLIENT_HELLO, message.sequence, &message.body);
        cx.exchange.begin_answer();
        // An id longer than we care to send is not agreed on.
        let cids = cx.local_cid.zip(hello.connection_id.and_then(ConnectionId::new));
        let mut say = |kind, body: Vec<u8>| {
            transcript.add(kind, cx.exchange.next_out(), &body);
            cx.exchange.send(kind, body, 0);
        };
        let server_hello = ServerHello12 {
            random: &self.random,
            suite: choice.suite_number,
            renegotiation_info: choice.renegotiation_info,
            point_formats: hello.point_formats.is_some(),
            protocol: choice.protocol,
            connection_id: cids.as_ref().map(|(local, _)| local.as_bytes()),
        };
        say(MessageType::SERVER_HELLO, server_hello.write());
        say(MessageType::CERTIFICATE, write_certificate_12(&config.own.chain));
        say(MessageType::SERVER_KEY_EXCHANGE, write_server_key_exchange(&parameters, scheme, &signature));
        let is_asked = config.clients.policy().is_some();
        if is_asked {
            say(MessageType::CERTIFICATE_REQUEST, write_certificate_request_12(&SCHEMES_12, &config.authorities));
        }
        say(MessageType::SERVER_HELLO_DONE, Vec::new());
        set_cids(cx.records, cids);
        self.state = State::AwaitFlight(Box::new(Underway {
            suite: choice.suite,
            share: Arc::new(share),
            client_random: hello.random,
            transcript,
            cids,
            flight: ClientFlight::new(message.sequence.saturating_add(1), is_asked),
            agreed: None,
            finished: None,
            attempts_left: ATTEMPTS_MAX,
        }));
        Ok(Step::More)
    }

    /// Finishes the handshake, if all for it is there.
    fn conclude(&mut self, cx: &mut Context<'_>) -> Result<Step, Failure> {
        let State::AwaitFlight(underway) = &mut self.state else { return Ok(Step::More) };
        let Underway { suite, client_random, flight, agreed, finished, attempts_left, .. } = &mut **underway;
        let (Some(agreed), Some(finished)) = (agreed, finished) else { return Ok(Step::More) };
        let mut transcript = agreed.transcript.clone();
        let signed = transcript.as_bytes().len();
        let signature = match agreed.chain.is_empty() {
            true => None,
            false => match flight.whole(Part::Signature) {
                Some((number, body)) => {
                    transcript.add(MessageType::CERTIFICATE_VERIFY, number, body);
                    Some(body.to_vec())
                }
                None => return Ok(Step::More),
            },
        };
        if let Err(fatal) = agreed.master.check_finished(&transcript.hash(*suite), &finished.body) {
            if signature.is_none() || fatal.alert == Alert::DECODE_ERROR {
                return Err(fatal.into());
            }
            // The signature may be somebody else's, and the right one still to come.
            flight.put_back(Part::Signature, None);
            *attempts_left = attempts_left.saturating_sub(1);
            return Ok(Step::Refused(fatal));
        }
        // All is the client's own.
        let peer = match (&self.config.clients, agreed.chain.first(), signature) {
            (ClientAuth::Required(policy) | ClientAuth::Requested(policy), Some(leaf), Some(body)) => {
                let signature = parse_certificate_verify(&body)?;
                crypto::verify_12(leaf, &transcript.as_bytes()[..signed], signature)?;
                policy.judge(&agreed.chain, cx.unix_time).map_err(Failure::PeerRefused)?
            }
            (ClientAuth::Required(_), ..) => {
                return Ok(fail(Alert::HANDSHAKE_FAILURE, "the client showed no certificate")?);
            }
            (ClientAuth::Requested(_) | ClientAuth::None, ..) => None,
        };
        transcript.add(MessageType::FINISHED, finished.sequence, &finished.body);
        cx.records.install_tx12(&agreed.server_keys).map_err(crypto::refused)?;
        cx.exchange.begin_last_flight();
        let data = agreed.master.verify_data(Signed::ByServer, &transcript.hash(*suite));
        cx.exchange.send(MessageType::FINISHED, data.to_vec(), 1);
        let exporter = ExporterSecret::new_12(agreed.master.clone(), [*client_random, self.random]);
        self.state = State::Over;
        Ok(Step::Done(Outcome { peer, exporter }))
    }
}

impl Underway {
    /// Makes the keys, if there is all that they come of. Nothing changes if that cannot be.
    ///
    /// # Errors
    /// What is wrong, and with which part.
    fn agree(&mut self, server_random: &[u8; 32], cx: &mut Context<'_>) -> Result<(), (Part, Fatal)> {
        let certificate = self.flight.whole(Part::Certificate);
        let chain = match certificate {
            Some((_, body)) => parse_certificate_12(body).map_err(|fatal| (Part::Certificate, fatal))?,
            None => Vec::new(),
        };
        let Some((number, key)) = self.flight.whole(Part::Key) else { return Ok(()) };
        let point = parse_client_key_exchange(key).map_err(|fatal| (Part::Key, fatal))?;
        if certificate.is_none() && !self.flight.is_first(number) {
            return Ok(());
        }
        self.attempts_left -= 1;
        let secret = self.share.complete(point).map_err(|fatal| (Part::Key, fatal))?;
        let mut transcript = self.transcript.clone();
        if let Some((number, body)) = certificate {
            transcript.add(MessageType::CERTIFICATE, number, body);
        }
        transcript.add(MessageType::CLIENT_KEY_EXCHANGE, number, key);
        let (master, (client_keys, server_keys)) = Master12::new(self.suite, &secret, &transcript.hash(self.suite))
            .and_then(|master| Ok((master.clone(), master.keys(&self.client_random, server_random)?)))
            .map_err(|fatal| (Part::Key, fatal))?;
        // Keys of what is believed no more go.
        cx.records.forget_keys();
        set_cids(cx.records, self.cids);
        cx.records.install_rx12(&client_keys).map_err(|error| (Part::Key, crypto::refused(error)))?;
        cx.exchange.expect(self.flight.finished(!chain.is_empty()));
        self.agreed = Some(Agreed { transcript, chain, master, server_keys });
        Ok(())
    }
}

/// Ours and the peer's connection ids, if they are agreed on.
const fn set_cids(records: &mut RecordLayer, ids: Option<(ConnectionId, ConnectionId)>) {
    if let Some((local, peer)) = ids {
        records.set_local_cid(local);
        records.set_peer_cid(peer);
    }
}
