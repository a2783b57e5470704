//! The version of a program: what tells it from programs that may compute other output.

use std::io::Read as _;

use xxhash_rust::xxh3::Xxh3;

/// The hash of the binary that this process runs and of the job's own options. The path `/proc/self/exe` leads to this
/// binary even if its file has been replaced.
///
/// # Errors
/// The binary cannot be read.
pub(crate) fn version(own_options: &[u8]) -> std::io::Result<String> {
    let mut binary = std::fs::File::open("/proc/self/exe")?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 20]);
    hash.update(own_options);
    loop {
        match binary.read(&mut buffer)? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            read => hash.update(&buffer[..read]),
        }
    }
}
