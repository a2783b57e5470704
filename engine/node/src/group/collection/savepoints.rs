//! The savepoints that were taken before upgrades: the newest few stay, and those that a job may go back to.

use std::collections::BTreeSet;

use fluvial_protocol::group::GroupRecord;

use super::rule::{Stored, roots};
use super::{Collector, clock, used};

/// Whether a savepoint was taken before an upgrade, and not by a person: `before-3-1f2e3d4c`.
fn is_automatic(name: &str) -> bool {
    let Some((revision, random)) = name.strip_prefix("before-").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let all = |text: &str, fits: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(fits);
    all(revision, u8::is_ascii_digit) && random.len() == 8 && all(random, u8::is_ascii_hexdigit)
}

/// Which of a job's savepoints are dropped, of those that are given from the oldest to the newest, each with whether it is old.
fn dropped(savepoints: &[(String, bool)], named: &BTreeSet<&str>, keep: usize) -> Vec<String> {
    let automatic: Vec<_> = savepoints.iter().filter(|(name, _)| is_automatic(name)).collect();
    let most = automatic.len().saturating_sub(keep);
    let of_old = automatic[..most].iter().filter(|(name, is_old)| *is_old && !named.contains(name.as_str()));
    of_old.map(|(name, _)| name.clone()).collect()
}

impl Collector {
    /// Drops the savepoints of each job that were taken before upgrades, except those that stay.
    pub(super) async fn collect_savepoints(&mut self, record: &GroupRecord) -> anyhow::Result<()> {
        let specifications = roots(record).into_iter().map(|version| (version, true)).collect();
        let mut stored = Stored { specifications, ..Stored::default() };
        for (name, job) in record.jobs.iter().filter(|(_, job)| job.wanted.is_some()) {
            let store = self.shelf.job(name);
            let mut found: Vec<_> = store.listed("savepoints").await?;
            found.sort_by_key(|(name, object)| (object.last_modified, name.clone()));
            let now = clock();
            let found: Vec<_> = found.into_iter().map(|(name, object)| (name, (self.is_old)(&object, now))).collect();
            if dropped(&found, &BTreeSet::new(), self.options.keep_savepoints).is_empty() {
                continue;
            }
            // Those before each version are looked at, too.
            let of_job = GroupRecord { jobs: [(name.clone(), job.clone())].into(), ..record.clone() };
            stored
                .specifications
                .extend(self.list("specifications", ".json").await?.into_keys().map(|name| (name, true)));
            self.read(&of_job, &stored).await?;
            let used = used(&of_job, &self.known);
            let specifications = || used.iter().filter_map(|version| self.known.get(version));
            let before = specifications().filter_map(|one| one.previous.as_ref()?.savepoint.as_deref());
            let named = specifications().filter_map(|one| Some(one.go_back.as_ref()?.savepoint.as_str())).chain(before);
            for savepoint in dropped(&found, &named.collect(), self.options.keep_savepoints) {
                store.drop_savepoint(&savepoint).await?;
                tracing::info!(
                    job = name,
                    savepoint,
                    "a savepoint from before an upgrade is not needed any more: it was dropped"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_savepoints_from_before_upgrades_stay_and_those_that_are_named_and_all_of_people() {
        let named = |n: u32| format!("before-{n}-0000000{n}");
        let savepoints: Vec<_> = (1..=5).map(|n| (named(n), n != 2)).chain([("first".to_owned(), true)]).collect();
        let check = |keep, names: &[&str], expected: &[u32]| {
            let names = names.iter().copied().collect();
            let expected: Vec<_> = expected.iter().map(|n| named(*n)).collect();
            assert_eq!(dropped(&savepoints, &names, keep), expected);
        };
        check(3, &[], &[1]);
        check(1, &[], &[1, 3, 4]);
        check(1, &["before-3-00000003"], &[1, 4]);
        check(9, &[], &[]);
        for (name, automatic) in
            [("before-upgrade.1", false), ("before-1-0000000g", false), ("before-12-89abcdef", true)]
        {
            assert_eq!(is_automatic(name), automatic, "{name}");
        }
    }
}
