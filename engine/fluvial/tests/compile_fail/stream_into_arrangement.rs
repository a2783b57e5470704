//! Records are counted, joined and arranged once they are kept.
use fluvial::Stream;

fn arrange(words: Stream<'_, (String, u64)>) {
    words.arrange_by_key();
}

fn main() {}
