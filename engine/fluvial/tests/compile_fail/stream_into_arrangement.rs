//! Records are counted, joined and arranged once they are kept.
//~ no method named `arrange_by_key` found for struct `Stream
use fluvial::Stream;

pub fn arrange(words: Stream<'_, (String, u64)>) {
    words.arrange_by_key();
}
