//! A new epoch, after a database was restored from a backup.

use sqlx::{query, query_as, query_scalar};

use super::{Connection, int};

/// Numbers that a restored database may have given since its backup and does not know: so many for each second since the
/// organisation was founded are passed over.
const NUMBERS_PER_SECOND: i64 = 1 << 20;

/// Begins the epoch `epoch` by the one signer `signer`, whose certificate has that digest: whatever was counted goes on above all that can have been given before, nobody is logged in, and
/// no invitation is open. Gives the users and the generation from which on their tokens are good.
pub(crate) async fn begin_epoch(
    c: &mut Connection,
    epoch: u64,
    signer: &str,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let (founded,): (i64,) = query_as("SELECT founded FROM organisation").fetch_one(&mut *c).await?;
    let seconds = int(epoch).saturating_sub(founded);
    let numbers = seconds.saturating_mul(NUMBERS_PER_SECOND);
    // A sequence that is new here may be one that was begun since the backup, above all that there were then.
    let highest: i64 = query_scalar("SELECT COALESCE(MAX(seq), 0) FROM sequences").fetch_one(&mut *c).await?;
    let begin = query(
        "UPDATE organisation SET epoch = $1, \
         sequences_from = $2 + CASE WHEN sequences_from < $3 THEN $3 ELSE sequences_from END",
    );
    begin.bind(int(epoch)).bind(numbers).bind(highest).execute(&mut *c).await?;
    let sequences =
        "UPDATE sequences SET seq = seq + $1, pushed_seq = CASE WHEN pushed_seq > 0 THEN pushed_seq + $1 ELSE 0 END";
    query(sequences).bind(numbers).execute(&mut *c).await?;
    let configurations = query("UPDATE gateways SET configuration_seq = configuration_seq + $1");
    configurations.bind(numbers).execute(&mut *c).await?;
    let others = query("DELETE FROM authorities WHERE kind = 'signer' AND digest <> $1");
    others.bind(signer).execute(&mut *c).await?;
    query("DELETE FROM logins").execute(&mut *c).await?;
    query("UPDATE invitations SET used_at = $1 WHERE used_at IS NULL").bind(int(epoch)).execute(&mut *c).await?;
    let raised = query_as("UPDATE users SET generation = generation + $1 RETURNING id, generation");
    raised.bind(seconds.max(1)).fetch_all(c).await
}
