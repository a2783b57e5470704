//! Several aggregates of the same records.

use fluvial_connector::BoxError;

use super::{Aggregate, Overflow, Retract};
use crate::stream::Origin;

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))*) => {
        $(impl<V, $($name: Aggregate<V>),+> Aggregate<V> for ($($name,)+) {
            type Total = ($($name::Total,)+);
            type State = ($($name::State,)+);
            type Out = ($($name::Out,)+);
            type Filtered = ($($name::Filtered,)+);

            fn describe(&self) -> String {
                let parts = [$(self.$index.describe()),+];
                format!("({})", parts.join(", "))
            }

            #[inline]
            fn add(&self, total: &mut Self::Total, value: &V, origin: Origin) {
                $(self.$index.add(&mut total.$index, value, origin);)+
            }

            #[inline]
            fn settle(&self, state: &mut Self::State, total: Self::Total) -> Result<(), Overflow> {
                $(self.$index.settle(&mut state.$index, total.$index)?;)+
                Ok(())
            }

            #[inline]
            fn output(&self, state: &Self::State) -> Self::Out {
                ($(self.$index.output(&state.$index),)+)
            }

            fn filtered(&self, out: Option<Self::Out>) -> Self::Filtered {
                match out {
                    Some(out) => ($(self.$index.filtered(Some(out.$index)),)+),
                    None => ($(self.$index.filtered(None),)+),
                }
            }
        }

        impl<V, $($name: Retract<V>),+> Retract<V> for ($($name,)+) {
            type Change = ($($name::Change,)+);
            type Index = ($($name::Index,)+);

            #[inline]
            fn add_times(&self, change: &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow> {
                $(self.$index.add_times(&mut change.$index, value, times)?;)+
                Ok(())
            }

            #[inline]
            fn apply(&self, index: &mut Self::Index, change: Self::Change) -> Result<(), BoxError> {
                $(self.$index.apply(&mut index.$index, change.$index)?;)+
                Ok(())
            }

            #[inline]
            fn result(&self, index: &Self::Index) -> Self::Out {
                ($(self.$index.result(&index.$index),)+)
            }
        })*
    };
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11)
}
