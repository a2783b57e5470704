//! What a process says of itself each second, on a thread that is no worker: that it is there, for how long its workers have
//! computed without a pause, how many requests it has made to the store, and how far the job is.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use fluvial_node::process_link::{FromProcess, NodeLink};
use fluvial_node::status::Progress;

use super::ambient;
use super::calls::StoreCalls;
use super::meter::{LeaderFigures, Meters};
use super::pulse::Pulses;

/// How often a process says that it is there.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// What the beats of a process say. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Beats(Arc<Contents>);

#[derive(Default)]
struct Contents {
    /// The workers' pulses, and the store's calls.
    watched: OnceLock<(Pulses, Arc<StoreCalls>)>,
    progress: Mutex<Option<(Progress, Instant)>>,
    meters: OnceLock<Arc<Meters>>,
    thread: OnceLock<Thread>,
}

impl Beats {
    /// Begins to say it to the node.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn start(node: NodeLink) -> std::io::Result<Self> {
        Self::start_with(BEAT_EVERY, move |beat| node.say(beat))
    }

    fn start_with(every: Duration, say: impl Fn(&FromProcess) + Send + 'static) -> std::io::Result<Self> {
        let beats = Self::default();
        let said = beats.clone();
        let beat = move || loop {
            // Returns earlier when there is a first progress to say.
            std::thread::park_timeout(every);
            say(&said.next());
        };
        let thread = std::thread::Builder::new().name("beat".to_owned()).spawn(beat)?;
        // It is started once.
        let _ = beats.0.thread.set(thread.thread().clone());
        Ok(beats)
    }

    /// The workers' pulses and the store's calls, once the process has workers.
    pub(crate) fn watch(&self, pulses: &Pulses, calls: &Arc<StoreCalls>) {
        // A process starts its workers once.
        let _ = self.0.watched.set((pulses.clone(), Arc::clone(calls)));
    }

    /// What the workers and writers of this process do, once it has workers.
    pub(crate) fn measure(&self, meters: &Arc<Meters>) {
        // A process starts its workers once.
        let _ = self.0.meters.set(Arc::clone(meters));
    }

    /// Takes how far the job is, and what the leader knows of its parts. The first time, the node is told at once: it counts the job
    /// as running from then on.
    pub(crate) fn measured(&self, progress: Progress, figures: LeaderFigures) {
        if let Some(meters) = self.0.meters.get() {
            meters.of_leader(figures);
        }
        let mut known = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.replace((progress, ambient::instant()));
        drop(known);
        if before.is_none()
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
    }

    fn next(&self) -> FromProcess {
        let watched = self.0.watched.get();
        let step_ms = watched.map_or(0, |(pulses, _)| pulses.longest_turn_ms());
        let store_requests = watched.and_then(|(_, calls)| calls.charged_requests());
        let measured = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let progress = measured.map(|(progress, at)| {
            let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            Progress { age_ms, ..progress }
        });
        let figures = self.0.meters.get().and_then(|meters| meters.due()).map(Box::new);
        FromProcess::Beat { step_ms, store_requests, progress, figures }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_store::Store;
    use object_store::memory::InMemory;

    use super::*;
    use fluvial_node::job_store::JobStore;

    #[test]
    fn the_first_progress_is_told_without_waiting_for_the_next_beat() {
        let (told, beats_told) = std::sync::mpsc::channel();
        let say =
            move |beat: &FromProcess| told.send(matches!(beat, FromProcess::Beat { progress: Some(_), .. })).unwrap();
        let beats = Beats::start_with(Duration::from_secs(3600), say).unwrap();
        beats.measured(Progress { minted: 7, ..Progress::default() }, LeaderFigures::default());
        assert_eq!(beats_told.recv_timeout(Duration::from_secs(60)), Ok(true));
    }

    #[test]
    fn a_beat_says_how_old_the_progress_is_and_how_long_a_worker_computes() {
        let beats = Beats::default();
        assert!(matches!(beats.next(), FromProcess::Beat { step_ms: 0, progress: None, .. }));
        let pulses = Pulses::new(2);
        let store = Store::over(Arc::new(InMemory::new()), "memory");
        beats.watch(&pulses, &Arc::new(StoreCalls::new(JobStore::new(store, "job"), Duration::ZERO)));
        assert!(matches!(beats.next(), FromProcess::Beat { step_ms: 0, .. }), "no worker has begun");
        pulses.turn(1);
        beats.measured(Progress { minted: 7, ..Progress::default() }, LeaderFigures::default());
        ambient::pause(Duration::from_millis(20));
        let FromProcess::Beat { step_ms, store_requests: None, progress: Some(progress), .. } = beats.next() else {
            panic!("no progress, or a folder that charges")
        };
        assert!(step_ms >= 10 && progress.age_ms >= 20 && progress.minted == 7, "{step_ms} {progress:?}");
        pulses.ended(1);
        assert!(matches!(beats.next(), FromProcess::Beat { step_ms: 0, .. }), "the worker has ended");
    }
}
