//! Changes of what a job runs: the plan of an upgrade, the savepoint before it, and the way back.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fluvial_protocol::Savepoint;
use fluvial_protocol::group::{Change, Refusal, Wanted};
use serde::{Deserialize, Serialize};

use super::savepoints::checked;
use super::{Knowledge, Refused, Update, is_hash};
use crate::group::{GoesBack, Previous, Specification};
use crate::isolation::secrets;
use crate::job_store::NoCheckpoint;
use crate::readiness::{Part, Problem};
use crate::status::State as JobState;

/// How long a check of the program that runs may take before another one takes its place.
const CHECKED_WITHIN: Duration = Duration::from_secs(15);

/// What an update would change, by a check with the new program on the node that was asked.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Plan {
    /// The revision of the job that it was made of.
    pub revision: u64,
    /// The program: to be sent back as [`Update::approved`].
    pub program: String,
    /// Why the program could not run now.
    pub problems: Vec<Problem>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What becomes of the parts of the job.
    pub parts: Vec<Part>,
}

impl Update {
    /// Whether anything else changes than the number of workers.
    pub(super) fn changes_program(&self) -> bool {
        self.binary.is_some() || self.arguments.is_some() || self.from.is_some() || !self.limits.is_empty()
    }
}

impl Knowledge {
    /// What a job runs by what users want now.
    pub(super) async fn specification(&self, name: &str) -> Result<(Specification, Wanted), Refused> {
        let wanted = self.job(name).await?.wanted.ok_or_else(|| Refusal::Unknown(name.to_owned()))?;
        let specification = self.shelf.get(&wanted.version).await.map_err(|error| Refused::unavailable(&error))?;
        Ok((specification, wanted))
    }

    /// What a job runs after an update. Before another program runs, a savepoint is taken, whose name is added to `taken`.
    pub(super) async fn next(
        &self,
        name: &str,
        before: &Specification,
        wanted: &Wanted,
        update: Update,
        taken: &mut Vec<String>,
    ) -> Result<Specification, Refused> {
        update.binary.as_deref().map_or(Ok(()), is_hash)?;
        let go_back = match update.from {
            Some(savepoint) => {
                let found = self.savepoint(name, &savepoint).await?;
                if !update.correct_outputs {
                    self.refuse_moved_on(name, &found).await?;
                } else if self.has_moved_on(name, &found).await? {
                    refuse_append_outputs(&found)?;
                    // The way back from there.
                    taken.extend(self.save_before(name, wanted.revision).await?);
                }
                Some(GoesBack { savepoint, id: rand::random(), correct_outputs: update.correct_outputs })
            }
            None => None,
        };
        let same = |new: &Specification| (&new.binary, &new.arguments) == (&before.binary, &before.arguments);
        let mut next = Specification {
            job: before.job.clone(),
            binary: update.binary.unwrap_or_else(|| before.binary.clone()),
            arguments: update.arguments.unwrap_or_else(|| before.arguments.clone()),
            limits: before.limits.changed_by(update.limits),
            go_back,
            approved: update.approved,
            previous: before.previous.clone(),
        };
        secrets::check(&next.arguments).map_err(Refused::wrong)?;
        next.limits.check().map_err(Refused::wrong)?;
        if same(&next) {
            // What was asked for before still is: the same request to go back is carried out once, and an approval is of one program.
            next.go_back = next.go_back.or_else(|| before.go_back.clone());
            next.approved = next.approved.or_else(|| before.approved.clone());
        } else {
            let savepoint = self.save_before(name, wanted.revision).await?;
            taken.extend(savepoint.clone());
            next.previous = Some(Previous { version: wanted.version.clone(), savepoint });
        }
        Ok(next)
    }

    /// Keeps what a job runs if it returns to `before`, because `next` fails before it has read input. Returns its version. It is the
    /// same program, and may correct what another one has begun to correct. It does not go back to a savepoint once more; but where
    /// `next` goes back to one, it goes back to the one that was `taken` before, because `next` may have put the job's state back.
    /// `None` if there is no such savepoint, or it is not known which program `before` is, so that nobody could approve it.
    pub(super) async fn put_way_back(
        &self,
        before: &Specification,
        next: &Specification,
        taken: &[String],
    ) -> Result<Option<String>, Refused> {
        let savepoint = taken.last().filter(|_| next.go_back.is_some());
        let go_back = savepoint.map(|savepoint| GoesBack {
            savepoint: savepoint.clone(),
            id: rand::random(),
            correct_outputs: true,
        });
        let before = Specification { go_back, ..before.clone() };
        if next.version() == before.version() || next.go_back.is_some() && before.go_back.is_none() {
            return Ok(None);
        }
        let checked = tokio::time::timeout(CHECKED_WITHIN, self.shelf.check(&before)).await;
        let program = checked.ok().and_then(Result::ok).map(|verdict| verdict.version);
        let program = program.filter(|program| !program.is_empty()).or(before.approved.clone());
        let Some(program) = program else { return Ok(None) };
        self.put(&Specification { approved: Some(program), ..before }).await.map(Some)
    }

