//! Asks a node what it knows.

use std::io;
use std::time::Duration;

use fluvial_protocol::group::{Change, NodeId, Refusal};

use super::connection::{Answer, Connection, Hello, NotOpened};
use crate::logs::{Page, Question};
use crate::status::{Report, View};
use crate::trust::Trust;

/// How long the answer of one node may take. It asks nobody else.
const VIEW_WITHIN: Duration = Duration::from_secs(2);
/// How long lines of a log may take, which are more than a view.
const LOGS_WITHIN: Duration = Duration::from_secs(4);
/// How long the answer of a node may take that asks the coordinator, and then all others at once.
const REPORT_WITHIN: Duration = Duration::from_secs(8);

/// What the node at an address knows by itself, with the figures of the parts of one job.
///
/// # Errors
/// It does not answer, it runs another job, or this end does not belong to its cluster.
pub async fn ask_for_view(address: &str, trust: &Trust, job: &str, figures_of: Option<&str>) -> io::Result<View> {
    let figures_of = figures_of.map(str::to_owned);
    let question = Hello::Question { job: job.to_owned(), whole: false, figures_of };
    match ask(address, trust, question, VIEW_WITHIN).await? {
        Answer::View(view) => Ok(*view),
        other => Err(unexpected(other)),
    }
}

/// What the node at an address knows together with the others.
///
/// # Errors
/// It does not answer, it runs another job, or this end does not belong to its cluster.
pub async fn ask_for_report(address: &str, trust: &Trust, job: &str) -> io::Result<Report> {
    let question = Hello::Question { job: job.to_owned(), whole: true, figures_of: None };
    match ask(address, trust, question, REPORT_WITHIN).await? {
        Answer::Report(report) => Ok(*report),
        other => Err(unexpected(other)),
    }
}

/// Asks the coordinator for a change that a user wants.
///
/// # Errors
/// It does not answer, or this end does not belong to its cluster.
pub async fn ask_for_change(to: &NodeId, trust: &Trust, change: Change) -> io::Result<Result<(), Refusal>> {
    let hello = Hello::Change { to: to.clone(), change };
    match ask(&to.address, trust, hello, REPORT_WITHIN).await? {
        Answer::Changed(answer) => Ok(answer),
        other => Err(unexpected(other)),
    }
}

/// Asks a node for lines of a job's log.
///
/// # Errors
/// It does not answer, or this end does not belong to its cluster.
pub async fn ask_for_logs(to: &NodeId, trust: &Trust, question: Question) -> io::Result<Page> {
    let hello = Hello::Logs { to: to.clone(), question };
    match ask(&to.address, trust, hello, LOGS_WITHIN).await? {
        Answer::Logs(page) => Ok(*page),
        other => Err(unexpected(other)),
    }
}

fn unexpected(answer: Answer) -> io::Error {
    io::Error::other(match answer {
        Answer::NotMe => "a copy of another job answers".to_owned(),
        Answer::Later(why) => why,
        _ => "it answers another question".to_owned(),
    })
}

async fn ask(address: &str, trust: &Trust, question: Hello, within: Duration) -> io::Result<Answer> {
    let asked = async {
        let mut connection = Connection::open(address, trust).await.map_err(|error| match error {
            NotOpened::Refused => io::ErrorKind::ConnectionRefused.into(),
            NotOpened::Insecure(error) | NotOpened::Failed(error) => error,
        })?;
        connection.write(&question).await?;
        connection.read().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    tokio::time::timeout(within, asked).await.map_err(io::Error::from)?
}
