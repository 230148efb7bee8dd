//! The document of the HTTP API: that it is one, that it is the one that is committed, and that the routes are as it says.

use std::collections::BTreeSet;

use hyper::Method;
use ringfort_enrol::HttpsError;
use ringfort_proto::api::{self, NONCE_HEADER};
use serde_json::Value;

use crate::support::{ADMINISTRATOR, Controller, PASSWORD, User, path};

/// Method, path and operation of everything in the document.
fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let all =
        paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, it)| (method, path, it)));
    all.map(|(method, path, it)| (method.to_uppercase().parse().unwrap(), path.clone(), it.clone())).collect()
}

/// Every object in `value`.
fn objects<'a>(value: &'a Value, found: &mut Vec<&'a serde_json::Map<String, Value>>) {
    match value {
        Value::Object(members) => {
            found.push(members);
            members.values().for_each(|value| objects(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| objects(value, found)),
        _ => {}
    }
}

#[test]
fn the_committed_document_is_that_of_the_code() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json")).unwrap();
    let expected = format!("{:#}\n", ringfort_controller::openapi());
    assert!(committed == expected, "docs/openapi.json is another: `ringfort openapi > docs/openapi.json`");
}

/// OpenAPI 3.1, as far as it is not a matter of schemas; `cargo xtask e2e --only openapi` asks a validator for the whole.
#[test]
fn the_document_follows_the_rules_of_openapi() {
    let document = ringfort_controller::openapi();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let (mut all, mut ids) = (Vec::new(), BTreeSet::new());
    objects(&document, &mut all);
    for reference in all.iter().filter_map(|object| object.get("$ref")) {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let operations = operations(&document);
    for (method, path, operation) in &operations {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} stands there twice");
        assert!(path.starts_with('/') && matches!(*method, Method::GET | Method::POST), "{path}");
        assert!(!operation["summary"].as_str().unwrap().is_empty());
        let named = operation["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "path");
        let named: Vec<String> = named.map(|one| format!("{{{}}}", one["name"].as_str().unwrap())).collect();
        assert_eq!(path.matches('{').count(), named.len(), "{path}");
        assert!(named.iter().all(|name| path.contains(name)), "{path}");
        for scheme in operation["security"].as_array().unwrap().iter().flat_map(|one| one.as_object().unwrap().keys()) {
            assert!(schemes.contains_key(scheme), "{id}: {scheme}");
        }
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.contains_key("200") && responses.contains_key("500"), "{id}");
        assert!(responses.keys().all(|status| status.parse::<u16>().is_ok_and(|status| (200..600).contains(&status))));
        let speaks = |response: &Value| response["description"].is_string() || response["$ref"].is_string();
        assert!(responses.values().all(speaks), "{id}");
        assert!(*method == Method::POST || operation["requestBody"].is_null(), "{id}: a GET has no body");
    }
    let page = &document["paths"]["/api/v1/admin/audit"]["get"]["parameters"];
    assert!(page.as_array().unwrap().iter().any(|one| one["name"] == "limit" && one["schema"]["maximum"] == 1_000));
    let name = &document["components"]["schemas"]["NewUser"]["properties"]["name"];
    assert_eq!(name["pattern"], api::NAME, "bounds of the code are in the schemas");
    assert_eq!(document["components"]["schemas"]["NewUser"]["additionalProperties"], false);
}

#[tokio::test]
async fn anybody_gets_the_document() {
    let controller = Controller::start().await;
    let mut nobody = User::new(&controller).await;
    let served: Value = nobody.list("openapi.json").await.unwrap();
    assert_eq!(served, ringfort_controller::openapi());
}

/// Everything that is not for anybody refuses whoever shows nothing, and whoever has a certificate without claims.
#[tokio::test]
async fn what_the_document_says_to_need_credentials_refuses_without() {
    let controller = Controller::start().await;
    let mut nobody = User::new(&controller).await;
    let mut half = User::with_certificate(&controller, ADMINISTRATOR, PASSWORD).await;
    let mut open = Vec::new();
    for (method, path, operation) in operations(&ringfort_controller::openapi()) {
        let needs = operation["security"].as_array().unwrap().clone();
        if needs.is_empty() {
            open.push(format!("{method} {path}"));
            continue;
        }
        let path = path.replace("{hostname}", "nas");
        let refused = |answer| match answer {
            Err(HttpsError::Refused { status, body, .. }) => (status, body.code),
            other => panic!("{method} {path}: expected a refusal, found {other:?}"),
        };
        let answer = nobody.https.request::<(), Value>(method.clone(), &path, &[], None, NONCE_HEADER).await;
        let (status, code) = refused(answer.map(|answer| answer.body));
        assert_eq!(status, 401, "{path}: {code}");
        if needs.iter().all(|need| need.get("claims").is_some()) {
            let answer = half.https.request::<(), Value>(method.clone(), &path, &[], None, NONCE_HEADER).await;
            let (status, code) = refused(answer.map(|answer| answer.body));
            assert_eq!((status, code.as_str()), (401, "token_malformed"), "{path}");
        }
    }
    assert_eq!(open, ["GET /api/v1/login", "GET /api/v1/openapi.json"]);
}

#[tokio::test]
async fn another_method_is_named_as_such() {
    let controller = Controller::start().await;
    let mut nobody = User::new(&controller).await;
    let answer = nobody.https.request::<(), Value>(Method::PUT, &path("login"), &[], None, "allow").await;
    let Err(HttpsError::Refused { status, body, header }) = answer else { panic!("expected a refusal") };
    assert_eq!((status, body.code.as_str()), (405, "method_not_allowed"));
    let allowed: BTreeSet<String> = header.unwrap().split(',').map(str::to_owned).collect();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed:?}");
}
