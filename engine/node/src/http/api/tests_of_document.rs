//! The document of the API, compared with what a node answers.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::tests::{Api, documented};
use crate::access::Role;
use crate::group::hash;

/// A path of the document with names that fit.
fn example(path: &str) -> String {
    let action = if path.starts_with("/v1/nodes") { "drain" } else { "stop" };
    let names = [("{name}", "orders"), ("{savepoint}", "a"), ("{node}", "a:1"), ("{action}", action)];
    let path = names.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    path.replace("{hash}", &hash(b"x"))
}

#[tokio::test]
async fn every_operation_of_the_document_is_a_route_and_no_other_method_is() {
    let api = Api::of_cluster();
    let (_, paths) = documented();
    assert!(paths.len() >= 17, "{paths:?}");
    for (path, methods) in paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            if (method, path.as_str()) == ("GET", "/v1/events") {
                assert_eq!(api.begins(&api.root, &path).await, 200, "it has no end");
                continue;
            }
            let (status, said) = api.with_token(&api.root, method, &example(&path), &Value::Null).await;
            assert_eq!(methods.contains(method), status != 405, "{method} {path}: {status} {said}");
            assert!(!said.contains("there is nothing at"), "{method} {path}: {status} {said}");
            assert!(status < 400 || serde_json::from_str::<Value>(&said).unwrap()["error"].is_string(), "{said}");
        }
    }
}

/// A route that is added to the router by another way would be missing in the document.
#[test]
fn routes_are_added_by_the_macro_that_documents_them() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/api");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("tests_of_document.rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            assert!(!source.contains(".route("), "{} adds a route that no document has", path.display());
        }
    }
}

