//! The routes of the HTTP API, and the OpenAPI 3.1 document of them. Both come from [`Routes::add`], which takes the types of body and
//! answer from the handler's own signature: a route is in the document, and is there as it is served.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodFilter, get, on};
use ringfort_identity::Role;
use ringfort_proto::api::{self, AdministratorRole, ErrorBody, NONCE_HEADER};
use ringfort_token::Refusal;
use ringfort_token::proof::ProofRefused;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::Shell;
use super::api::{Answer, From, Shared};
use super::http::Asked;
use crate::core::{Action, Refused};

/// Where schemas of the document are.
const SCHEMAS: &str = "/components/schemas";

/// Who may ask.
#[derive(Clone, Copy)]
pub(super) enum Who {
    /// Anybody.
    Anybody,
    /// Whoever proves to hold a key.
    Prover,
    /// The holder of claims, by a proof or a certificate.
    Holder,
    /// The holder of claims, by a certificate.
    HolderWithCertificate,
    /// A certificate of this role.
    Certificate(Role),
    /// An administrator who may do this.
    Administrator { action: &'static str, least: AdministratorRole },
}

impl Who {
    pub(super) const fn administrator<A: Action>() -> Self {
        Self::Administrator { action: A::NAME, least: A::LEAST }
    }

    /// The alternatives of a security requirement.
    fn security(self) -> Value {
        match self {
            Self::Anybody => json!([]),
            Self::Prover => json!([{ "proof": [] }]),
            Self::Holder => json!([{ "claims": [], "proof": [] }, { "claims": [], "certificate": [] }]),
            Self::HolderWithCertificate | Self::Administrator { .. } => json!([{ "claims": [], "certificate": [] }]),
            Self::Certificate(_) => json!([{ "certificate": [] }]),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Anybody => "Anybody.".into(),
            Self::Prover => "A proof by the key that the tokens will belong to.".into(),
            Self::Holder => "A claims token, with a proof by its key or over mutual TLS.".into(),
            Self::HolderWithCertificate => "A claims token, over mutual TLS.".into(),
            Self::Certificate(role) => format!("Mutual TLS, with a certificate of the role {role}."),
            Self::Administrator { action, least } => {
                let least = least.as_str();
                format!(
                    "The action `{action}` of administrators with the role `{least}`: a claims token, over mutual TLS."
                )
            }
        }
    }

    /// Statuses of refusals for what one is.
    const fn refused(self) -> &'static [u16] {
        match self {
            Self::Anybody => &[],
            Self::Prover => &[401],
            _ => &[401, 403],
        }
    }
}

/// What a parameter of the query is.
pub(super) enum Form {
    Number { min: u64, max: u64 },
    Text { pattern: &'static str },
}

/// A parameter of the query.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) form: Form,
    pub(super) about: &'static str,
}

impl Parameter {
    fn object(&self) -> Value {
        let schema = match self.form {
            Form::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Form::Text { pattern } => json!({ "type": "string", "pattern": pattern }),
        };
        let Self { name, is_required, about, .. } = self;
        json!({ "name": name, "in": "query", "required": is_required, "description": about, "schema": schema })
    }
}

/// What there is to say of a route besides its types.
pub(super) struct Route {
    method: MethodFilter,
    path: String,
    who: Who,
    summary: &'static str,
    query: &'static [Parameter],
    named: Option<Value>,
    refused: &'static [u16],
}

impl Route {
    fn new(method: MethodFilter, path: String, who: Who, summary: &'static str) -> Self {
        Self { method, path, who, summary, query: &[], named: None, refused: &[] }
    }

    /// `GET {BASE}/path`.
    pub(super) fn get(path: &str, who: Who, summary: &'static str) -> Self {
        Self::new(MethodFilter::GET, format!("{}/{path}", api::BASE), who, summary)
    }

    /// `POST {BASE}/path`.
    pub(super) fn post(path: &str, who: Who, summary: &'static str) -> Self {
        Self::new(MethodFilter::POST, format!("{}/{path}", api::BASE), who, summary)
    }

    /// The request by which a host registers itself.
    pub(super) fn registration(who: Who, summary: &'static str) -> Self {
        let schema = json!({ "type": "string", "pattern": api::HOSTNAME, "maxLength": api::HOSTNAME_BYTES_MAX });
        let named = json!({ "name": "hostname", "in": "path", "required": true, "schema": schema });
        let path = api::registration_path("{hostname}");
        Self { named: Some(named), ..Self::new(MethodFilter::POST, path, who, summary) }
    }

    /// With parameters in the query.
    pub(super) fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// Statuses of refusals besides those that follow from who may ask and what is sent.
    pub(super) fn refuses(self, refused: &'static [u16]) -> Self {
        Self { refused, ..self }
    }

    fn method_name(&self) -> &'static str {
        if self.method == MethodFilter::GET { "get" } else { "post" }
    }

    /// Stable and unique: method and path.
    fn id(&self) -> String {
        let path = self.path.trim_start_matches(api::BASE).replace(['{', '}', '.'], "").replace('/', "-");
        format!("{}{path}", self.method_name())
    }
}

/// Routes that are served, and what the document says of them.
pub(super) struct Routes {
    router: Router<Arc<Shell>>,
    paths: Map<String, Value>,
    generator: SchemaGenerator,
}