    /// Drops the savepoints that were taken for a change which was refused. One whose answer was lost may have been made.
    pub(super) async fn drop_if_refused(&self, job: &str, taken: &[String], made: &Result<(), Refused>) {
        if !matches!(made, Err(refused) if refused.status != StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        for savepoint in taken {
            if let Err(error) = self.shelf.job(job).drop_savepoint(savepoint).await {
                tracing::warn!(job, savepoint, %error, "could not drop the savepoint of a change that was refused");
            }
        }
    }

    /// Refuses to drop a savepoint that the job is still to go back to.
    pub(super) async fn refuse_if_needed(&self, job: &str, savepoint: &str) -> Result<(), Refused> {
        let specification = match self.specification(job).await {
            Ok((specification, _)) => specification,
            // What is left of a job that was deleted needs nothing.
            Err(refused) if refused.status == StatusCode::NOT_FOUND => return Ok(()),
            Err(refused) => return Err(refused),
        };
        let Some(go_back) = specification.go_back.filter(|go_back| go_back.savepoint == savepoint) else {
            return Ok(());
        };
        let done = self.shelf.job(job).went_back().await.map_err(|error| Refused::unavailable(&error))?;
        if done == Some(go_back.id) {
            return Ok(());
        }
        let error = format!(
            "the job '{job}' is still to go back to the savepoint '{savepoint}': start it, or have it run something else before"
        );
        Err(Refused::new(StatusCode::CONFLICT, error))
    }

    async fn savepoint(&self, job: &str, name: &str) -> Result<Savepoint, Refused> {
        let found = self.shelf.job(job).savepoint(checked(name)?).await;
        let found = found.map_err(|error| Refused::unavailable(&error.into()))?;
        let none = || format!("the job '{job}' has no savepoint '{name}': `fluvial savepoints {job}` lists them");
        found.ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, none()))
    }

    /// Whether a job has a newer checkpoint than that of a savepoint.
    async fn has_moved_on(&self, job: &str, savepoint: &Savepoint) -> Result<bool, Refused> {
        let newest = self.shelf.job(job).newest_checkpoint().await;
        let newest = newest.map_err(|error| Refused::unavailable(&error))?;
        Ok(newest.as_ref() != Some(&savepoint.checkpoint))
    }

    /// Refuses to go back to a savepoint without a correction of the outputs, if these have moved on since, or may while the job runs.
    async fn refuse_moved_on(&self, job: &str, savepoint: &Savepoint) -> Result<(), Refused> {
        let runs = !matches!(self.job(job).await?.state, JobState::Stopped | JobState::Ended | JobState::Failed);
        if !runs && !self.has_moved_on(job, savepoint).await? {
            return Ok(());
        }
        let what = if runs { "runs, so its outputs move on" } else { "has outputs that have moved on" };
        let error = format!(
            "the job '{job}' {what} from the savepoint '{}': to read the input since then again and correct the upsert outputs, add \
             --correct-outputs; to leave them as they are, submit the job under another name, with other outputs",
            savepoint.name
        );
        Err(Refused::new(StatusCode::CONFLICT, error))
    }

    /// Takes the savepoint to which `rollback` goes back. Returns its name; `None` if the job has no checkpoint yet.
    async fn save_before(&self, job: &str, revision: u64) -> Result<Option<String>, Refused> {
        let store = self.shelf.job(job);
        let name = format!("before-{}-{:08x}", revision + 1, rand::random::<u32>());
        match store.take_savepoint(&name).await {
            Ok(_) => Ok(Some(name)),
            Err(error) if error.is::<NoCheckpoint>() => Ok(None),
            Err(error) => {
                let error = error.context("no savepoint could be taken before");
                Err(Refused::by_store_or(StatusCode::CONFLICT, &error))
            }
        }
    }
}

