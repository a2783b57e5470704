//! A group: several nodes that run one job or many jobs together, as state machines without I/O.
//!
//! ```text
//!   NodeEvent ─►┌──────────────── Node ────────────────┐─► NodeRequest (messages, store calls, start and end processes)
//!   each node   │ Log    role: following, coordinating │
//!               │   Coordinator: Members, Control a job│
//!               └──────────────────────────────────────┘
//! ```
//!
//! Each *node* offers slots, has a keeper that starts and watches processes of jobs, and can become the *coordinator*, which
//! decides what the group does. What a coordinator decides is a record in a journal of the group in the store; what it knows
//! besides, it hears from the nodes.
//!
//! There are two kinds of group, which differ in who says what is to run. *Copies of one job* bring the program and the number
//! of workers: the version that most of them have runs, and when the job ends, they end. The nodes of a *cluster* run what users
//! submit: [`Wanted`] says which program and how many workers each job is to have, a [`Change`] changes that, and a job that
//! has ended can be started again. Everything else is the same code: a job's [`JobRecord`], its attempts, and its control.
//!
//! # Why it is safe
//!
//! *Nothing here has to be.* The output of the job stays right whatever the nodes believe: each attempt becomes a generation of
//! the job, generations fence each other through the job's journal and the sink, and processes of two attempts cannot connect with
//! each other. What this code decides is only whether the job makes progress, and how often it is interrupted.
//!
//! # Rules
//!
//! *A term is a record.* The coordinator of a term is whoever created its first record. There is no lease and no heartbeat
//! in the store, and no clock takes part: a coordinator that was paused for an hour finds the position of its next record
//! taken, and nodes that have heard of a later term do not obey it.
//!
//! *Ask before claiming.* A node that does not hear the coordinator asks the others, and claims the next term only if none of
//! them hears it either. Otherwise a cut between two hosts would end one term after the other.
//!
//! *A coordinator that cannot write stands back.* Its orders say that it does not reach the store; for the others that is
//! the same as silence, so one of them claims the next term.
//!
//! *Written before told.* An attempt is a record before any node hears of it, and its number is the position of the record.
//! So attempts of all terms are ordered, nodes obey the newest, and two coordinators cannot mix two sets of processes.
//!
//! *Adopt.* A new coordinator leaves what runs as it is, and plans only when each node that it knows has been heard in its
//! term or is lost.
//!
//! *Silence is counted once.* Members hear each other's statuses. A node that the new coordinator has not heard since before
//! its term, such as the coordinator that it replaces, is lost as soon as it has been silent for long enough in all.
//!
//! *Processes that cannot meet are not started together.* Each node says which members it does not hear. Of two that do not hear
//! each other, one is left out of the next attempt, and so is a node that does not hear the coordinator.
//!
//! *A job that fails at once again and again has failed.* Restarts wait longer and longer, and after ten failures in a row the run ends.
//! An attempt that has read input for some seconds begins the count again. Lost nodes and unreachable brokers and stores are not
//! counted: the job waits for them.
//!
//! *Nobody waits for a lost node.* An attempt is over when one of its processes has ended or one of its nodes is lost; the
//! next one begins when the processes on all other nodes have ended.
//!
//! *Changes are gathered.* Nodes that join or leave within a few seconds are one change: the running attempt is asked to stop
//! once, at a checkpoint.
//!
//! *What cannot run yet changes nothing.* A job of a cluster goes on in its old revision until nodes have fetched and checked
//! the new program and there is room for all of its workers; if an attempt ends before, the next one is of the old revision, too.
//! A job that does not run yet waits.
//!
//! *A version that fails before it has read input is given up.* The job returns to the version before it by itself, if that one has
//! read input: nothing was bound, so nothing has to be taken back, and the old program goes on from where it was. That is so after
//! a failure that no restart mends, after three others, after [`Times::trial_ms`] without input, and where each node that could run the old version
//! refuses the new one. Once the new version has read input, or its first process is lost, so that nobody can say, going back is
//! a person's decision. That it has read input is part of the record, because the next coordinator has to know it.
//!
//! *What a person forces is done at once.* The processes of the attempts that were known then are killed, and the next attempt is not.
//!
//! *A node that is drained gets no more processes.* Each job that has some there is asked to stop at a checkpoint once the others
//! have room for it, and these slots are kept for it meanwhile. One for which there is no room stays. The node is drained when its
//! processes have ended.
//!
//! *A job holds its slots until its processes have ended, and half a minute longer*: a job that waits would otherwise take them
//! while this one pauses before its next attempt, or while a check of it fails for a moment.
//!
//! *A change that was stored is answered; one that is made twice is made once.* A coordinator that is superseded before its
//! record is stored says so, and the user asks again. A change to the present state, such as stopping a stopped job, is none; this is
//! only answered after a look into the journal that began after the question, because the coordinator may have been superseded. One
//! that does not reach the store refuses changes at once, and makes none that it has refused.
//!
//! *Processes without an order are killed.* A node that was not heard for a while may run processes of a job that has ended or was deleted
//! since. They are killed when it hears orders again.
//!
//! *State, not events.* Each message holds the whole state that its receiver needs, with a number that grows. Messages may be
//! lost, repeated or reordered.

mod changes;
mod control;
mod coordinator;
mod log;
mod members;
mod messages;
mod node;
mod placement;
mod record;
#[cfg(test)]
mod simulation;

pub use changes::{Change, Refusal};
pub use log::{StoreAnswer, StoreCall};
pub use messages::{Command, JobOrder, Member, Message, Offer, Orders, ProcessState, Running, Status};
pub use node::{Node, NodeEvent, NodeRequest, ProcessSays};
pub use placement::{Placement, Room, Workers, ZONE, place};
pub use record::{
    Attempt, AttemptNumber, Back, Death, GroupRecord, JobRecord, NodeId, Outcome, Returned, Term, Wanted,
};

/// The times by which a group notices and decides, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Between two messages that say that a node is there.
    pub heartbeat_ms: u64,
    /// After which a node that says nothing counts as lost.
    pub silence_ms: u64,
    /// How long the others may take to say whether they hear the coordinator.
    pub answer_ms: u64,
    /// How long members have to stay as they are before a running attempt is stopped for them.
    pub debounce_ms: u64,
    /// The same before the first attempt.
    pub gather_ms: u64,
    /// How long a node may take to begin an attempt.
    pub start_ms: u64,
    /// How long the store may fail before a coordinator stands back.
    pub store_ms: u64,
    /// Between two looks of a coordinator whether it has been superseded.
    pub look_ms: u64,
    /// Before a call to the store that failed is made again.
    pub retry_ms: u64,
    /// How long the processes of an attempt have to say why they end, after the first one has ended.
    pub last_words_ms: u64,
    /// How long they have if the first one ended because the job is done: they free their state.
    pub letting_go_ms: u64,
    /// How long an attempt has to read input before its end begins the count of failures again.
    pub healthy_ms: u64,
    /// How long an attempt of a version that has never read input may take to do so, where another version ran before it.
    pub trial_ms: u64,
    /// Between two steps of a node.
    pub step_ms: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1000,
            silence_ms: 5000,
            answer_ms: 2000,
            debounce_ms: 3000,
            gather_ms: 1000,
            start_ms: 30_000,
            store_ms: 5000,
            look_ms: 10_000,
            retry_ms: 500,
            last_words_ms: 1000,
            letting_go_ms: 30_000,
            healthy_ms: 10_000,
            trial_ms: 600_000,
            step_ms: 100,
        }
    }
}

/// Random numbers from a seed, for names that nothing else may have.
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
