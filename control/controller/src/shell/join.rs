//! The door for those who join (I2–I8): one message in, one out, and the connection is closed.

use std::io;
use std::sync::Arc;

use ringfort_enrol::{read_message, wall_clock, write_message};
use ringfort_proto::v1::join_response::Answer;
use ringfort_proto::v1::{JoinRefused, JoinRequest, JoinResponse};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::caller::Caller;
use super::limits::JOIN_TIME;
use super::{Shell, counted};
use crate::core::Refused;

/// Serves one joiner, within [`JOIN_TIME`].
pub(crate) async fn serve(shell: &Arc<Shell>, caller: &Caller, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    match timeout(JOIN_TIME, exchange(shell, caller, &mut stream)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(address = %caller.address(), %error, "joiner lost"),
        Err(_) => shell.counters.count(counted::JOINS_LATE),
    }
}

async fn exchange(
    shell: &Arc<Shell>,
    caller: &Caller,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let answer = match read_message::<JoinRequest>(stream).await {
        Ok(request) => shell.core.join(request, wall_clock()).await,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Refused::malformed(error.to_string())),
        Err(error) => return Err(error),
    };
    let answer = match answer {
        Ok(joined) => {
            shell.counters.count(counted::JOINED);
            Answer::Joined(joined)
        }
        Err(refused) => {
            let event = shell.refuse(caller, "join", "", &refused).await;
            Answer::Refused(JoinRefused { code: refused.code.into(), message: refused.message, event })
        }
    };
    write_message(stream, &JoinResponse { answer: Some(answer) }).await?;
    stream.shutdown().await
}
