//! The audit log over HTTP, page by page.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use ringfort_enrol::wall_clock;
use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::Shell;
use super::caller::Caller;
use super::http::{Asked, Failure};
use crate::core::{EventsAsked, Refused};

/// `GET admin/audit?since=<seconds since 1970>&below=<n>&limit=<number>`, each of which may be left out.
pub(crate) async fn events(
    State(shell): State<Arc<Shell>>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Result<Json<Vec<api::AuditRow>>, Failure> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let bearer = Asked::from(request).bearer_with_certificate(&shell, &caller, wall_clock())?;
    let administrator = shell.core.administrator(&bearer, wall_clock()).await?;
    Ok(Json(shell.core.events(&administrator, asked(&query)?).await?))
}

/// # Errors
/// `request_malformed`.
fn asked(query: &str) -> Result<EventsAsked, Refused> {
    let form =
        || Refused::malformed("expected ?since=<seconds since 1970>, &below=<number of an event>, &limit=<number>");
    let mut asked = EventsAsked::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(form)?;
        let number: u64 = value.parse().map_err(|_| form())?;
        match name {
            "since" => asked.since = UnixSeconds(number),
            "below" => asked.below = Some(number),
            "limit" => asked.limit = number.try_into().map_err(|_| form())?,
            _ => return Err(form()),
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_named_in_the_query() {
        assert_eq!(asked("").unwrap(), EventsAsked::default());
        let expected = EventsAsked { since: UnixSeconds(7), below: Some(3), limit: 9 };
        assert_eq!(asked("below=3&limit=9&since=7").unwrap(), expected);
        for wrong in ["since", "since=x", "limit=-1", "limit=4294967296", "offset=3"] {
            assert_eq!(asked(wrong).unwrap_err().code, "request_malformed", "{wrong}");
        }
    }
}
