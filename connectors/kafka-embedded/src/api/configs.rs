//! Settings of topics, shown and changed; those of the broker, shown.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Call, text};
use crate::Refusal;
use crate::state::State;
use crate::state::settings::{Change, KNOWN, Kind, Settings};
use crate::state::topics::Named;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from: set for the topic, the broker's own, or the default.
const SET_FOR_TOPIC: i8 = 1;
const OF_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// Shows settings.
pub(super) fn describe(call: &Call<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let state = call.shared.state();
    let results = request.resources.into_iter().map(|resource| {
        let shown = call.permit().map_err(Refusal::from).and_then(|()| match resource.resource_type {
            TOPIC => of_topic(&state, &resource, request.include_synonyms),
            BROKER => Ok(of_broker(call)),
            other => Err(Refusal::new(ResponseError::InvalidRequest, format!("Unknown resource type {other}"))),
        });
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        match shown {
            Ok(mut configs) => {
                if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
                    configs.retain(|config| keys.contains(&config.name));
                }
                result.with_configs(configs)
            }
            Err(refusal) => {
                result.with_error_code(refusal.error.code()).with_error_message(Some(text(refusal.message)))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn of_topic(
    state: &State,
    resource: &DescribeConfigsResource,
    synonyms: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let settings = &state.topics.get(Named::Name(&resource.resource_name))?.settings;
    let each = KNOWN.iter().map(|known| {
        let name = StrBytes::from_static_str(known.name);
        let source = if settings.is_set(known) { SET_FOR_TOPIC } else { DEFAULT };
        let config = DescribeConfigsResourceResult::default()
            .with_name(name.clone())
            .with_value(Some(text(settings.value(known))))
            .with_config_source(source)
            .with_config_type(known.kind.code());
        if !synonyms {
            return config;
        }
        let synonym = |value: &str, source| {
            DescribeConfigsSynonym::default().with_name(name.clone()).with_value(Some(text(value))).with_source(source)
        };
        let mut all = vec![synonym(known.default, DEFAULT)];
        if settings.is_set(known) {
            all.insert(0, synonym(settings.value(known), SET_FOR_TOPIC));
        }
        config.with_synonyms(all)
    });
    Ok(each.collect())
}

fn of_broker(call: &Call<'_>) -> Vec<DescribeConfigsResourceResult> {
    let config = &call.shared.config;
    let shown = [
        ("auto.create.topics.enable", Kind::Boolean, config.auto_create.to_string()),
        ("default.replication.factor", Kind::Int, "1".to_owned()),
        ("group.min.session.timeout.ms", Kind::Int, config.min_session_timeout.as_millis().to_string()),
        ("log.cleaner.enable", Kind::Boolean, "false".to_owned()),
        ("num.partitions", Kind::Int, config.default_partitions.to_string()),
        ("transaction.max.timeout.ms", Kind::Int, config.max_transaction_timeout.as_millis().to_string()),
    ];
    let each = shown.into_iter().map(|(name, kind, value)| {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(text(value)))
            .with_read_only(true)
            .with_config_source(OF_BROKER)
            .with_config_type(kind.code())
    });
    each.collect()
}

/// Replaces all settings of topics.
pub(super) fn alter(call: &Call<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut state = call.shared.state();
    let responses = request.resources.into_iter().map(|resource| {
        let changes = resource.configs.iter().map(|c| Ok((&*c.name, Change::Set, c.value.as_deref())));
        let target = (resource.resource_type, &*resource.resource_name);
        let done = change(call, &mut state, target, Some(Settings::default()), changes, request.validate_only);
        let (code, message) = outcome(done);
        AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
    });
    let responses = responses.collect();
    AlterConfigsResponse::default().with_responses(responses)
}

/// Changes single settings of topics.
pub(super) fn alter_incrementally(
    call: &Call<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut state = call.shared.state();
    let responses = request.resources.into_iter().map(|resource| {
        let changes =
            resource.configs.iter().map(|c| Ok((&*c.name, Change::try_from(c.config_operation)?, c.value.as_deref())));
        let target = (resource.resource_type, &*resource.resource_name);
        let (code, message) = outcome(change(call, &mut state, target, None, changes, request.validate_only));
        IncrementalResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
    });
    let responses = responses.collect();
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

/// Makes all changes to a topic's settings, beginning with `from` or with what it has, or none of them.
fn change<'a>(
    call: &Call<'_>,
    state: &mut State,
    (kind, topic): (i8, &str),
    from: Option<Settings>,
    changes: impl Iterator<Item = Result<(&'a str, Change, Option<&'a str>), Refusal>>,
    only_check: bool,
) -> Result<(), Refusal> {
    call.permit()?;
    if kind != TOPIC {
        let why = "The settings of the embedded broker itself cannot be changed while it runs.";
        return Err(Refusal::new(ResponseError::InvalidRequest, why));
    }
    let topic = state.topics.get_mut(Named::Name(topic))?;
    let mut settings = from.unwrap_or_else(|| topic.settings.clone());
    for change in changes {
        let (name, change, value) = change?;
        settings.change(name, change, value)?;
    }
    if !only_check {
        topic.settings = settings;
    }
    Ok(())
}

fn outcome(done: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match done {
        Ok(()) => (0, None),
        Err(refusal) => (refusal.error.code(), Some(text(refusal.message))),
    }
}
