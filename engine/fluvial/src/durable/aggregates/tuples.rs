//! Several aggregates of the same records.

use super::sealed::Linear;
use super::{Aggregate, Overflow, Retract};

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))*) => {
        $(impl<$($name: Linear),+> Linear for ($($name,)+) {}

        impl<V, $($name: Aggregate<V>),+> Aggregate<V> for ($($name,)+) {
            type Total = ($($name::Total,)+);
            type State = ($($name::State,)+);
            type Out = ($($name::Out,)+);

            fn describe(&self) -> String {
                let parts = [$(self.$index.describe()),+];
                format!("({})", parts.join(", "))
            }

            #[inline]
            fn add(&self, total: &mut Self::Total, value: &V) {
                $(self.$index.add(&mut total.$index, value);)+
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
        }

        impl<V, $($name: Retract<V>),+> Retract<V> for ($($name,)+) {
            fn add_times(&self, total: &mut Self::Total, value: &V, times: i64) -> Result<(), Overflow> {
                $(self.$index.add_times(&mut total.$index, value, times)?;)+
                Ok(())
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
}
