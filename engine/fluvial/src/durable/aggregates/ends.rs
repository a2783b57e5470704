//! The first and the last value in the order of the records.

use std::fmt;

use differential_dataflow::ExchangeData;

use super::maybe::Maybe;
use super::{Aggregate, Overflow};
use crate::stream::Origin;

/// The value that the closure returns for the first record of a key, in the order of tick, source, split and offset (see
/// [`Origin`]), which is never the order of arrival. A key keeps one value.
///
/// ```
/// use fluvial::harness::Dataflow;
/// use fluvial::{First, Last};
///
/// let mut test = Dataflow::new(1, |scope| {
///     let visits = scope.input::<(u32, String)>("visits"); // visitor, page
///     let ends = (First(|page: &String| page.clone()), Last(|page: &String| page.clone()));
///     scope.output("ends", visits.aggregate("ends", ends));
/// });
/// test.feed("visits", 1, [(7u32, "home".to_owned()), (7, "tea".to_owned())]);
/// test.feed("visits", 2, [(7u32, "basket".to_owned())]);
/// test.advance_past(2);
/// assert_eq!(test.table::<(u32, (String, String))>("ends"), [(7, ("home".to_owned(), "basket".to_owned()))]);
/// ```
///
/// Rows of a collection have no such order, so this is not an aggregate of a collection:
///
/// ```compile_fail
/// use fluvial::{Collection, First, Table};
///
/// fn first(pages: Collection<'_, (u32, String)>) -> Collection<'_, (u32, String)> {
///     pages.aggregate("first", First(|page: &String| page.clone()))
/// }
/// ```
///
/// Use [`MinBy`](super::MinBy) there, with the field that says when a row came about.
#[derive(Clone, Copy)]
pub struct First<F>(pub F);

/// The value that the closure returns for the last record of a key, in the order of tick, source, split and offset. [`First`]
/// shows it. On a collection, use [`MaxBy`](super::MaxBy).
///
/// ```compile_fail
/// use fluvial::{Collection, Last, Table};
///
/// fn last(pages: Collection<'_, (u32, String)>) -> Collection<'_, (u32, String)> {
///     pages.aggregate("last", Last(|page: &String| page.clone()))
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Last<F>(pub F);

macro_rules! ends {
    ($($aggregate:ident: $name:literal, $comes_before:tt, $replaces:expr;)*) => {
        $(impl<F> fmt::Debug for $aggregate<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($aggregate))
            }
        }

        impl<V, B, F> Aggregate<V> for $aggregate<F>
        where
            B: ExchangeData,
            F: Fn(&V) -> B + 'static,
        {
            type Total = Option<(Origin, B)>;
            type State = Maybe<B>;
            type Out = B;
            type Filtered = Option<B>;

            fn describe(&self) -> String {
                $name.to_owned()
            }

            #[inline]
            fn add(&self, total: &mut Self::Total, value: &V, origin: Origin) {
                // Origins are unique; comparing the value too keeps the result independent of arrival in any case.
                let value = (origin, self.0(value));
                if total.as_ref().is_none_or(|kept| value $comes_before *kept) {
                    *total = Some(value);
                }
            }

            #[inline]
            fn settle(&self, state: &mut Maybe<B>, total: Self::Total) -> Result<(), Overflow> {
                if let Some((_, value)) = total
                    && ($replaces || state.0.is_none())
                {
                    state.0 = Some(value);
                }
                Ok(())
            }

            #[inline]
            fn output(&self, state: &Maybe<B>) -> B {
                state.get()
            }

            fn filtered(&self, out: Option<B>) -> Option<B> {
                out
            }
        })*
    };
}

ends! {
    First: "first", <, false;
    Last: "last", >, true;
}
