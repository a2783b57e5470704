//! Faults on request: which requests go wrong, and how.
//!
//! A fault picks requests by their API and their client, or takes any, counts them from 1, and strikes from the n-th on,
//! a number of times. The counting is per fault and over all connections. Faults stack: the first one that strikes wins,
//! but all of them count.

use std::str::FromStr;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The connection is closed, and the request is not carried out.
    Drop,
    /// The request is carried out, and the connection is closed in place of an answer: its outcome is unknown.
    Lose,
    /// The request is carried out, but only after this time, and even if its client has gone meanwhile. Everything later
    /// on its connection waits as well. So an `EndTxn` can come late and end a later transaction, as it can in Kafka.
    Delay(Duration),
    /// The request is not carried out, and answered with this error.
    Fail(ResponseError),
    /// A `ListOffsets` request is told of no end after this offset, as by a broker that has lost the leadership of its
    /// partitions and does not know it yet.
    End(i64),
    /// A `Metadata` request is told of the topics and of no broker, as by a KRaft broker that has just started and has not
    /// heard of any broker yet, itself included.
    NoBrokers,
}

/// A fault to be put into a [`Broker`](crate::Broker).
///
/// ```
/// use fluvial_kafka_embedded::{ApiKey, Fault, ResponseError};
/// // The third and fourth produce request of clients whose id contains "orders" fail.
/// let fault = Fault::fail(ApiKey::Produce, ResponseError::NotLeaderOrFollower).nth(3).times(2).client("orders");
/// assert_eq!(fault, "Produce:3x2:error=NOT_LEADER_OR_FOLLOWER@orders".parse()?);
/// # Ok::<(), fluvial_kafka_embedded::FaultSyntax>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// None means any.
    api: Option<ApiKey>,
    client: Option<String>,
    nth: u64,
    times: u64,
    action: Action,
}

impl Fault {
    /// Such a fault at the next request of this API, or of any if it is `None`.
    pub fn new(api: impl Into<Option<ApiKey>>, action: Action) -> Self {
        Self { api: api.into(), client: None, nth: 1, times: 1, action }
    }

    /// Closes the connection in place of carrying out the request.
    pub fn drop(api: impl Into<Option<ApiKey>>) -> Self {
        Self::new(api, Action::Drop)
    }

    /// Carries out the request, and closes the connection in place of answering.
    pub fn lose(api: impl Into<Option<ApiKey>>) -> Self {
        Self::new(api, Action::Lose)
    }

    /// Carries out the request after a delay.
    pub fn delay(api: impl Into<Option<ApiKey>>, delay: Duration) -> Self {
        Self::new(api, Action::Delay(delay))
    }

    /// Answers the request with an error.
    pub fn fail(api: impl Into<Option<ApiKey>>, error: ResponseError) -> Self {
        Self::new(api, Action::Fail(error))
    }

    /// Says in answer to `ListOffsets` that partitions end at this offset, where they end after it.
    pub fn old_end(offset: i64) -> Self {
        Self::new(ApiKey::ListOffsets, Action::End(offset))
    }

    /// Names no broker in answer to `Metadata`.
    pub fn no_brokers() -> Self {
        Self::new(ApiKey::Metadata, Action::NoBrokers)
    }

    /// Strikes at the n-th request from now, the next one being the first.
    pub fn nth(self, nth: u64) -> Self {
        Self { nth: nth.max(1), ..self }
    }

    /// Strikes this many requests in a row.
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// Strikes every request from the n-th on.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Counts and strikes only requests of clients whose id contains this.
    pub fn client(self, part_of_id: impl Into<String>) -> Self {
        Self { client: Some(part_of_id.into()), ..self }
    }
}

/// A fault that could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is not a fault: write API:NTH[xTIMES]:ACTION[@CLIENT], as in Produce:3:drop, Fetch:1x*:delay=200ms, EndTxn:2:lose, Produce:1x5:error=NOT_LEADER_OR_FOLLOWER, ListOffsets:1x6:end=40 or Metadata:1:no-brokers"
)]
pub struct FaultSyntax(String);

impl FromStr for Fault {
    type Err = FaultSyntax;

