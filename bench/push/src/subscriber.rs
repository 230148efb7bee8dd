//! A Gateway's stream and nothing else: it takes pushes and confirms revocations.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper_util::rt::TokioIo;
use ringfort_enrol::tls::{self, ALPN_HTTP2, Expected};
use ringfort_proto::v1::gateway_control_client::GatewayControlClient;
use ringfort_proto::v1::push::What;
use ringfort_proto::v1::subscribe_request::Say;
use ringfort_proto::v1::{Applied, Hello, Push, Serial, SubscribeRequest};
use ringfort_stage::hostile::said;
use ringfort_token::RevocationList;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::PATIENCE;
use crate::organisation::Gateway;

/// Messages to the Controller that wait.
const QUEUE: usize = 16;
/// Bytes of one push: 10,000 revocations have some 2 MB.
const PUSH_BYTES_MAX: usize = 8 << 20;
/// Pause of a Gateway whose Controller does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// A revocation that came to a subscriber.
pub(crate) struct Heard {
    /// Its number.
    pub(crate) n: u64,
    /// When it came.
    pub(crate) at: Instant,
}

/// A stream that has caught up.
pub(crate) struct Subscriber {
    task: JoinHandle<Result<()>>,
}

impl Subscriber {
    /// Begins a stream, from where the Gateway stands, and catches up.
    pub(crate) async fn begin(gateway: &Gateway, heard: mpsc::UnboundedSender<Heard>) -> Result<Self> {
        let from = gateway.standing();
        Self::begin_from(gateway, from, heard).await
    }

    /// The same, as long as the Controller does not answer.
    pub(crate) async fn begin_again_and_again(gateway: &Gateway, heard: mpsc::UnboundedSender<Heard>) -> Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::begin(gateway, heard.clone()).await {
                Err(_) if begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    async fn begin_from(gateway: &Gateway, revocations: Serial, heard: mpsc::UnboundedSender<Heard>) -> Result<Self> {
        let config = tls::client(Some(&gateway.own), &gateway.folder.trust()?, Expected::controller(), ALPN_HTTP2)?;
        let address = gateway.address.clone();
        let connector = tower::service_fn(move |_| {
            let (address, config) = (address.clone(), config.clone());
            async move { tls::connect(&address, config).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://controller").connect_with_connector(connector).await?;
        let mut client = GatewayControlClient::new(channel).max_decoding_message_size(PUSH_BYTES_MAX);
        let (say, said) = mpsc::channel(QUEUE);
        let hello = Hello { revocations: Some(revocations), ..Hello::default() };
        say.send(SubscribeRequest { say: Some(Say::Hello(hello)) }).await?;
        let pushes = client.subscribe(ReceiverStream::new(said)).await?.into_inner();
        let mut stream = Stream { pushes, say, serial: revocations };
        while stream.next().await?.context("the stream ended before it caught up")? != Pushed::CaughtUp {}
        gateway.stand(stream.serial);
        let gateway = gateway.clone();
        let task = tokio::spawn(async move {
            while let Some(pushed) = stream.next().await? {
                if pushed == Pushed::Revocations {
                    let at = Instant::now();
                    // Nobody may ask any more.
                    let _ = heard.send(Heard { n: stream.serial.n, at });
                    gateway.stand(stream.serial);
                }
            }
            Ok(())
        });
        Ok(Self { task })
    }

    /// Ends the stream.
    pub(crate) async fn end(self) {
        self.task.abort();
        // It was told to end.
        let _ = self.task.await;
    }
}

/// What a push was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pushed {
    Revocations,
    CaughtUp,
    Other,
}

struct Stream {
    pushes: Streaming<Push>,
    say: mpsc::Sender<SubscribeRequest>,
    serial: Serial,
}

impl Stream {
    async fn next(&mut self) -> Result<Option<Pushed>> {
        let Some(push) = self.pushes.message().await? else { return Ok(None) };
        Ok(Some(match push.what {
            Some(What::Revocations(token)) => {
                self.take(&token)?;
                let applied = Applied { revocations: Some(self.serial), ..Applied::default() };
                self.say.send(SubscribeRequest { say: Some(Say::Applied(applied)) }).await?;
                Pushed::Revocations
            }
            Some(What::CaughtUp(_)) => Pushed::CaughtUp,
            _ => Pushed::Other,
        }))
    }

    /// Goes on to where a list leads, which must follow what is known.
    fn take(&mut self, token: &str) -> Result<()> {
        let list: RevocationList = said(token)?;
        if list.epoch == self.serial.epoch && list.after != self.serial.n {
            bail!("expected revocations after {}, found some after {}", self.serial.n, list.after);
        }
        self.serial = Serial { epoch: list.epoch, n: list.upto() };
        Ok(())
    }
}