#[tokio::test]
async fn the_document_is_served_to_viewers_and_says_what_each_request_needs() {
    let api = Api::of_cluster();
    let viewer = api.token("viewer", Role::Viewer).await;
    let (status, served) = api.with_token(&viewer, "GET", "/v1/openapi.json", &Value::Null).await;
    let (document, paths) = documented();
    assert_eq!((status, serde_json::from_str::<Value>(&served).unwrap()), (200, document.clone()));
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    let role = |path: &str, method: &str| document["paths"][path][method]["x-role"].clone();
    assert_eq!([role("/v1/jobs", "get"), role("/v1/jobs", "post")], [json!("viewer"), json!("operator")]);
    assert_eq!([role("/v1/tokens", "get"), role("/v1/session", "post")], [json!("operator"), Value::Null]);
    let mut ids = std::collections::BTreeSet::new();
    for (path, methods) in &paths {
        for method in methods {
            let operation = &document["paths"][path][method.to_lowercase()];
            assert!(operation["summary"].as_str().is_some_and(|summary| summary.len() > 10), "{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}: the same id");
            let parameters = operation["parameters"].as_array().unwrap();
            let of_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let mut names: Vec<_> = of_path.clone().map(|of| format!("{{{}}}", of["name"].as_str().unwrap())).collect();
            let mut expected: Vec<_> = path.split('/').filter(|part| part.starts_with('{')).collect();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected, "{method} {path}");
            assert!(of_path.clone().all(|of| of["schema"]["pattern"].is_string()), "{method} {path}");
            let has_body = [("/v1/jobs", "POST"), ("/v1/jobs/{name}", "PATCH"), ("/v1/jobs/{name}/plan", "POST")];
            let has_body = has_body.contains(&(path.as_str(), method.as_str()));
            assert!(!has_body || operation["requestBody"]["content"]["application/json"].is_object(), "{operation}");
        }
    }
    assert!(!served.contains("](") && served.contains("as a `Plan` names it"), "a link that leads nowhere");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in references(&document) {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{reference} is missing");
    }
    let of_http = document["paths"].as_object().unwrap().iter().filter(|(_, item)| !item["servers"].is_null());
    assert_eq!(of_http.map(|(path, _)| path).collect::<Vec<_>>(), ["/healthz", "/metrics", "/readyz", "/status"]);
    let wanted = fluvial_protocol::group::Wanted {
        revision: 1,
        version: String::new(),
        workers: 1,
        run: true,
        require: Default::default(),
        ends_at_once: Default::default(),
    };
    let fields: Vec<_> = json!(wanted).as_object().unwrap().keys().cloned().collect();
    let of_schema: Vec<_> = schemas["WantedJob"]["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, of_schema);
    let returned = fluvial_protocol::group::Returned { version: String::new(), revision: 1, why: String::new() };
    let fields: Vec<_> = json!(returned).as_object().unwrap().keys().cloned().collect();
    let of_schema: Vec<_> = schemas["ReturnedJob"]["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, of_schema);
}

/// All references in a document.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(object) => {
            let own = object.get("$ref").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(object.values().flat_map(references)).collect()
        }
        Value::Array(values) => values.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_a_request_is_said_in_json_with_the_status_of_its_kind() {
    let api = Api::of_cluster();
    let bearer = format!("Authorization: Bearer {}\r\n", api.root);
    let job = json!({"name": "a", "binary": "0".repeat(64), "arguments": [], "workers": 1025}).to_string();
    for (method, path, body, expected, part) in [
        ("GET", "/v1/jobs?limt=3", "", 400, "limit, continue"),
        ("GET", "/v1/jobs?limit=3&limit=4", "", 400, "duplicate"),
        ("GET", "/v1/jobs?limit=0", "", 400, "1 to 1000"),
        ("GET", "/v1/jobs?limit=-1", "", 400, "limit"),
        ("GET", "/v1/jobs?continue=%FF", "", 400, "continue"),
        ("GET", "/v1/session?x=1", "", 400, "no query parameters"),
        ("POST", "/v1/jobs/orders/stop?forced=1", "", 400, "'forced'"),
        ("GET", "/v1/no-such-thing", "", 404, "/v1/openapi.json"),
        ("POST", "/v1/jobs/orders/explode", "", 404, "explode"),
        ("PUT", "/v1/jobs", "", 405, "GET, POST"),
        ("POST", "/v1/jobs", "{", 400, "JSON"),
        ("POST", "/v1/jobs", "{}", 422, "name"),
        ("POST", "/v1/jobs", &job, 400, "1 to 1024 workers"),
        ("PATCH", "/v1/jobs/orders", r#"{"workers":0}"#, 400, "1 to 1024 workers"),
        ("GET", "/v1/jobs/orders/logs?tail=10001", "", 400, "10000"),
        ("GET", "/v1/jobs/%FF", "", 400, "UTF-8"),
    ] {
        let (status, said) = api.ask(method, path, &bearer, body).await;
        let error = serde_json::from_str::<Value>(&said).unwrap()["error"].as_str().unwrap_or_default().to_owned();
        assert!(status == expected && error.contains(part), "{method} {path}: {status} {said}");
    }
    let text = format!("POST /v1/jobs HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{bearer}");
    let answer = api.send(&format!("{text}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}")).await;
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains(r#"{"error":""#), "{answer}");
    let answer =
        api.send(&format!("{}Content-Length: 0\r\n\r\n", text.replace("POST /v1/jobs", "PUT /v1/tokens"))).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: "), "{answer}");
}

#[tokio::test]
async fn a_list_is_read_page_after_page() {
    let api = Api::of_cluster();
    for name in ["c", "a", "e", "b", "d"] {
        api.token(name, Role::Viewer).await;
    }
    let (mut path, mut names) = ("/v1/tokens?limit=2".to_owned(), Vec::new());
    loop {
        let bearer = format!("Authorization: Bearer {}\r\n", api.root);
        let answer = api.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{bearer}\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let page: Vec<Value> = serde_json::from_str(body).unwrap();
        names.push(page.iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
        let Some(link) = head.lines().find_map(|line| line.strip_prefix("link: <")) else { break };
        path = link.split_once(">; rel=\"next\"").unwrap().0.to_owned();
    }
    assert_eq!(names, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
}
