//! Somebody with real credentials and other people's intentions: shows tokens that are not good at a Gateway's session channel
//! and certificates of the wrong role at the Controller's gRPC port, and tells how that ended.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use ringfort_enrol::Folder;
use ringfort_enrol::tls::{self, ALPN_HTTP2, ALPN_SESSION, Expected, OwnCertificate};
use ringfort_identity::Role;
use ringfort_proto::v1::gateway_control_client::GatewayControlClient;
use ringfort_proto::v1::{self, to_client, to_gateway};
use ringfort_token::{SigningKey, Token};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tonic::transport::Endpoint;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stable code.
    pub code: String,
    /// The audit event of whoever refused.
    pub event: String,
}

/// Opens a session channel to `gateway` with the credentials in the client's folder `folder` and presents two texts as claims
/// and entitlement token. To be called in the namespace of the client.
///
/// # Errors
/// When the Gateway does not refuse.
pub fn present(folder: &Path, gateway: SocketAddr, claims: &str, entitlement: &str) -> Result<Refused> {
    blocking(async {
        let (folder, _) = Folder::open_joined(folder)?;
        let own = OwnCertificate::new(&folder.credentials()?)?;
        let expected = Expected { role: Role::Gateway, id: None, digests: Vec::new() };
        let config = tls::client(Some(&own), &folder.trust()?, expected, ALPN_SESSION)?;
        let stream = tls::connect(&gateway.to_string(), config).await?;
        let (mut socket, _) = client_async("ws://gateway/", stream).await?;
        let present = v1::Present { claims: claims.into(), entitlement: entitlement.into(), device: [].into() };
        let present = v1::ToGateway { say: Some(to_gateway::Say::Present(present)) };
        socket.send(Message::Binary(present.encode_to_vec().into())).await?;
        while let Some(message) = socket.next().await {
            let Message::Binary(bytes) = message? else { continue };
            match v1::ToClient::decode(bytes)?.say {
                Some(to_client::Say::Goodbye(v1::Goodbye { code, event, .. })) => return Ok(Refused { code, event }),
                Some(to_client::Say::Accepted(_)) => bail!("expected a refusal, and the tokens were accepted"),
                _ => {}
            }
        }
        bail!("the channel ended without a word")
    })
}

/// Subscribes at the Controller's gRPC port as a Gateway would, with the certificate of the client in `folder`. To be called in the
/// namespace of the client.
///
/// # Errors
/// When the Controller does not refuse.
pub fn subscribe(folder: &Path, controller: SocketAddr) -> Result<Refused> {
    blocking(async {
        let (folder, _) = Folder::open_joined(folder)?;
        let own = OwnCertificate::new(&folder.credentials()?)?;
        let config = tls::client(Some(&own), &folder.trust()?, Expected::controller(), ALPN_HTTP2)?;
        let connector = tower::service_fn(move |_| {
            let config = config.clone();
            async move { tls::connect(&controller.to_string(), config).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://controller").connect_with_connector(connector).await?;
        let hello = v1::SubscribeRequest { say: Some(v1::subscribe_request::Say::Hello(v1::Hello::default())) };
        let mut client = GatewayControlClient::new(channel);
        let status = match client.subscribe(tokio_stream::iter([hello])).await {
            Err(status) => status,
            Ok(mut stream) => match stream.get_mut().message().await {
                Err(status) => status,
                Ok(_) => bail!("expected a refusal, and the stream began"),
            },
        };
        let text = |name| status.metadata().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let code = text("ringfort-code").with_context(|| format!("a refusal without a code: {status}"))?;
        Ok(Refused { code, event: text("ringfort-event").unwrap_or_default() })
    })
}

/// `token` with one bit of its signature changed.
///
/// # Errors
/// When it is no token.
pub fn bit_flipped(token: &str) -> Result<String> {
    let (message, signature) = token.rsplit_once('.').context("no token")?;
    let mut bytes = URL_SAFE_NO_PAD.decode(signature)?;
    *bytes.first_mut().context("no signature")? ^= 1;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What `token` says, signed by a key that is not its Controller's.
///
/// # Errors
/// When it is no token of the kind.
pub fn foreign<T: Token>(token: &str) -> Result<String> {
    let claims: T = said(token)?;
    let key = Ed25519KeyPair::generate().context("no key")?.to_pkcs8().context("no key")?;
    Ok(SigningKey::from_pkcs8(key.as_ref())?.sign(&claims)?.as_str().into())
}

/// What `token` says, believed without a look at its signature.
///
/// # Errors
/// When it is no token of the kind.
pub fn said<T: Token>(token: &str) -> Result<T> {
    let payload = token.split('.').nth(1).context("no token")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

fn blocking<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.context("no answer in time")? })
}
