//! The hashes of files that are too large to be held in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};

/// How much of a file is read at a time.
const PIECE: usize = 1 << 20;

/// The hash of content that comes in pieces. Clones share it.
#[derive(Clone)]
pub(super) struct Hashing(Arc<Mutex<Context>>);

impl Default for Hashing {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Context::new(&SHA256))))
    }
}

impl Hashing {
    /// Adds the next piece.
    pub(super) fn update(&self, piece: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).update(piece);
    }

    /// The SHA-256 of all pieces so far, in hexadecimal digits.
    pub(super) fn finish(&self) -> String {
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The SHA-256 of a whole file, in hexadecimal digits. The position of the file stays as it was.
///
/// # Errors
/// The file cannot be read.
pub fn hash_of_file(file: &File) -> io::Result<String> {
    let (hashing, mut piece, mut at) = (Hashing::default(), vec![0; PIECE], 0);
    loop {
        match file.read_at(&mut piece, at)? {
            0 => return Ok(hashing.finish()),
            read => {
                hashing.update(&piece[..read]);
                at += read as u64;
            }
        }
    }
}
