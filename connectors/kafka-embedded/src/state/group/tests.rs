#![allow(clippy::unwrap_used)]
use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

fn join(member: &str) -> Join {
    Join {
        member: member.to_owned(),
        instance: None,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
        id_first: true,
    }
}

fn sync(joined: &Joined, assignments: &[(&str, &'static str)]) -> Sync {
    Sync {
        member: joined.member.clone(),
        instance: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments.iter().map(|(m, a)| ((*m).to_owned(), Bytes::from_static(a.as_bytes()))).collect(),
    }
}

/// Joins a new member, which comes twice: for its id, and with it.
fn enter(group: &mut Group, now: Instant) -> (String, oneshot::Receiver<Joined>) {
    let first = group.join(join(""), now).try_recv().unwrap();
    assert_eq!(first.error, Some(ResponseError::MemberIdRequired));
    let answer = group.join(join(&first.member), now);
    (first.member, answer)
}

/// A group of one, at work.
fn stable(now: Instant) -> (Group, Joined) {
    let mut group = Group::new("g");
    let (id, mut answer) = enter(&mut group, now);
    let joined = answer.try_recv().unwrap();
    assert_eq!((joined.generation, joined.leader.as_str(), joined.members.len()), (1, id.as_str(), 1));
    let mine = group.sync(sync(&joined, &[(&id, "all")]), now).try_recv().unwrap();
    assert_eq!(mine.unwrap(), "all");
    assert_eq!(group.phase, Phase::Stable);
    (group, joined)
}

#[test]
fn a_second_member_makes_the_first_join_again_and_both_are_assigned() {
    let now = Instant::now();
    let (mut group, first) = stable(now);
    let (second, mut second_answer) = enter(&mut group, now);
    assert!(second_answer.try_recv().is_err(), "the first has not joined again");
    assert_eq!(group.heartbeat(&first.member, None, 1, now), Err(ResponseError::RebalanceInProgress));
    let first = group.join(join(&first.member), now).try_recv().unwrap();
    let second_joined = second_answer.try_recv().unwrap();
    assert_eq!((first.generation, second_joined.generation), (2, 2));
    assert_eq!((first.members.len(), second_joined.members.len()), (2, 0), "only the leader is told the members");
    let mut follows = group.sync(sync(&second_joined, &[]), now);
    assert!(follows.try_recv().is_err(), "the leader has not assigned");
    group.sync(sync(&first, &[(&first.member, "0"), (&second, "1")]), now);
    assert_eq!(follows.try_recv().unwrap().unwrap(), "1");
    assert_eq!(group.heartbeat(&second, None, 2, now), Ok(()));
}

#[test]
fn a_member_that_does_not_join_again_in_time_is_left_behind() {
    let now = Instant::now();
    let (mut group, first) = stable(now);
    let (_, mut answer) = enter(&mut group, now);
    let later = now + REBALANCE;
    group.heard_from(&first.member, later);
    group.expire(later);
    assert_eq!(answer.try_recv().unwrap().generation, 2);
    assert_eq!(group.heartbeat(&first.member, None, 1, later), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_silent_member_is_removed_at_its_deadline() {
    let now = Instant::now();
    let (mut group, first) = stable(now);
    assert_eq!(group.expire(now), Some(now + SESSION));
    group.heartbeat(&first.member, None, 1, now + SESSION / 2).unwrap();
    assert_eq!(group.expire(now + SESSION), Some(now + SESSION / 2 + SESSION));
    assert_eq!(group.expire(now + SESSION * 2), None);
    assert!(group.is_empty());
}

#[test]
fn only_the_current_generation_commits_offsets() {
    let now = Instant::now();
    let (mut group, first) = stable(now);
    assert_eq!(group.check_commit(&first.member, None, 1, false), Ok(()));
    assert_eq!(group.check_commit(&first.member, None, 0, false), Err(ResponseError::IllegalGeneration));
    assert_eq!(group.check_commit("stranger", None, 1, true), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.check_commit("", None, -1, false), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.check_commit("", None, -1, true), Ok(()), "a producer without a group's membership");
    group.leave(&first.member, None, now).unwrap();
    assert_eq!(group.check_commit("", None, -1, false), Ok(()), "an empty group is anyone's");
}

#[test]
fn a_static_member_that_comes_back_keeps_its_place_and_fences_its_former_self() {
    let now = Instant::now();
    let mut group = Group::new("g");
    let named = || Join { instance: Some("one".to_owned()), ..join("") };
    let first = group.join(named(), now).try_recv().unwrap();
    group.sync(Sync { instance: Some("one".to_owned()), ..sync(&first, &[(&first.member, "all")]) }, now);
    let again = group.join(named(), now).try_recv().unwrap();
    assert_eq!(again.generation, first.generation, "no rebalance");
    assert_ne!(again.member, first.member);
    assert!(again.skip_assignment);
    let fenced = group.heartbeat(&first.member, Some("one"), 1, now);
    assert_eq!(fenced, Err(ResponseError::FencedInstanceId));
    let synced = group.sync(Sync { instance: Some("one".to_owned()), ..sync(&again, &[]) }, now).try_recv().unwrap();
    assert_eq!(synced.unwrap(), "all");
}

#[test]
fn members_must_share_a_protocol() {
    let now = Instant::now();
    let (mut group, _) = stable(now);
    let other = Join { protocols: vec![("sticky".to_owned(), Bytes::new())], id_first: false, ..join("") };
    let refused = group.join(other, now).try_recv().unwrap();
    assert_eq!(refused.error, Some(ResponseError::InconsistentGroupProtocol));
    assert_eq!(group.members.len(), 1);
}

#[test]
fn offsets_of_a_transaction_show_when_it_commits() {
    let committed = |offset| Committed { offset, leader_epoch: -1, metadata: None };
    let mut offsets = Offsets::default();
    offsets.commit("t", 0, committed(1));
    offsets.hold(7, "t", 0, committed(5));
    assert_eq!(offsets.get("t", 0), Some(&committed(1)));
    assert!(offsets.is_pending("t", 0));
    offsets.release(7, false);
    assert_eq!(offsets.get("t", 0), Some(&committed(1)));
    offsets.hold(7, "t", 0, committed(6));
    offsets.release(7, true);
    assert_eq!(offsets.get("t", 0), Some(&committed(6)));
    assert!(!offsets.is_pending("t", 0));
}
