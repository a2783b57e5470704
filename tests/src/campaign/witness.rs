//! What happens in a store while a job runs: merges and deletions, which leave nothing that tells of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;

/// How often it looks: much oftener than checkpoints are taken.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks at a job's checkpoints until it is asked what it has seen.
#[derive(Debug)]
pub struct Witness {
    stop: Sender<()>,
    thread: JoinHandle<Sightings>,
}

/// What has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// Checkpoints that name fewer of the state files before than the one before them did.
    pub merges: usize,
    /// Checkpoints' manifests, and state files that they named, that are no more.
    pub deletions: usize,
}

#[derive(Deserialize)]
struct Manifest {
    tick: u64,
    operators: Vec<Operator>,
}

#[derive(Deserialize)]
struct Operator {
    files: Vec<StateFile>,
}

#[derive(Deserialize)]
struct StateFile {
    object: String,
}

/// By tick, the state files that each checkpoint names.
type Named = BTreeMap<u64, BTreeSet<String>>;

impl Witness {
    /// Begins to look at the folder of a job in a local store, which need not exist yet.
    #[must_use]
    pub fn of(job: PathBuf) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let (mut named, mut read) = (Named::new(), BTreeSet::new());
            loop {
                look(&job, &mut read, &mut named);
                if stopped.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    look(&job, &mut read, &mut named);
                    let files: BTreeSet<PathBuf> = named.values().flatten().map(|file| job.join(file)).collect();
                    let deletions = files.iter().chain(&read).filter(|object| !object.exists()).count();
                    return Sightings { merges: merges(&named), deletions };
                }
            }
        });
        Self { stop, thread }
    }

    /// What it has seen.
    #[must_use]
    pub fn asked(self) -> Sightings {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// Reads the manifests that are new.
fn look(job: &std::path::Path, read: &mut BTreeSet<PathBuf>, named: &mut Named) {
    for entry in fs::read_dir(job.join("checkpoints")).into_iter().flatten().flatten() {
        let path = entry.path();
        if read.contains(&path) {
            continue;
        }
        // One that is being written, or deleted, at this moment is not whole.
        let text = fs::read_to_string(&path).unwrap_or_default();
        let body = text.split_once('\n').map_or("", |(_header, body)| body);
        if let Ok(manifest) = serde_json::from_str::<Manifest>(body) {
            let files = manifest.operators.into_iter().flat_map(|operator| operator.files);
            named.insert(manifest.tick, files.map(|file| file.object).collect());
            read.insert(path);
        }
    }
}

fn merges(named: &Named) -> usize {
    let pairs = named.values().zip(named.values().skip(1));
    pairs.filter(|(before, after)| !before.is_subset(after)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_names_fewer_of_the_state_files_before_is_a_merge() {
        let files = |names: &str| names.chars().map(String::from).collect::<BTreeSet<_>>();
        let named = Named::from([(1, files("a")), (2, files("ab")), (3, files("xc")), (4, files("xcd"))]);
        assert_eq!(merges(&named), 1);
    }
}