    /// Reads `API:NTH[xTIMES]:ACTION[@CLIENT]`: the API's name or `*` for any, a count from 1, `*` times for ever, and one of `drop`,
    /// `lose`, `delay=200ms`, `error=NAME` (or its number), `end=40` (of `ListOffsets` only), `no-brokers` (of `Metadata`
    /// only).
    fn from_str(text: &str) -> Result<Self, FaultSyntax> {
        parse(text).ok_or_else(|| FaultSyntax(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (rule, client) = match text.split_once('@') {
        Some((rule, client)) => (rule, Some(client.to_owned())),
        None => (text, None),
    };
    let mut parts = rule.splitn(3, ':');
    let (api, count, action) = (parts.next()?, parts.next()?, parts.next()?);
    let api = match api {
        "*" => None,
        name => Some(crate::api::served().find(|key| plain(&format!("{key:?}")) == plain(name))?),
    };
    let (nth, times) = count.split_once('x').unwrap_or((count, "1"));
    let times = if times == "*" { u64::MAX } else { times.parse().ok()? };
    let nth = nth.parse().ok().filter(|nth| *nth > 0)?;
    let action = match action.split_once('=') {
        None if action == "drop" => Action::Drop,
        None if action == "lose" => Action::Lose,
        None if action == "no-brokers" && api == Some(ApiKey::Metadata) => Action::NoBrokers,
        Some(("delay", delay)) => Action::Delay(humantime::parse_duration(delay).ok()?),
        Some(("error", error)) => Action::Fail(parse_error(error)?),
        Some(("end", offset)) if api == Some(ApiKey::ListOffsets) => Action::End(offset.parse().ok()?),
        _ => return None,
    };
    Some(Fault { api, client, nth, times, action })
}

fn parse_error(name: &str) -> Option<ResponseError> {
    let known = (-1..=200).filter_map(ResponseError::try_from_code).filter(|e| !matches!(e, ResponseError::Unknown(_)));
    known.into_iter().find(|e| e.code().to_string() == name || plain(&format!("{e:?}")) == plain(name))
}

/// A name without what differs between the ways to write it.
fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

/// The faults that are set.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<(Fault, u64)>);

impl Faults {
    /// Sets one more.
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0.push((fault, 0));
    }

    /// Removes all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts a request, and says what is to happen to it.
    pub(crate) fn strike(&mut self, api: ApiKey, client: &str) -> Option<Action> {
        let mut struck = None;
        for (fault, seen) in &mut self.0 {
            let api = fault.api.is_none_or(|meant| meant == api);
            let meant = api && fault.client.as_deref().is_none_or(|part| client.contains(part));
            if !meant {
                continue;
            }
            *seen += 1;
            let strikes = *seen >= fault.nth && *seen - fault.nth < fault.times;
            if strikes && struck.is_none() {
                struck = Some(fault.action);
            }
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fault_strikes_from_the_nth_request_on_as_often_as_asked() {
        let mut faults = Faults::default();
        faults.add(Fault::drop(ApiKey::Fetch).nth(2).times(2));
        let struck: Vec<bool> = (0..5).map(|_| faults.strike(ApiKey::Fetch, "c").is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!(faults.strike(ApiKey::Produce, "c"), None);
        faults.add(Fault::drop(None));
        assert_eq!(faults.strike(ApiKey::Produce, "c"), Some(Action::Drop));
    }

    #[test]
    fn a_fault_may_be_meant_for_one_client() {
        let mut faults = Faults::default();
        faults.add(Fault::lose(ApiKey::EndTxn).client("bank").always());
        assert_eq!(faults.strike(ApiKey::EndTxn, "orders-1"), None);
        assert_eq!(faults.strike(ApiKey::EndTxn, "bank-1"), Some(Action::Lose));
        assert_eq!(faults.strike(ApiKey::EndTxn, "bank-2"), Some(Action::Lose));
    }

    #[test]
    fn faults_are_read_from_flags() {
        for (text, fault) in [
            ("Produce:3:drop", Fault::drop(ApiKey::Produce).nth(3)),
            ("fetch:1x*:delay=200ms", Fault::delay(ApiKey::Fetch, Duration::from_millis(200)).always()),
            ("EndTxn:1x2:error=51", Fault::fail(ApiKey::EndTxn, ResponseError::ConcurrentTransactions).times(2)),
            ("*:1x*:drop", Fault::drop(None).always()),
            ("ListOffsets:1x6:end=40", Fault::old_end(40).times(6)),
            ("Metadata:1:no-brokers", Fault::no_brokers()),
            ("end_txn:1:lose@bank", Fault::lose(ApiKey::EndTxn).client("bank")),
        ] {
            assert_eq!(text.parse::<Fault>().unwrap(), fault, "{text}");
        }
        for text in [
            "",
            "Produce",
            "Produce:0:drop",
            "Make:1:drop",
            "Produce:1:error=NO_SUCH",
            "Produce:1:delay=x",
            "Fetch:1:end=40",
            "Fetch:1:no-brokers",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
