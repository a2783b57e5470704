//! The console of a cluster: pages for a browser, which use nothing but the API.
//!
//! The files beside this one are served as they are, from this binary. They load nothing from elsewhere, and the content security
//! policy has the browser enforce that. The pages show texts of users and jobs, so scripts put them into the document as text only.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::group::hash;

/// What a page may load and do: only what comes from the node itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A file of the console.
#[derive(Debug)]
struct File {
    name: &'static str,
    content: &'static str,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(File { name: $name, content: include_str!($name) }),*] };
}

const FILES: &[File] = files![
    "index.html",
    "style.css",
    "icon.svg",
    "main.js",
    "actions.js",
    "api.js",
    "busy.js",
    "chart.js",
    "detail.js",
    "dom.js",
    "format.js",
    "graph.js",
    "job.js",
    "live.js",
    "logs.js",
    "nodes.js",
    "overview.js",
    "past.js",
    "session.js",
    "states.js",
    "stream.js",
    "table.js",
    "tabs.js",
];

/// The routes of the console.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let file = |Path(name): Path<String>, headers: HeaderMap| async move { serve(&name, &headers) };
    // Which page an address means is for the script to say.
    let page = |headers: HeaderMap| async move { serve("index.html", &headers) };
    Router::new()
        .route("/", get(page))
        .route("/nodes", get(page))
        .route("/jobs/{name}", get(page))
        .route("/jobs/{name}/logs", get(page))
        .route("/console/{file}", get(file))
}

fn serve(name: &str, request: &HeaderMap) -> Response {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return (StatusCode::NOT_FOUND, "the console has no such file\n").into_response();
    };
    let tag = format!("\"{}\"", hash(file.content.as_bytes()));
    let known = request.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let headers = [
        (CONTENT_TYPE, file.content_type()),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // Nodes of other versions may answer at the same address, so a browser asks each time whether its copy is the right one.
        (CACHE_CONTROL, "no-cache"),
        (ETAG, &tag),
    ];
    if known.is_some_and(|known| known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag)) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, file.content).into_response()
}

impl File {
    fn content_type(&self) -> &'static str {
        match self.name.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/javascript; charset=utf-8",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_sent_once_and_only_under_the_policy() {
        for file in FILES {
            let response = serve(file.name, &HeaderMap::new());
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY);
            let known = HeaderMap::from_iter([(IF_NONE_MATCH, response.headers()[ETAG].clone())]);
            assert_eq!(serve(file.name, &known).status(), StatusCode::NOT_MODIFIED, "{}", file.name);
        }
        assert_eq!(serve("no-such.js", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }

    /// A file that is forgotten in the list is missed only by a browser.
    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/console");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let served = FILES.iter().any(|file| file.name == name);
            assert!(served || name.ends_with(".rs"), "{name} is in the folder, and not in the list");
        }
    }

    #[test]
    fn no_text_becomes_markup_or_code() {
        for file in FILES.iter().filter(|file| file.name.ends_with(".js")) {
            for dangerous in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
                assert!(!file.content.contains(dangerous), "{} uses {dangerous}", file.name);
            }
        }
    }
}
