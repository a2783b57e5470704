//! Consumer groups' membership.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::{Call, code, text};
use crate::state::group::{Group, Join, Joined, Sync};

/// The longest session timeout, as in Kafka.
const LONGEST_SESSION: Duration = Duration::from_secs(30 * 60);

/// A copy that does not keep the request's buffer alive.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Joins a group; the answer comes when the group is complete.
pub(super) async fn join(call: &Call<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let joined = match begin_join(call, &request) {
        Ok(answer) => answer.await.unwrap_or_else(|_| refused(ResponseError::UnknownMemberId)),
        Err(error) => refused(error),
    };
    let error = joined.error.map_or(0, |e| e.code());
    let members = joined.members.into_iter().map(|(id, instance, subscription)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(subscription);
        if call.version >= 5 { member.with_group_instance_id(instance.map(text)) } else { member }
    });
    let response = JoinGroupResponse::default()
        .with_error_code(error)
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.map(text))
        // Only version 7 and later can say that there is none.
        .with_protocol_name(joined.protocol.map(text).or((call.version < 7).then(Default::default)))
        .with_leader(text(joined.leader))
        .with_member_id(text(if joined.member.is_empty() { request.member_id.to_string() } else { joined.member }))
        .with_members(members.collect());
    if call.version >= 9 { response.with_skip_assignment(joined.skip_assignment) } else { response }
}

fn refused(error: ResponseError) -> Joined {
    Joined { error: Some(error), generation: -1, ..Joined::default() }
}

fn begin_join(
    call: &Call<'_>,
    request: &JoinGroupRequest,
) -> Result<tokio::sync::oneshot::Receiver<Joined>, ResponseError> {
    call.permit()?;
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let millis = |ms: i32| Duration::from_millis(ms.max(0).unsigned_abs().into());
    let session_timeout = millis(request.session_timeout_ms);
    if session_timeout < call.shared.config.min_session_timeout || session_timeout > LONGEST_SESSION {
        return Err(ResponseError::InvalidSessionTimeout);
    }
    let join = Join {
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(ToString::to_string),
        client_id: call.client_id.to_owned(),
        client_host: call.host.to_owned(),
        session_timeout,
        // Version 0 has one timeout for both.
        rebalance_timeout: if call.version == 0 { session_timeout } else { millis(request.rebalance_timeout_ms) },
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.iter().map(|p| (p.name.to_string(), own(&p.metadata))).collect(),
        id_first: call.version >= 4,
    };
    let mut state = call.shared.state();
    if state.groups.get(&request.group_id).is_none() && !join.member.is_empty() {
        return Err(ResponseError::UnknownMemberId);
    }
    let group = state.groups.or_new(&request.group_id);
    let answer = group.join(join, call.now.instant);
    let due = group.expire(call.now.instant);
    if let Some(due) = due {
        state.alarm.set(due);
    }
    Ok(answer)
}

/// Gives a member its assignment; the answer comes when the leader has brought it.
pub(super) async fn sync(call: &Call<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let answer = change(call, &request.group_id, |group| {
        let sync = Sync {
            member: request.member_id.to_string(),
            instance: request.group_instance_id.as_ref().map(ToString::to_string),
            generation: request.generation_id,
            protocol_type: request.protocol_type.as_ref().map(ToString::to_string),
            protocol: request.protocol_name.as_ref().map(ToString::to_string),
            assignments: request.assignments.iter().map(|a| (a.member_id.to_string(), own(&a.assignment))).collect(),
        };
        Ok(group.sync(sync, call.now.instant))
    });
    let assigned = match answer {
        // The channel ends when the member is removed.
        Ok(answer) => answer.await.unwrap_or(Err(ResponseError::UnknownMemberId)),
        Err(error) => Err(error),
    };
    let response = SyncGroupResponse::default().with_error_code(code(&assigned));
    let response = match assigned {
        Ok(assignment) => response.with_assignment(assignment),
        Err(_) => response,
    };
    if call.version < 5 {
        return response;
    }
    let state = call.shared.state();
    let group = state.groups.get(&request.group_id);
    response
        .with_protocol_type(group.and_then(|g| g.protocol_type.clone()).map(text))
        .with_protocol_name(group.and_then(|g| g.protocol.clone()).map(text))
}