impl Routes {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
        });
        Self { router: Router::new(), paths: Map::new(), generator: settings.into_generator() }
    }

    /// A route, whose handler is asked with a body `B`, or none, and answers with a `T`.
    pub(super) fn add<B, T, H, F, M>(&mut self, route: Route, handler: H)
    where
        H: Fn(Shared, From, Asked<B>) -> F + Handler<M, Arc<Shell>>,
        F: Future<Output = Answer<T>>,
        M: 'static,
        B: JsonSchema + 'static,
        T: JsonSchema,
    {
        let body = (TypeId::of::<B>() != TypeId::of::<()>()).then(|| self.generator.subschema_for::<B>());
        let answer = self.generator.subschema_for::<T>();
        self.describe(&route, body, answer);
        let router = std::mem::take(&mut self.router);
        self.router = router.route(&route.path, on(route.method, handler));
    }

    fn describe(&mut self, route: &Route, body: Option<Schema>, answer: Schema) {
        let mut responses = Map::new();
        let content = |schema: Schema| json!({ "application/json": { "schema": schema } });
        let headers = json!({ (NONCE_HEADER): { "$ref": "#/components/headers/nonce" } });
        responses.insert(
            "200".into(),
            json!({ "description": "It was done.", "headers": headers, "content": content(answer) }),
        );
        // What any request may come to: head too large, a fault of ours.
        let mut refused: BTreeSet<u16> = [431, 500].into();
        refused.extend(route.who.refused().iter().chain(route.refused));
        if body.is_some() {
            refused.extend([400, 408, 413]);
        }
        if !route.query.is_empty() {
            refused.insert(400);
        }
        for status in refused {
            let response = if matches!(status, 429 | 503) { "later" } else { "refused" };
            responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{response}") }));
        }
        let mut operation = json!({
            "operationId": route.id(),
            "summary": route.summary,
            "description": format!("Who may ask: {}", route.who.text()),
            "security": route.who.security(),
            "responses": responses,
        });
        let parameters: Vec<Value> =
            route.named.iter().cloned().chain(route.query.iter().map(Parameter::object)).collect();
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = body {
            operation["requestBody"] = json!({ "required": true, "content": content(body) });
        }
        if let Who::Administrator { least, .. } = route.who {
            operation["x-ringfort-role"] = least.as_str().into();
        }
        let item = self.paths.entry(&route.path).or_insert_with(|| json!({}));
        item[route.method_name()] = operation;
    }

    /// The router, and the document, which it serves as well.
    pub(super) fn finish(mut self) -> (Router<Arc<Shell>>, Value) {
        let route = Route::get("openapi.json", Who::Anybody, "This document");
        self.describe(&route, None, schemars::json_schema!({ "type": "object" }));
        self.generator.subschema_for::<ErrorBody>();
        let mut schemas = self.generator.take_definitions(true);
        for schema in schemas.values_mut() {
            if let Ok(schema) = schema.try_into() {
                bound_numbers(schema);
            }
        }
        if let Some(code) = schemas.get_mut("ErrorBody").and_then(|body| body.pointer_mut("/properties/code")) {
            code["enum"] = json!(codes().collect::<BTreeSet<_>>());
        }
        let document = sorted(document(self.paths, schemas));
        let bytes = axum::body::Bytes::from(document.to_string());
        let served = get(move || std::future::ready(([(CONTENT_TYPE, "application/json")], bytes.clone())));
        (self.router.route(&route.path, served), document)
    }
}

/// Every code that a refusal may have.
fn codes() -> impl Iterator<Item = &'static str> {
    Refused::CODES.into_iter().chain(Refusal::CODES).chain(ProofRefused::CODES)
}

fn document(paths: Map<String, Value>, schemas: Map<String, Value>) -> Value {
    let refusal = json!({ "application/json": { "schema": { "$ref": format!("#{SCHEMAS}/ErrorBody") } } });
    let nonce = json!({ (NONCE_HEADER): { "$ref": "#/components/headers/nonce" } });
    let mut later = nonce.clone();
    later["retry-after"] = json!({ "$ref": "#/components/headers/retryAfter" });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ringfort Controller",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Who may reach what: logins, tokens, certificates, and what administrators change.",
            "description": "docs/CONTROL.md says what the requests mean. Unknown members are refused in requests and to be ignored in answers. Binary values are base64url without padding.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": {
                "nonce": {
                    "description": "A nonce for the next proof, good once within two minutes. It is there where the connection has no client certificate.",
                    "schema": { "type": "string" },
                },
                "retryAfter": {
                    "description": "Seconds after which it is worth trying again, where that is known.",
                    "schema": { "type": "integer", "minimum": 0 },
                },
            },
            "responses": {
                "refused": {
                    "description": "It was refused: nothing has changed. The code is stable, the message says what to do.",
                    "headers": nonce,
                    "content": refusal,
                },
                "later": {
                    "description": "It was refused for the moment, or for want of something that the message names.",
                    "headers": later,
                    "content": refusal,
                },
            },
            "securitySchemes": {
                "claims": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A claims token (rf-claims+jwt), as a login gives it. It counts together with a proof by its key, or over mutual TLS by a certificate of that key and session.",
                },
                "proof": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "DPoP",
                    "description": "A proof of possession (RFC 9449) for this request, with a nonce that an answer has given in its header dpop-nonce.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate of the organisation's CA.",
                },
            },
        },
    })
}

/// Says in bounds what the format says in words: numbers that are larger are refused.
fn bound_numbers(schema: &mut Schema) {
    let max = match schema.get("format").and_then(Value::as_str) {
        Some("uint64") => Some(u64::MAX),
        Some("uint32") => Some(u64::from(u32::MAX)),
        _ => None,
    };
    if let Some(max) = max
        && schema.get("maximum").is_none()
    {
        schema.insert("maximum".into(), max.into());
    }
    transform_subschemas(&mut bound_numbers, schema);
}

/// The same with sorted members, whatever order other features of serde_json keep.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: std::collections::BTreeMap<String, Value> = members.into_iter().collect();
            Value::Object(members.into_iter().map(|(name, value)| (name, sorted(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}
