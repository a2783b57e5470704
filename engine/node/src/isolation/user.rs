//! The user as whom the processes of jobs run, if the node runs as root.
//!
//! A job's process must reach its binary in the node's cache, and the store if that is a folder. Of the store it gets the folder of
//! its job; what the cluster keeps there (`.cluster`) is closed to it, and so is everything else that belongs to root.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchown, openat, statat};

/// The users that are tried, if none is named.
const DEFAULTS: [&str; 2] = ["fluvial", "nobody"];

/// What a person says of the user of jobs' processes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct UserOptions {
    /// The user of /etc/passwd, or UID:GID, as whom processes of jobs run if this node runs as root. It must not be able to change
    /// anything of the node's [default: fluvial if there is such a user, else nobody]
    #[arg(long, value_name = "NAME")]
    pub job_user: Option<String>,

    /// Let processes of jobs run as root. Whoever can submit a job can then do everything on this host
    #[arg(long, conflicts_with = "job_user")]
    pub allow_root_jobs: bool,
}

/// A user without rights of the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobUser {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl UserOptions {
    /// The user as whom processes run, if that is another than the node's, whose id is `own`. `passwd` is the text of
    /// `/etc/passwd`.
    ///
    /// # Errors
    /// One line that says what to change.
    pub(crate) fn choose(&self, own: u32, passwd: &str) -> Result<Option<JobUser>, String> {
        let find = |name: &str| find(name, passwd);
        match &self.job_user {
            None if own != 0 || self.allow_root_jobs => Ok(None),
            None => DEFAULTS.iter().find_map(|name| find(name)).map(Some).ok_or_else(|| {
                "there is no user 'fluvial' or 'nobody' as whom jobs can run: name one by --job-user, or give \
                 --allow-root-jobs"
                    .to_owned()
            }),
            Some(name) => {
                let user = find(name).ok_or_else(|| format!("--job-user {name}: /etc/passwd has no such user"))?;
                match user.uid {
                    0 => Err(format!("--job-user {name}: jobs run as root with --allow-root-jobs only")),
                    uid if uid == own => Ok(None),
                    _ if own != 0 => {
                        Err(format!("--job-user {name}: only a node that runs as root can run jobs as another user"))
                    }
                    _ => Ok(Some(user)),
                }
            }
        }
    }
}

fn find(name: &str, passwd: &str) -> Option<JobUser> {
    let user = |name: &str, uid: &str, gid: &str| {
        Some(JobUser { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    };
    if let Some(found) = name.split_once(':').and_then(|(uid, gid)| user(name, uid, gid)) {
        return Some(found);
    }
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()?;
        (found == name).then(|| user(name, fields.nth(1)?, fields.next()?)).flatten()
    })
}

impl JobUser {
    /// The bits of a file's mode that count for this user, as the lowest three.
    fn bits(&self, metadata: &fs::Metadata) -> u32 {
        let shift = match (metadata.uid() == self.uid, metadata.gid() == self.gid) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        metadata.mode() >> shift & 0o7
    }

    /// Checks that this user can look up what is in a folder.
    ///
    /// # Errors
    /// One line that names the folder which keeps it out.
    pub(crate) fn reaches(&self, folder: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("'{}' cannot be used: {error}", folder.display());
        let folder = folder.canonicalize().map_err(failed)?;
        for part in folder.ancestors() {
            if self.bits(&part.metadata().map_err(failed)?) & 0o1 == 0 {
                return Err(format!("the user '{}' has no access to '{}'", self.name, part.display()));
            }
        }
        Ok(())
    }

    /// Checks that this user cannot put something else in the place of a folder, or of what the node has written into it.
    ///
    /// # Errors
    /// One line that names the folder to which it can write.
    pub(crate) fn leaves_alone(&self, folder: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("'{}' cannot be used: {error}", folder.display());
        for part in folder.canonicalize().map_err(failed)?.ancestors() {
            let metadata = part.metadata().map_err(failed)?;
            let is_own = metadata.uid() == self.uid;
            // In a sticky folder only the owners of files replace them.
            let is_sticky = metadata.mode() & 0o1000 != 0;
            if is_own || self.bits(&metadata) & 0o2 != 0 && !is_sticky {
                return Err(format!("the user '{}' can replace what is in '{}'", self.name, part.display()));
            }
        }
        Ok(())
    }

    /// Whether this user can read a file.
    pub(crate) fn can_read(&self, file: &Path) -> bool {
        let readable = file.metadata().is_ok_and(|metadata| self.bits(&metadata) & 0o4 != 0);
        readable && file.canonicalize().is_ok_and(|file| file.parent().is_some_and(|at| self.reaches(at).is_ok()))
    }

