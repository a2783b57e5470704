//! The document of the API in OpenAPI 3.1, which is made of the routes.
//!
//! What a request and an answer hold comes from the handlers and their types. What holds of all of them is added here: which role a
//! request needs, which is asked of the gate itself, how errors look, what the names in paths consist of, and the ranges of integers.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::gate::{CLIENT, Needs, needs};
use super::sessions::COOKIE_NAME;
use super::{Failure, Knowledge, check_hash};
use crate::access::check_token_name;
use crate::check_job_name;
use crate::job_store::check_savepoint_name;

/// What the document says of the API as a whole.
const ABOUT: &str = "Every node answers, and passes changes on to the coordinator. A node with a cluster key or certificates needs a \
token; one without is plain HTTP on the loopback interface. A request that changes something and shows no token in the header \
Authorization needs the header `fluvial-client`, with any value.";

/// A name in paths.
pub(super) struct NameInPath {
    /// What the paths begin with.
    of: &'static str,
    name: &'static str,
    about: &'static str,
    pattern: &'static str,
    /// Says why a text is no such name. It refuses what the pattern does not match.
    check: fn(&str) -> Result<(), String>,
}

/// The names in paths.
const NAMES: [NameInPath; 8] = [
    NameInPath { of: "/v1/jobs/", name: "name", about: "The name of the job", pattern: JOB, check: check_job_name },
    NameInPath {
        of: "/v1/jobs/",
        name: "savepoint",
        about: "The name of the savepoint",
        pattern: JOB,
        check: check_savepoint_name,
    },
    NameInPath {
        of: "/v1/jobs/",
        name: "action",
        about: "What becomes of the job",
        pattern: "^(start|stop|restart)$",
        // The handler says which there are.
        check: |_| Ok(()),
    },
    NameInPath {
        of: "/v1/binaries/",
        name: "hash",
        about: "The SHA-256 of the binary",
        pattern: "^[0-9a-f]{64}$",
        check: check_hash,
    },
    NameInPath {
        of: "/v1/uploads/",
        name: "hash",
        about: "The SHA-256 of the binary",
        pattern: "^[0-9a-f]{64}$",
        check: check_hash,
    },
    NameInPath {
        of: "/v1/nodes/",
        name: "node",
        about: "The address of the node, HOST:PORT",
        pattern: r"^[A-Za-z0-9.:\[\]_-]{1,300}$",
        check: check_address,
    },
    NameInPath {
        of: "/v1/nodes/",
        name: "action",
        about: "What becomes of the node",
        pattern: "^(drain|undrain)$",
        check: |_| Ok(()),
    },
    NameInPath {
        of: "/v1/tokens/",
        name: "name",
        about: "The name of the token",
        pattern: "^[A-Za-z0-9_@-][A-Za-z0-9._@-]{0,99}$",
        check: check_token_name,
    },
];

/// What the names of jobs and savepoints look like.
const JOB: &str = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$";

fn check_address(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".:[]_-".contains(&byte);
    let is_one = (1..=300).contains(&text.len()) && text.bytes().all(fits);
    if is_one { Ok(()) } else { Err("the address of a node is HOST:PORT, as `fluvial nodes` prints it".to_owned()) }
}

/// Checks a name in the path of a request to a route.
///
/// # Errors
/// Why it is none.
pub(super) fn check_name(route: &str, name: &str, text: &str) -> Result<(), String> {
    let found = NAMES.iter().find(|of_path| route.starts_with(of_path.of) && of_path.name == name);
    found.map_or(Ok(()), |of_path| (of_path.check)(text))
}

/// What users want of a job: the schema of [`Wanted`](fluvial_protocol::group::Wanted), whose crate knows nothing of documents.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "it is only a schema")]
pub struct WantedJob {
    /// Grows with each change.
    revision: u64,
    /// The program: the name of the specification that holds its binary and options.
    version: String,
    /// The number of its workers.
    workers: u32,
    /// Whether it is to run.
    run: bool,
    /// The labels that a node must have to run it.
    require: BTreeMap<String, String>,
    /// Attempts up to this number are ended at once.
    ends_at_once: u64,
}

/// The upgrade that a job has returned from: the schema of [`Returned`](fluvial_protocol::group::Returned).
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "it is only a schema")]
pub struct ReturnedJob {
    /// The version that has failed.
    version: String,
    /// Its revision.
    revision: u64,
    /// How it has failed, in one line.
    why: String,
}

/// The document.
pub(super) struct Document {
    text: Bytes,
    /// The names of the query parameters, by path and method.
    query_parameters: BTreeMap<(String, String), Vec<String>>,
}

impl Document {
    /// The document of routes.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub(super) fn new(of_routes: utoipa::openapi::OpenApi) -> Result<Self, serde_json::Error> {
        let of_copies = crate::http::routes().split_for_parts().1;
        let document = complete(serde_json::to_value(of_routes)?, serde_json::to_value(of_copies)?);
        let query_parameters = operations(&document).map(|(path, method, operation)| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let of_query = parameters.filter(|parameter| parameter["in"] == "query");
            let names = of_query.filter_map(|parameter| parameter["name"].as_str()).map(str::to_owned);
            ((path.to_owned(), method.to_owned()), names.collect())
        });
        let query_parameters = query_parameters.collect();
        Ok(Self { text: serde_json::to_vec(&document)?.into(), query_parameters })
    }

    /// The methods that are possible at a route.
    pub(super) fn methods(&self, route: &str) -> String {
        let of_route = self.query_parameters.keys().filter(|(path, _)| path == route);
        of_route.map(|(_, method)| method.to_ascii_uppercase()).collect::<Vec<_>>().join(", ")
    }

    /// The names of the query parameters of a request; `None` if there is no such request.
    pub(super) fn query_parameters(&self, method: &Method, route: &str) -> Option<&[String]> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let key = (route.to_owned(), method.as_str().to_ascii_lowercase());
        self.query_parameters.get(&key).map(Vec::as_slice)
    }
}

