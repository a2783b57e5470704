//! Sets how the C library's allocator behaves in a job's processes.
//!
//! - A checkpoint copies and encodes rows in buffers of many sizes, some of them large. By itself glibc takes ever larger
//!   ones from its heaps, as soon as one of that size has been freed, and such a heap shrinks only from its end: what a
//!   checkpoint needed for a second would stay with the process. A threshold that is set does not grow, so the largest
//!   buffers go back to the system when they are freed; it lies above what a tick needs, which is needed again.
//! - With that, glibc does not raise the threshold of trimming either: at its 128 KiB each tick would give pages back and
//!   fault them in again. So it is set, above what a tick frees.
//! - Rows are looked up all over a large table. In pages of 2 MiB, where the kernel gives them to who asks, that takes
//!   about a tenth less time.
//!
//! Other C libraries do not look at the variable.

use std::ffi::{OsStr, OsString};

/// The variable that glibc reads when a process starts.
pub(crate) const VARIABLE: &str = "GLIBC_TUNABLES";

/// The settings that the engine asks for.
const OURS: &str = "glibc.malloc.mmap_threshold=3145728:glibc.malloc.trim_threshold=16777216:glibc.malloc.hugetlb=1";

/// The new value of the variable, given the value `before`. Of a setting that comes twice the last one counts, so the
/// settings of the user stay.
pub(crate) fn tunables(before: Option<OsString>) -> OsString {
    let before = before.filter(|before| !before.is_empty());
    let mut all = OsString::from(OURS);
    if let Some(before) = before {
        all.push(OsStr::new(":"));
        all.push(before);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_of_the_allocator_comes_last() {
        assert_eq!(tunables(None), OURS);
        assert_eq!(tunables(Some(OsString::new())), OURS);
        let theirs = "glibc.malloc.mmap_threshold=65536";
        assert_eq!(tunables(Some(theirs.into())), format!("{OURS}:{theirs}").as_str());
    }
}
