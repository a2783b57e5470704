//! A temporary folder that goes when its last holder does.
//!
//! A shell waits for the end of a pipe and removes the folder then. The demo holds the other end, and so do the job and
//! its processes, which inherit it. So the folder is removed once all of them are
//! gone, by `kill -9` too, and no process writes into it again.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context;

/// A temporary folder. Dropping it waits for the other holders, and for its removal.
pub(crate) struct Folder {
    path: PathBuf,
    hold: Option<ChildStdin>,
    remover: Child,
}

impl Folder {
    pub(crate) fn new(prefix: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir().context("cannot create a temporary folder")?;
        let mut remover = Command::new("sh");
        remover.arg("-c").arg(r#"trap '' HUP INT TERM; cat; rm -rf -- "$0""#).arg(folder.path());
        // A Ctrl-C is meant for the demo: the remover is in a process group of its own.
        remover.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut remover = remover.spawn().context("cannot start sh, which removes the temporary folder in the end")?;
        Ok(Self { path: folder.keep(), hold: remover.stdin.take(), remover })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Another hold on the folder. Whatever process is started while it lives inherits it, and so do those that are
    /// started by that one.
    pub(crate) fn hold(&self) -> std::io::Result<OwnedFd> {
        let hold = self.hold.as_ref().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let hold = hold.as_fd().try_clone_to_owned()?;
        rustix::io::fcntl_setfd(&hold, rustix::io::FdFlags::empty())?;
        Ok(hold)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.hold.take();
        // An error here means that the shell is gone; there is nothing more to do about the folder then.
        let _ = self.remover.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_folder_goes_with_its_last_holder() {
        let folder = Folder::new("fluvial-demo-test-").unwrap();
        let path = folder.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        let hold = folder.hold().unwrap();
        let mut holder = Command::new("sh").args(["-c", "cat; true"]).stdin(Stdio::piped()).spawn().unwrap();
        drop(hold);
        let dropping = std::thread::spawn(move || drop(folder));
        assert!(path.join("file").exists());
        holder.stdin.take();
        holder.wait().unwrap();
        dropping.join().unwrap();
        assert!(!path.exists());
    }
}