/// Does something to a group that has members.
fn change<T>(
    call: &Call<'_>,
    id: &GroupId,
    change: impl FnOnce(&mut Group) -> Result<T, ResponseError>,
) -> Result<T, ResponseError> {
    call.permit()?;
    if id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let mut state = call.shared.state();
    let group = state.groups.get_mut(id).ok_or(ResponseError::UnknownMemberId)?;
    let result = change(group);
    let due = group.expire(call.now.instant);
    if let Some(due) = due {
        state.alarm.set(due);
    }
    result
}

/// A member says that it lives.
pub(super) fn heartbeat(call: &Call<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let alive = change(call, &request.group_id, |group| {
        let instance = request.group_instance_id.as_deref();
        group.heartbeat(&request.member_id, instance, request.generation_id, call.now.instant)
    });
    HeartbeatResponse::default().with_error_code(code(&alive))
}

/// Members leave: one, or several from version 3 on.
pub(super) fn leave(call: &Call<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let leave = |member: &str, instance: Option<&str>| {
        change(call, &request.group_id, |group| group.leave(member, instance, call.now.instant))
    };
    if call.version < 3 {
        return LeaveGroupResponse::default().with_error_code(code(&leave(&request.member_id, None)));
    }
    let members = request.members.iter().map(|member| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(&leave(&member.member_id, member.group_instance_id.as_deref())))
    });
    LeaveGroupResponse::default().with_error_code(code(&call.permit())).with_members(members.collect())
}

/// Shows groups with their members; a group that does not exist is dead.
pub(super) fn describe(call: &Call<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let state = call.shared.state();
    let groups = request.groups.into_iter().map(|id| {
        let group = state.groups.get(&id);
        let shown = DescribedGroup::default().with_error_code(code(&call.permit())).with_group_id(id);
        let Some(group) = group else { return shown.with_group_state(text("Dead")) };
        let members = group.members.iter().map(|(id, member)| {
            let shown = DescribedGroupMember::default()
                .with_member_id(text(id))
                .with_client_id(text(&*member.client_id))
                .with_client_host(text(&*member.client_host))
                .with_member_metadata(member.subscription(group.protocol.as_deref()))
                .with_member_assignment(member.assignment.clone());
            if call.version >= 4 { shown.with_group_instance_id(member.instance.clone().map(text)) } else { shown }
        });
        shown
            .with_group_state(text(group.phase.name()))
            .with_protocol_type(text(group.protocol_type.clone().unwrap_or_default()))
            .with_protocol_data(text(group.protocol.clone().unwrap_or_default()))
            .with_members(members.collect())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

/// Lists the groups, of some states only if asked.
pub(super) fn list(call: &Call<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let state = call.shared.state();
    let meant = |filter: &[kafka_protocol::protocol::StrBytes], name: &str| {
        filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(name))
    };
    let groups = state
        .groups
        .iter()
        .filter(|g| meant(&request.states_filter, g.phase.name()) && meant(&request.types_filter, "classic"))
        .map(|group| {
            ListedGroup::default()
                .with_group_id(GroupId(text(&*group.id)))
                .with_protocol_type(text(group.protocol_type.clone().unwrap_or_default()))
                .with_group_state(text(group.phase.name()))
                .with_group_type(text("classic"))
        });
    ListGroupsResponse::default().with_error_code(code(&call.permit())).with_groups(groups.collect())
}

/// Deletes groups that have no members.
pub(super) fn delete(call: &Call<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut state = call.shared.state();
    let results = request.groups_names.into_iter().map(|id| {
        let deleted = call.permit().and_then(|()| state.groups.delete(&id));
        DeletableGroupResult::default().with_error_code(code(&deleted)).with_group_id(id)
    });
    let results = results.collect();
    DeleteGroupsResponse::default().with_results(results)
}