    /// Gives this user the folder of a job in a store, with all that root has written into it, and creates it if it is not there.
    ///
    /// # Errors
    /// It cannot be done.
    pub(crate) fn hand_over(&self, store: &Path, job: &str) -> io::Result<()> {
        let folder = store.join(job);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Nobody can put a link in the way: only root writes to the store's folder, and links within that of the job are not
        // followed.
        let no_link = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits();
        let opened = fs::OpenOptions::new().read(true).custom_flags(no_link as i32).open(&folder)?;
        if opened.metadata()?.uid() != 0 {
            return Ok(());
        }
        // The folder itself comes last: as long as it is root's, this is not done.
        self.hand_over_what_is_in(opened.try_clone()?.into())?;
        Ok(fchown(&opened, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?)
    }

    fn hand_over_what_is_in(&self, folder: OwnedFd) -> io::Result<()> {
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if [".", ".."].contains(&name.to_str().unwrap_or_default()) {
                continue;
            }
            let found = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.hand_over_what_is_in(openat(&folder, name, flags, Mode::empty())?)?;
            }
            if found.st_uid == 0 {
                let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
                chownat(folder.as_fd(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        Ok(())
    }
}

/// Closes a folder of root's to all others, and creates it if it is not there.
pub(crate) fn close(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    File::open(folder)?.set_permissions(Permissions::from_mode(0o700))
}

/// The text of `/etc/passwd`; empty if there is none.
pub(crate) fn passwd() -> String {
    fs::read_to_string(OsStr::new("/etc/passwd")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533::/:\ntoor:x:0:0::/:\nann:x:1000:1001::/:\n";

    #[test]
    fn jobs_of_root_run_as_somebody_else_unless_a_person_says_otherwise() {
        let choose = |own: u32, name: Option<&str>, allow_root_jobs: bool, passwd: &str| {
            let options = UserOptions { job_user: name.map(str::to_owned), allow_root_jobs };
            options.choose(own, passwd).map(|user| user.map(|user| (user.name, user.uid, user.gid)))
        };
        let nobody = Ok(Some(("nobody".to_owned(), 65534, 65533)));
        assert_eq!(choose(0, None, false, PASSWD), nobody);
        let with_own = format!("{PASSWD}fluvial:x:900:901::/:\n");
        assert_eq!(choose(0, None, false, &with_own), Ok(Some(("fluvial".to_owned(), 900, 901))));
        assert_eq!(choose(0, Some("ann"), false, PASSWD), Ok(Some(("ann".to_owned(), 1000, 1001))));
        assert_eq!(choose(0, Some("7:8"), false, ""), Ok(Some(("7:8".to_owned(), 7, 8))));
        assert_eq!(choose(0, None, true, PASSWD), Ok(None));
        assert_eq!(choose(1000, None, false, PASSWD), Ok(None));
        assert_eq!(choose(1000, Some("ann"), false, PASSWD), Ok(None));
        for (own, name, passwd, why) in [
            (0, None, "", "--allow-root-jobs"),
            (0, Some("root"), PASSWD, "with --allow-root-jobs only"),
            (0, Some("toor"), PASSWD, "with --allow-root-jobs only"),
            (0, Some("0:0"), PASSWD, "with --allow-root-jobs only"),
            (0, Some("eve"), PASSWD, "no such user"),
            (1000, Some("nobody"), PASSWD, "only a node that runs as root"),
        ] {
            let refused = choose(own, name, false, passwd).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    fn another() -> JobUser {
        JobUser { name: "another".to_owned(), uid: 65534, gid: 65534 }
    }

    #[test]
    fn a_folder_that_keeps_the_user_out_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("key"), "").unwrap();
        fs::set_permissions(inner.join("key"), Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let why = another().reaches(&inner).unwrap_err();
        assert!(why.ends_with(&format!("no access to '{}'", folder.path().canonicalize().unwrap().display())), "{why}");
        assert!(!another().can_read(&inner.join("key")));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        another().reaches(&inner).unwrap();
        assert!(another().can_read(&inner.join("key")));
        fs::set_permissions(inner.join("key"), Permissions::from_mode(0o600)).unwrap();
        assert!(!another().can_read(&inner.join("key")));
    }

    #[test]
    fn a_folder_in_which_the_user_can_replace_what_the_node_writes_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for (outer, mode, fits) in
            [(0o711, 0o755, true), (0o711, 0o777, false), (0o711, 0o1777, true), (0o777, 0o755, false)]
        {
            fs::set_permissions(folder.path(), Permissions::from_mode(outer)).unwrap();
            fs::set_permissions(&inner, Permissions::from_mode(mode)).unwrap();
            let found = another().leaves_alone(&inner);
            assert_eq!(found.is_ok(), fits, "{outer:o} {mode:o}: {found:?}");
        }
        let owner = JobUser { uid: inner.metadata().unwrap().uid(), ..another() };
        fs::set_permissions(&inner, Permissions::from_mode(0o555)).unwrap();
        assert!(owner.leaves_alone(&inner).is_err());
    }

    #[test]
    fn the_folder_of_a_job_is_handed_over_and_no_link_is_followed() {
        if !rustix::process::geteuid().is_root() {
            // Only root can give files away: nothing is handed over then.
            let kept = UserOptions::default().choose(rustix::process::geteuid().as_raw(), PASSWD);
            return assert_eq!(kept, Ok(None));
        }
        let folder = tempfile::tempdir().unwrap();
        let owner = |path: &Path| path.symlink_metadata().unwrap().uid();
        let outside = folder.path().join("outside");
        fs::create_dir_all(outside.join("in")).unwrap();
        let job = folder.path().join("orders");
        fs::create_dir_all(job.join("journal")).unwrap();
        fs::write(job.join("journal/1"), "").unwrap();
        std::os::unix::fs::symlink(&outside, job.join("link")).unwrap();
        another().hand_over(folder.path(), "orders").unwrap();
        for handed in [job.clone(), job.join("journal"), job.join("journal/1"), job.join("link")] {
            assert_eq!(owner(&handed), 65534, "{}", handed.display());
        }
        another().hand_over(folder.path(), "new").unwrap();
        assert_eq!(owner(&folder.path().join("new")), 65534);
        std::os::unix::fs::symlink(&outside, folder.path().join("other")).unwrap();
        assert!(another().hand_over(folder.path(), "other").is_err());
        for kept in [folder.path().to_owned(), outside.clone(), outside.join("in")] {
            assert_eq!(owner(&kept), 0, "{}", kept.display());
        }
    }
}
