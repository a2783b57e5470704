//! Follows all outputs as consistent cuts, for the live table.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fluvial_kafka::KafkaOptions;

use crate::run::Event;
use crate::table::Rows;
use crate::{Demo, View};

/// How long the broker may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The outputs as of one tick.
pub(crate) struct Seen {
    /// The tick; nothing before the first.
    pub(crate) tick: Option<u64>,
    /// How many cuts there were.
    pub(crate) cuts: u64,
    /// All rows.
    pub(crate) rows: Rows,
    /// What the demo makes of them.
    pub(crate) view: Box<dyn View>,
}

/// The thread that follows the outputs; it ends when this is dropped.
pub(crate) struct Viewer {
    seen: Arc<Mutex<Seen>>,
    until: Sender<()>,
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

impl Viewer {
    pub(crate) fn start(demo: &'static dyn Demo, brokers: &str, events: Sender<Event>) -> anyhow::Result<Self> {
        let (until, told) = channel();
        let (end, ended) = channel();
        let seen = Arc::new(Mutex::new(Seen { tick: None, cuts: 0, rows: Rows::default(), view: demo.view() }));
        let (shared, brokers) = (Arc::clone(&seen), brokers.to_owned());
        let run = move || {
            // Dropped when this thread is through, however that is.
            let _end: Sender<()> = end;
            if let Err(error) = follow(demo, &brokers, &shared, &told) {
                let _ = events.send(Event::Failed(error));
            }
        };
        let thread = std::thread::Builder::new().name("viewer".to_owned()).spawn(run);
        Ok(Self { seen, until, thread: thread.context("cannot start the reader of cuts")?, ended })
    }

    /// What is seen at this moment.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// What is seen once all that the topics hold has been read.
    pub(crate) fn finish(self) -> anyhow::Result<Arc<Mutex<Seen>>> {
        drop(self.until);
        if self.ended.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            bail!("the reader of consistent cuts has not come to the end of the outputs within {PATIENCE:?}");
        }
        self.thread.join().map_err(|_| anyhow::anyhow!("the reader of consistent cuts has panicked"))?;
        Ok(self.seen)
    }
}

pub(crate) fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn follow(demo: &dyn Demo, brokers: &str, seen: &Mutex<Seen>, told: &Receiver<()>) -> anyhow::Result<()> {
    let kafka = KafkaOptions::new(brokers).connect()?;
    let mut cuts = kafka.cuts(demo.job(), demo.outputs().iter().copied(), PATIENCE)?;
    let mut told_at: Option<Instant> = None;
    loop {
        // What was written last may be on its way still, so the end is only believed after a while.
        let wait = Duration::from_millis(if told_at.is_some() { 500 } else { 50 });
        let cut = cuts.next_cut(wait).context("cannot follow the outputs")?;
        if told_at.is_some_and(|at| cut.is_none() && (cuts.caught_up() || at.elapsed() > PATIENCE)) {
            return Ok(());
        }
        let mut seen = lock(seen);
        if let Some(cut) = cut {
            for record in &cut.records {
                seen.rows.upsert(&record.topic, record.key.as_deref().unwrap_or_default(), record.value.as_deref());
            }
            seen.view.apply(&cut)?;
            seen.cuts += 1;
        }
        seen.tick = cuts.tick().map(|tick| tick.0);
        drop(seen);
        if told_at.is_none() && matches!(told.try_recv(), Err(TryRecvError::Disconnected)) {
            told_at = Some(Instant::now());
        }
    }
}