/// Refuses to go back to a savepoint of a job with outputs that cannot be corrected: what they hold since then would be written again.
fn refuse_append_outputs(savepoint: &Savepoint) -> Result<(), Refused> {
    match savepoint.manifest.sinks.iter().find(|sink| !sink.envelope.can_be_corrected()) {
        None => Ok(()),
        Some(append) => {
            let error = format!(
                "the {} output '{}' cannot be taken back to the savepoint '{}', and its records would be written again: submit \
                 the job under another name, with other outputs",
                append.envelope, append.output, savepoint.name
            );
            Err(Refused::new(StatusCode::CONFLICT, error))
        }
    }
}

/// Says what an update would change, by a check with the new program
#[utoipa::path(post, path = "/v1/jobs/{name}/plan", operation_id = "plan_update",
    responses((status = 200, description = "The plan. Nothing has changed", body = Plan)))]
pub(super) async fn plan(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
    Json(update): Json<Update>,
) -> Result<Json<Plan>, Refused> {
    let (before, wanted) = knowledge.specification(&name).await?;
    update.binary.as_deref().map_or(Ok(()), is_hash)?;
    let next = Specification {
        binary: update.binary.unwrap_or(before.binary),
        arguments: update.arguments.unwrap_or(before.arguments),
        job: before.job,
        limits: before.limits,
        ..Specification::default()
    };
    secrets::check(&next.arguments).map_err(Refused::wrong)?;
    let wrong = |error: anyhow::Error| Refused::wrong(format!("{error:#}"));
    let mut verdict = knowledge.shelf.check(&next).await.map_err(wrong)?;
    if !verdict.ready && !verdict.version.is_empty() {
        // Some of it may be what the person is about to approve.
        let approved = Specification { approved: Some(verdict.version), ..next };
        verdict = knowledge.shelf.check(&approved).await.map_err(wrong)?;
    }
    let (program, revision) = (verdict.version, wanted.revision);
    let (problems, warnings, parts) = (verdict.problems, verdict.warnings, verdict.parts);
    Ok(Json(Plan { revision, program, problems, warnings, parts }))
}

/// Goes back to what a job ran before its last upgrade, and to the savepoint from before it
#[utoipa::path(post, path = "/v1/jobs/{name}/rollback", operation_id = "roll_back",
    responses((status = 200, description = "The job goes back")))]
pub(super) async fn rollback(
    State(knowledge): State<Knowledge>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    let (now, wanted) = knowledge.specification(&name).await?;
    let none =
        || Refused::new(StatusCode::CONFLICT, format!("the job '{name}' was not upgraded, so there is no way back"));
    let report = knowledge.job(&name).await?;
    if let Some(version) = report.returns_to {
        // What was wanted last has read no input: nothing has to be taken back.
        let (version, of) = (Some(version), Some(wanted.revision));
        let change = Change::Update { job: name, version, workers: None, require: None, of, back: None };
        knowledge.change(change).await?;
        return Ok(StatusCode::OK);
    }
    let mut taken = Vec::new();
    let made = async {
        let previous = now.previous.clone().ok_or_else(none)?;
        let then = knowledge.shelf.get(&previous.version).await.map_err(|error| Refused::unavailable(&error))?;
        let next = match previous.savepoint {
            Some(savepoint) => {
                refuse_append_outputs(&knowledge.savepoint(&name, &savepoint).await?)?;
                // The way forward again.
                taken.extend(knowledge.save_before(&name, wanted.revision).await?);
                let go_back = Some(GoesBack { savepoint, id: rand::random(), correct_outputs: true });
                Specification { go_back, approved: None, ..then }
            }
            // There was no checkpoint yet: the program goes on from where the job is, and corrects its outputs.
            None => {
                let checked = knowledge.shelf.check(&then).await;
                let verdict = checked.map_err(|error| Refused::new(StatusCode::CONFLICT, format!("{error:#}")))?;
                Specification { approved: Some(verdict.version), ..then }
            }
        };
        let version = Some(knowledge.put(&next).await?);
        let back = knowledge.put_way_back(&now, &next, &taken).await?;
        let (job, of) = (name.clone(), Some(wanted.revision));
        knowledge.change(Change::Update { job, version, workers: None, require: None, of, back }).await
    };
    let made = made.await;
    knowledge.drop_if_refused(&name, &taken, &made).await;
    made.map(|()| StatusCode::OK)
}
