//! What jobs of a cluster tell about themselves.

use std::process::Command;

use fluvial_tests::http;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::nodes::Cluster;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn a_job_tells_its_graph_and_what_each_part_of_it_does_on_all_nodes() {
    let (cluster, stage) = (Cluster::without_key(2), Stage::new(Subject::Orders, 2).unwrap());
    let name = stage.name().to_owned();
    stage.feed(0..500).unwrap();
    // Two slots a node: the workers are on both.
    let (succeeded, said) = cluster.submit(&stage, 4, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&stage);

    // The graph is what the binary itself says of it.
    let api = cluster.addresses.borrow()[&0].1.parse().unwrap();
    let get = |path: &str| {
        let (status, body) = http::get(api, path).unwrap();
        assert_eq!(status, 200, "{path}: {body}\n{}", cluster.logs());
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let graph = get(&format!("/v1/jobs/{name}/graph"));
    let last = graph["nodes"].as_array().unwrap().last().unwrap();
    let args = ["graph", "--format", "json", "--brokers", "127.0.0.1:1", "--output", text(&last["name"])];
    let printed = Command::new(binary("orders").unwrap()).args(args).output();
    let printed: Value = serde_json::from_slice(&printed.unwrap().stdout).unwrap();
    assert_eq!(graph["edges"], printed["edges"]);
    let ids: Vec<_> = graph["nodes"].as_array().unwrap().iter().map(|node| text(&node["id"]).to_owned()).collect();
    for id in ["source:orders", "operator:sales", "durable:orders", "operator:revenue", "output:"] {
        assert!(ids.iter().any(|found| found.starts_with(id)), "{id}: {ids:?}");
    }

    // All that was fed has gone through the durable operator, on the workers of both nodes.
    let operator = |status: &Value, id: &str| {
        let all = status["figures"]["operators"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|operator| operator["id"] == id).unwrap_or_default()
    };
    cluster.wait_until("the figures of all workers", || {
        let orders = operator(&cluster.status(&name), "durable:orders");
        orders["records_in"] == 500 && orders["workers"].as_array().is_some_and(|workers| workers.len() == 4)
    });
    let status = cluster.status(&name);
    let figures = &status["figures"];
    let known: Vec<_> =
        figures["operators"].as_array().unwrap().iter().map(|operator| text(&operator["id"]).to_owned()).collect();
    assert_eq!(known, ids, "figures and graph have the same ids");
    let orders = operator(&status, "durable:orders");
    let workers = orders["workers"].as_array().unwrap();
    let sum = |of: &str| workers.iter().map(|worker| worker[of].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("records_in"), sum("rows")), (500, orders["rows"].as_u64().unwrap()));
    assert!(orders["rows"].as_u64() > Some(0) && orders["state_bytes"].as_u64() > Some(0), "{orders}");
    assert!(orders["records_skew"].as_f64() >= Some(1.0), "{orders}");
    let edges = figures["edges"].as_array().unwrap();
    let into_orders = edges.iter().filter(|edge| edge["to"] == "durable:orders");
    assert_eq!(into_orders.map(|edge| edge["records"].as_u64().unwrap()).sum::<u64>(), 500);
    let processes = figures["processes"].as_array().unwrap();
    assert!(processes.len() == 2 && processes.iter().all(|process| process["memory_bytes"].as_u64() > Some(1 << 20)));
    assert!(status["memory_bytes"].as_u64() > Some(1 << 21) && figures["commits"]["count"].as_u64() > Some(0));
    let splits = figures["splits"].as_array().unwrap();
    assert_eq!(splits.len(), 2, "{splits:?}");
    cluster.wait_until("no lag", || {
        let splits = cluster.status(&name)["figures"]["splits"].as_array().cloned().unwrap_or_default();
        splits.iter().all(|split| split["lag_records"] == 0) && splits.len() == 2
    });

    // The list of all jobs is short, and `top` shows the same once, because its output is no terminal.
    let jobs = get("/v1/jobs");
    assert!(jobs[0]["figures"].is_null() && jobs[0]["memory_bytes"].as_u64() > Some(1 << 21), "{jobs}");
    let top = cluster.tell("top");
    assert!(top.lines().count() == 2 && top.contains(&name) && top.contains("MiB") && !top.contains('\x1b'), "{top}");
    let (status, body) = http::get(api, "/v1/jobs/nobody/graph").unwrap();
    assert!(status == 404 && body.contains("error"), "{status} {body}");
}
