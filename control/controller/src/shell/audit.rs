//! The audit log over HTTP, page by page.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use ringfort_enrol::wall_clock;
use ringfort_proto::api;
use ringfort_types::UnixSeconds;

use super::Shell;
use super::caller::Caller;
use super::http::{Asked, Failure};
use super::openapi::{Form, Parameter};
use crate::core::{EventsAsked, Refused};

/// `GET admin/audit?since=<seconds since 1970>&below=<n>&limit=<number>`, each of which may be left out.
pub(crate) async fn events(
    State(shell): State<Arc<Shell>>,
    Extension(caller): Extension<Arc<Caller>>,
    asked: Asked,
) -> Result<Json<Vec<api::AuditRow>>, Failure> {
    let bearer = asked.bearer_with_certificate(&shell, &caller, wall_clock())?;
    let administrator = shell.core.administrator(&bearer, wall_clock()).await?;
    Ok(Json(shell.core.events(&administrator, page(asked.query())?).await?))
}

/// What the query may have.
pub(super) const QUERY: [Parameter; 3] = [
    Parameter {
        name: "since",
        is_required: false,
        form: Form::Number { min: 0, max: u64::MAX },
        about: "No events from before, in seconds since 1970.",
    },
    Parameter {
        name: "below",
        is_required: false,
        form: Form::Number { min: 0, max: u64::MAX },
        about: "Only events with a lower number: that of the last one of the page before.",
    },
    Parameter {
        name: "limit",
        is_required: false,
        form: Form::Number { min: 1, max: api::EVENTS_MAX as u64 },
        about: "At most so many events, the newest.",
    },
];

/// # Errors
/// `request_malformed`.
fn page<'a>(query: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Result<EventsAsked, Refused> {
    let form =
        || Refused::malformed("expected ?since=<seconds since 1970>, &below=<number of an event>, &limit=<number>");
    let mut asked = EventsAsked::default();
    for (name, value) in query {
        let number: u64 = value.parse().map_err(|_| form())?;
        match &*name {
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

    fn of(query: &str) -> Result<EventsAsked, Refused> {
        page(form_urlencoded::parse(query.as_bytes()))
    }

    #[test]
    fn a_page_is_named_in_the_query() {
        assert_eq!(of("").unwrap(), EventsAsked::default());
        let expected = EventsAsked { since: UnixSeconds(7), below: Some(3), limit: 9 };
        assert_eq!(of("below=3&limit=9&since=7").unwrap(), expected);
        for wrong in ["since", "since=x", "limit=-1", "limit=4294967296", "offset=3"] {
            assert_eq!(of(wrong).unwrap_err().code, "request_malformed", "{wrong}");
        }
    }
}