/// Returns the document of this API in OpenAPI 3.1
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "get_document",
    responses((status = 200, description = "The document", body = Object)))]
pub(super) async fn document(State(knowledge): State<Knowledge>) -> Response {
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (json, knowledge.document.text.clone()).into_response()
}

/// The operations of a document: path, method in small letters, and what is said of it.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Adds what holds of all routes.
fn complete(mut document: Value, mut of_copies: Value) -> Value {
    document["info"] = json!({
        "title": "Fluvial",
        "version": env!("CARGO_PKG_VERSION"),
        "description": ABOUT,
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    });
    document["components"]["securitySchemes"] = json!({
        "token": {"type": "http", "scheme": "bearer", "description": "A token of `fluvial tokens create`"},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE_NAME, "description": "A token, as POST /v1/session sets it"},
    });
    document["components"]["schemas"]["Failure"] = schema_of::<Failure>();
    // They are served elsewhere, by plain HTTP.
    let address =
        json!({"default": "localhost:7401", "description": "The address that the option --http of the node names"});
    let of_http = json!([{"url": "http://{address}", "variables": {"address": address}}]);
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete_operation(path, method, operation);
        }
    }
    for pointer in ["/paths", "/components/schemas"] {
        let added = of_copies.pointer_mut(pointer).and_then(Value::as_object_mut).map(std::mem::take);
        let Some(all) = document.pointer_mut(pointer).and_then(Value::as_object_mut) else { continue };
        for (name, mut value) in added.unwrap_or_default() {
            if pointer == "/paths" {
                value["servers"] = of_http.clone();
                value["get"]["security"] = json!([]);
            }
            all.entry(name).or_insert(value);
        }
    }
    adapt(&mut document);
    document
}

fn schema_of<T: utoipa::PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap_or_default()
}

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let failed = |description: &str| {
        let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}});
        json!({"description": description, "content": content})
    };
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap_or_default();
    let answers = &mut operation["responses"];
    answers["4XX"] = failed("The request is wrong; the error says what to do");
    answers["503"] = failed("The request may succeed later");
    let role = match needs(&method, path) {
        Needs::Nothing => {
            operation["security"] = json!([]);
            None
        }
        Needs::Token(role) => {
            answers["401"] = failed("The request shows no valid token");
            answers["403"] = failed("The token is of another role");
            operation["security"] = json!([{"token": []}, {"session": []}]);
            Some(role)
        }
    };
    operation["x-role"] = json!(role);
    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    if role.is_none() {
        let about = "Shows that the request does not come from a page of another origin";
        let schema = json!({"type": "string"});
        parameters
            .push(json!({"name": CLIENT, "in": "header", "required": true, "description": about, "schema": schema}));
    }
    for parameter in &mut parameters {
        let is = |of_path: &&NameInPath| path.starts_with(of_path.of) && parameter["name"] == of_path.name;
        if let Some(of_path) = NAMES.iter().find(is).filter(|_| parameter["in"] == "path") {
            parameter["description"] = json!(of_path.about);
            parameter["schema"] = json!({"type": "string", "pattern": of_path.pattern});
        }
    }
    if parameters.iter().any(|parameter| parameter["name"] == "continue") {
        let about = "The next page, with rel=\"next\", if there are more entries";
        operation["responses"]["200"]["headers"] =
            json!({"Link": {"description": about, "schema": {"type": "string"}}});
    }
    operation["parameters"] = Value::Array(parameters);
}

/// Adapts what comes from types to readers who do not know Rust: the ranges of integers, and links to items in descriptions.
fn adapt(value: &mut Value) {
    match value {
        Value::Object(object) => {
            bound_integer(object);
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = without_links(text);
            }
            object.values_mut().for_each(adapt);
        }
        Value::Array(values) => values.iter_mut().for_each(adapt),
        _ => {}
    }
}

/// A text with "`Plan`" in place of "[`Plan`](super::Plan)".
fn without_links(text: &str) -> String {
    let mut parts = text.split("[`");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("`]").unwrap_or((part, ""));
        let rest = rest.strip_prefix('(').and_then(|link| link.split_once(')')).map_or(rest, |(_, rest)| rest);
        plain.push_str(&format!("`{name}`{rest}"));
    }
    plain
}

/// Says of an unsigned integer how large it may be. Its format is the least that clients do not know.
fn bound_integer(object: &mut Map<String, Value>) {
    let unsigned = object.get("minimum").is_some_and(|least| least.as_f64() >= Some(0.0));
    let (format, most) = match object.get("format").and_then(Value::as_str) {
        Some("int32") if unsigned => ("uint32", u64::from(u32::MAX)),
        Some("int64") if unsigned => ("uint64", u64::MAX),
        _ => return,
    };
    object.insert("format".to_owned(), json!(format));
    object.entry("maximum").or_insert(json!(most));
}

impl Document {
    #[cfg(test)]
    pub(super) fn content(&self) -> Value {
        serde_json::from_slice(&self.text).unwrap_or_default()
    }
}
