//! The headers of a record.

use std::fmt;

/// A header of a record. A record may have several of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value, if it has one.
    pub value: Option<&'a [u8]>,
}

/// Headers as a connector has them: each is looked at only when a job asks for it.
///
/// ```
/// use fluvial_connector::{Header, Headers, ReadHeaders};
///
/// /// One header whose value lies in the connector's buffer.
/// struct Traced<'b>(&'b [u8]);
///
/// impl ReadHeaders for Traced<'_> {
///     fn header(&self, index: usize) -> Option<Header<'_>> {
///         (index == 0).then_some(Header { name: "trace", value: Some(self.0) })
///     }
/// }
///
/// let traced = Traced(b"7");
/// assert_eq!(Headers::of(&traced).last("trace").and_then(|header| header.value), Some(&b"7"[..]));
/// ```
pub trait ReadHeaders {
    /// The header at this place, counted from 0; `None` after the last one.
    fn header(&self, index: usize) -> Option<Header<'_>>;
}

impl ReadHeaders for Vec<(String, Option<Vec<u8>>)> {
    fn header(&self, index: usize) -> Option<Header<'_>> {
        self.get(index).map(|(name, value)| Header { name, value: value.as_deref() })
    }
}

/// The headers of a record, in their order.
///
/// ```
/// use fluvial_connector::Headers;
///
/// let held = vec![("trace".to_owned(), Some(b"7".to_vec())), ("trace".to_owned(), Some(b"8".to_vec()))];
/// let headers = Headers::of(&held);
/// assert_eq!(headers.iter().count(), 2);
/// assert_eq!(headers.last("trace").and_then(|header| header.value), Some(&b"8"[..]));
/// assert!(headers.last("span").is_none());
/// ```
#[derive(Clone, Copy, Default)]
pub struct Headers<'a>(Option<&'a dyn ReadHeaders>);

impl<'a> Headers<'a> {
    /// Wraps a connector's own headers, without copying them.
    #[must_use]
    pub fn of(held: &'a impl ReadHeaders) -> Self {
        Self(Some(held))
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Header<'a>> {
        (0..).map_while(move |index| self.0?.header(index))
    }

    /// The last header of this name, which is the one that counts where there are several.
    #[must_use]
    pub fn last(self, name: &str) -> Option<Header<'a>> {
        self.iter().filter(|header| header.name == name).last()
    }
}

impl PartialEq for Headers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers<'_> {}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
