//! Pages of long lists.
//!
//! A list is answered in a stable order, each of its entries with a key that sorts so. `limit` says how many are wanted; if there are
//! more, the header `Link` names the next page (`rel="next"`, as in RFC 8288), by the key of the last entry that was answered. An entry that
//! is created or deleted while somebody reads page after page therefore neither repeats nor hides another one.

use axum::Json;
use axum::http::HeaderValue;
use axum::http::header::LINK;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Refused;

/// How many entries are returned, if nothing is said.
const SOME: usize = 500;
/// How many are returned at most.
const MOST: usize = 1000;
/// The longest text that says where a page begins.
const LONGEST: usize = 1000;

/// Which page of a list is wanted.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many entries are wanted [default: 500]. If there are more, the header `Link` of the answer names the next page.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Where the page begins, as the header `Link` of the page before says.
    #[param(max_length = 1000, pattern = "^[A-Za-z0-9_-]+$")]
    r#continue: Option<String>,
}

/// A page, and where the next one begins.
pub(super) struct Paged<T> {
    entries: Vec<T>,
    next: Option<String>,
}

impl Page {
    /// How many entries are wanted, and after which key.
    pub(super) fn read(&self) -> Result<(usize, Option<String>), Refused> {
        let limit = self.limit.unwrap_or(SOME);
        if !(1..=MOST).contains(&limit) {
            return Err(Refused::wrong(format!("a page has a limit of 1 to {MOST} entries, not {limit}")));
        }
        let after = self.r#continue.as_deref().map(|text| {
            let decoded = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let wrong = || Refused::wrong("'continue' is not what the header Link of the page before says");
            decoded.filter(|_| (1..=LONGEST).contains(&text.len())).ok_or_else(wrong)
        });
        Ok((limit, after.transpose()?))
    }

    /// The page of a whole list, sorted by a key that no two entries share.
    pub(super) fn of<T>(&self, path: &str, entries: Vec<T>, key: impl Fn(&T) -> String) -> Result<Paged<T>, Refused> {
        let (limit, after) = self.read()?;
        let mut keyed: Vec<_> = entries.into_iter().map(|entry| (key(&entry), entry)).collect();
        keyed.retain(|(key, _)| after.as_ref().is_none_or(|after| key > after));
        keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
        let more = keyed.len() > limit;
        keyed.truncate(limit);
        let last = keyed.last().map(|(key, _)| key.clone()).filter(|_| more);
        Ok(Paged::new(path, keyed.into_iter().map(|(_, entry)| entry).collect(), limit, last.as_deref()))
    }
}

impl<T> Paged<T> {
    /// A page of the list at a path. If there are more entries, `last` is the key of the last one.
    pub(super) fn new(path: &str, entries: Vec<T>, limit: usize, last: Option<&str>) -> Self {
        let next =
            last.map(|last| format!("<{path}?limit={limit}&continue={}>; rel=\"next\"", URL_SAFE_NO_PAD.encode(last)));
        Self { entries, next }
    }
}

impl<T: Serialize> IntoResponse for Paged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.entries).into_response();
        if let Some(next) = self.next.and_then(|next| HeaderValue::try_from(next).ok()) {
            response.headers_mut().insert(LINK, next);
        }
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// All entries of a list that changes between two pages, page after page.
    fn read_all(limit: usize, mut list: Vec<u32>, change: impl Fn(&mut Vec<u32>)) -> Vec<Vec<u32>> {
        let (mut pages, mut page) = (Vec::new(), Page { limit: Some(limit), r#continue: None });
        loop {
            let paged = page.of("/v1/x", list.clone(), |entry| format!("{entry:05}")).map_err(|_| ()).unwrap();
            pages.push(paged.entries);
            let Some(next) = paged.next else { return pages };
            let (_, begins) = next.strip_suffix(">; rel=\"next\"").unwrap().split_once("&continue=").unwrap();
            page.r#continue = Some(begins.to_owned());
            change(&mut list);
        }
    }

    #[test]
    fn page_after_page_holds_every_entry_once_in_order() {
        assert_eq!(read_all(2, vec![3, 1, 2, 5, 4], |_| {}), [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(read_all(2, vec![2, 1], |_| {}), [vec![1, 2]], "a full page that is the last one");
        assert_eq!(read_all(3, Vec::new(), |_| {}), [Vec::<u32>::new()]);
    }

    #[test]
    fn what_changes_between_two_pages_neither_repeats_nor_hides_another_entry() {
        let changing = |list: &mut Vec<u32>| {
            list.retain(|entry| *entry != 2);
            list.insert(0, 0);
        };
        assert_eq!(read_all(2, vec![1, 2, 3, 4, 5], changing), [vec![1, 2], vec![3, 4], vec![5]]);
    }

    #[test]
    fn a_page_that_no_page_names_is_refused() {
        for (limit, begins) in [
            (Some(0), None),
            (Some(1001), None),
            (None, Some("ä")),
            (None, Some("=")),
            (None, Some("")),
            (None, Some("_w")),
        ] {
            let page = Page { limit, r#continue: begins.map(str::to_owned) };
            assert!(page.read().is_err(), "{limit:?} {begins:?}");
        }
        let long = Page { limit: None, r#continue: Some("A".repeat(1004)) };
        assert!(long.read().is_err());
    }
}
