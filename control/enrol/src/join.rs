//! Joining by an invitation, from the side of the one who joins (R6, I2–I8).

use std::io;

use prost::Message;
use ringfort_identity::Trust;
use ringfort_proto::v1::{JoinRequest, JoinResponse, Joined, join_response::Answer};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::folder::{Folder, FolderError, Identity, Kind, SignerRefused, file, token_keys};
use crate::invitation::Invitation;
use crate::key::KeyFailed;
use crate::tls::{self, CertificateRefused, OtherKey};
use crate::wall_clock;

/// Longest message of joining, either way.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How long the Controller may take for its answer.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// What the one who joins says of itself.
#[derive(Clone, Debug, Default)]
pub struct Joiner {
    /// Where clients will reach a Gateway: `host:port`, as often as it has addresses.
    pub addresses: Vec<String>,
    /// Client id of a device or of a service's machine (A4).
    pub client_id: String,
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nothing was sent: the server's key is not the one that the invitation names (I3).
    #[error(
        "the server at {address} does not hold the key that the invitation names, and nothing was sent to it: check the address, and ask for a new invitation if the Controller has a new key"
    )]
    KeyMismatch {
        /// Where.
        address: String,
    },
    /// The Controller could not be reached.
    #[error("cannot reach the Controller at {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The invitation was sent, and then the connection was lost.
    #[error("the connection was lost after the invitation was shown ({source}): it may be used up; ask for a new one")]
    Lost {
        /// What the system said.
        source: io::Error,
    },
    /// The Controller refused.
    #[error("{message} [{code}{}{event}]", if event.is_empty() { "" } else { ", event " })]
    Refused {
        /// Stable name.
        code: String,
        /// For people.
        message: String,
        /// The Controller's audit event.
        event: String,
    },
    /// The answer is none.
    #[error("expected the Controller's answer to joining, found something else: {0}")]
    Answer(String),
    /// Our own folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Our own key.
    #[error(transparent)]
    Key(#[from] KeyFailed),
}

impl From<SignerRefused> for JoinError {
    fn from(error: SignerRefused) -> Self {
        Self::Answer(error.to_string())
    }
}

/// Joins by `invitation` and `ticket`, and writes what comes of it into `folder`. The key is made there first and stays.
///
/// # Errors
/// [`JoinError`]. After anything but [`JoinError::KeyMismatch`] and [`JoinError::Unreachable`] the invitation is used up.
pub async fn join(
    invitation: &Invitation,
    ticket: &str,
    joiner: &Joiner,
    folder: &Folder,
) -> Result<Identity, JoinError> {
    let key = folder.key_or_new()?;
    let request = JoinRequest {
        cookie: invitation.cookie().to_vec().into(),
        ticket: ticket.trim().into(),
        certificate_request: key.certificate_request()?.into(),
        addresses: joiner.addresses.clone(),
        client_id: joiner.client_id.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let address = invitation.address();
    let config = tls::invited(*invitation.key_hash()).map_err(|error| JoinError::Answer(error.to_string()))?;
    let mut stream = tls::connect(address, config).await.map_err(|source| {
        let address = address.to_owned();
        let refused = source.get_ref().and_then(|inner| inner.downcast_ref::<CertificateRefused>());
        if refused.is_some_and(CertificateRefused::is::<OtherKey>) {
            JoinError::KeyMismatch { address }
        } else {
            JoinError::Unreachable { address, source }
        }
    })?;
    let exchange = async {
        write_message(&mut stream, &request).await?;
        read_message::<JoinResponse>(&mut stream).await
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, exchange).await.map_err(late).and_then(|answer| answer);
    match answer.map_err(|source| JoinError::Lost { source })?.answer {
        Some(Answer::Joined(joined)) => keep(folder, joined),
        Some(Answer::Refused(refused)) => {
            Err(JoinError::Refused { code: refused.code, message: refused.message, event: refused.event })
        }
        None => Err(JoinError::Answer("an empty message".into())),
    }
}

/// Checks the answer and writes it; the identity last, so that what is half-joined is not joined.
fn keep(folder: &Folder, joined: Joined) -> Result<Identity, JoinError> {
    let Joined { organisation, id, kind, site, user, root, intermediates, chain, signers, controllers } = joined;
    let kind = match kind.as_str() {
        "gateway" => Kind::Gateway,
        "device" => Kind::Device,
        "controller" => Kind::Controller,
        "host" => Kind::Host,
        "service" => Kind::Service,
        "relay" => Kind::Relay,
        other => return Err(JoinError::Answer(format!("a {other:?}"))),
    };
    let der = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
    let intermediates: Vec<_> = intermediates.iter().map(|bytes| der(bytes)).collect();
    let signers: Vec<_> = signers.iter().map(|bytes| der(bytes)).collect();
    let trust = Trust::new(&der(&root), intermediates.clone()).map_err(|error| JoinError::Answer(error.to_string()))?;
    token_keys(&signers, &trust, wall_clock())?;
    folder.write_ca([der(&root)].iter().chain(&intermediates))?;
    folder.write_certificates(file::SIGNERS, &signers)?;
    match kind {
        Kind::Gateway | Kind::Host | Kind::Service | Kind::Relay => {
            folder.write_chain(&chain)?;
            folder.credentials()?;
        }
        // The key that joined is that of its intermediate; it has others for itself.
        Kind::Controller => {
            let intermediate = chain.first().ok_or_else(|| JoinError::Answer("no certificate".into()))?;
            folder.write_certificates(file::ROOT, [&der(&root)])?;
            folder.write_certificates(file::INTERMEDIATE, [&der(intermediate)])?;
            folder.rename(file::KEY, file::INTERMEDIATE_KEY)?;
        }
        // It gets its certificate after login.
        Kind::Device => {}
    }
    let identity = Identity { organisation, kind, id, site, user, controllers };
    folder.write_identity(&identity)?;
    Ok(identity)
}

/// Writes one message: its length in 4 bytes, big-endian, and the message.
///
/// # Errors
/// What the system said; `InvalidInput` for a message longer than [`MESSAGE_BYTES_MAX`].
pub async fn write_message<M: Message>(stream: &mut (impl AsyncWrite + Unpin), message: &M) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MESSAGE_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads one message.
///
/// # Errors
/// What the system said; `InvalidData` for one that is longer than [`MESSAGE_BYTES_MAX`] or cannot be read.
pub async fn read_message<M: Message + Default>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let length = stream.read_u32().await? as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(invalid(format!("expected a message of at most {MESSAGE_BYTES_MAX} bytes, found {length}")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    M::decode(bytes.as_slice()).map_err(|error| invalid(error.to_string()))
}
