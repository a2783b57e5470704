//! The page of a job in the console: its dataflow, its past, and what operators do with it.

use fluvial_tests::browser::Browser;
use fluvial_tests::http;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::{Value, json};

use crate::console::{act, api_of, browse, complains_of_nothing, fact, is_for_everybody, row, wait_until, words};
use crate::front::Front;
use crate::nodes::Cluster;

/// The answer of a node's API.
fn answer(cluster: &Cluster, node: usize, path: &str) -> Value {
    let (status, body) = http::get(api_of(cluster, node).parse().unwrap(), path).unwrap();
    assert_eq!(status, 200, "{path}: {body}\n{}", cluster.logs());
    serde_json::from_str(&body).unwrap()
}

/// A count as the pages write it, of at most six digits.
fn grouped(count: &Value) -> String {
    let count = count.as_u64().unwrap();
    if count < 1000 { count.to_string() } else { format!("{},{:03}", count / 1000, count % 1000) }
}

/// What an expression says of each element that matches.
fn list(browser: &Browser, selector: &str, says: &str) -> Vec<String> {
    let script = format!("return [...document.querySelectorAll(arguments[0])].map((of) => {says})");
    let found = browser.run(&script, &[selector.into()]).unwrap();
    found.as_array().unwrap().iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
}

/// What the table of operators shows of a job that has nothing to do, and what the API says of it.
fn operators(browser: &Browser, status: &Value) -> (Vec<String>, Vec<String>) {
    let operators = status["figures"]["operators"].as_array().cloned().unwrap_or_default();
    let said = operators.iter().map(|operator| {
        let rows = &operator["rows"];
        let noun = if *rows == 1 { "row" } else { "rows" };
        let state = if rows.is_null() { "–".to_owned() } else { format!("{} {noun}", grouped(rows)) };
        format!("{} in {} state {state}", operator["id"], operator["records_in_per_s"])
    });
    let shown = operators.iter().map(|operator| {
        let id = operator["id"].as_str().unwrap();
        let cells = row(browser, &format!("operator {id}"));
        let [_, _, _, read, _, _, state] = &cells[..] else { return format!("{cells:?}") };
        let read =
            if id.starts_with("source:") { operator["records_in_per_s"].to_string() } else { format!("{read}.0") };
        let state = words(state).split(' ').take(2).collect::<Vec<_>>().join(" ");
        format!("{} in {read} state {state}", operator["id"])
    });
    (shown.collect(), said.collect())
}

/// Waits until the job runs with so many workers and has nothing to do, and its page shows what the API says of its operators.
#[track_caller]
fn agree(browser: &Browser, cluster: &Cluster, job: &str, workers: usize) {
    let equal = || {
        let status = cluster.status(job);
        let (shown, said) = operators(browser, &status);
        let of_first = &status["figures"]["operators"][0]["workers"];
        status["state"] == "running"
            && of_first.as_array().is_some_and(|all| all.len() == workers)
            && status["figures"]["operators"].as_array().unwrap().iter().all(|of| of["records_in_per_s"] == 0.0)
            && shown == said
    };
    let begun = std::time::Instant::now();
    while !equal() {
        let status = cluster.status(job);
        let (shown, said) = operators(browser, &status);
        let late = begun.elapsed() >= fluvial_tests::stage::MOST;
        assert!(!late, "shown {shown:#?}\nsaid {said:#?}\n{status:#}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Has the page receive figures in which one operator takes nearly all time of worker 0, and little of that of the others.
const MAKE_BUSY: &str = "const real = window.fetch; const [path, id] = arguments; \
    window.fetch = async (asked, options) => { \
        const answer = await real(asked, options); \
        if (asked !== path) return answer; \
        const job = await answer.json(); \
        const of = job.figures.operators.find((operator) => operator.id === id); \
        of.workers.forEach((worker, at) => { worker.busy_share = at === 0 ? 0.97 : 0.1; }); \
        Object.assign(of, { busy_share: 0.32, busy_skew: 3.1 }); \
        return new Response(JSON.stringify(job)); }";

#[test]
fn the_dataflow_is_drawn_with_the_figures_of_the_api_and_a_bottleneck_stands_out() {
    let (cluster, stage) = (Cluster::without_key(2), Stage::new(Subject::Bank, 2).unwrap());
    let name = stage.name().to_owned();
    stage.feed(0..500).unwrap();
    let (succeeded, said) = cluster.submit(&stage, 4, &binary("bank").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    let browser = browse(&api_of(&cluster, 0), &format!("/jobs/{name}"));
    wait_until(&browser, "the drawing", |browser| !list(browser, "g.node", "of.dataset.node").is_empty());
    let graph = answer(&cluster, 0, &format!("/v1/jobs/{name}/graph"));
    let texts =
        |all: &Value, text: &dyn Fn(&Value) -> String| all.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ids = texts(&graph["nodes"], &|node| text(&node["id"]));
    let edges = texts(&graph["edges"], &|edge| format!("{} {}", text(&edge["from"]), text(&edge["to"])));
    assert_eq!(list(&browser, "g.node", "of.dataset.node"), ids);
    let mut drawn = list(&browser, "g.edge", "of.dataset.edge");
    drawn.sort();
    assert_eq!(drawn, {
        let mut edges = edges;
        edges.sort();
        edges
    });
    stage.feed(500..1000).unwrap();
    agree(&browser, &cluster, &name, 4);
    // What a screen reader says of a part.
    let said = browser.run("return document.querySelector('g.node').textContent", &[]).unwrap();
    assert!(words(said.as_str().unwrap()).starts_with("transfers source 0/s out lag 0 records busy 0 %"), "{said}");

    // The keyboard reaches the parts, and shows what is known of one.
    browser.run("document.querySelector('.drawing').focus()", &[]).unwrap();
    browser.press("\u{E004}").unwrap();
    let focused = browser.run("return document.activeElement.dataset.node", &[]).unwrap();
    assert_eq!(focused, ids[0].as_str());
    browser.press("\u{E007}").unwrap();
    wait_until(&browser, "the splits", |browser| row(browser, "split 1").len() == 4);
    assert!(browser.text("#choice").unwrap().unwrap().contains("transfers"));
    browser.press(" ").unwrap();
    wait_until(&browser, "the choice is gone", |browser| browser.text("#choice").unwrap().is_none());
    let durable = ids.iter().find(|id| id.as_str() == "durable:credits").unwrap();
    browser
        .run("document.querySelector(`g[data-node='${arguments[0]}']`).focus()", &[durable.as_str().into()])
        .unwrap();
    browser.press("\u{E007}").unwrap();
    let status = cluster.status(&name);
    let all = status["figures"]["operators"].as_array().unwrap();
    let of_durable = all.iter().find(|operator| operator["id"] == durable.as_str()).unwrap();
    for worker in of_durable["workers"].as_array().unwrap() {
        wait_until(&browser, "the records of a worker", |browser| {
            row(browser, &format!("worker {}", worker["worker"])).get(3) == Some(&grouped(&worker["records_in"]))
        });
    }
    is_for_everybody(&browser, "the dataflow");

    // A bottleneck is named with its reason, and marked by a word and a shape in the drawing and in the table.
    let path = format!("/v1/jobs/{name}");
    browser.run(MAKE_BUSY, &[path.into(), "durable:debits".into()]).unwrap();
    wait_until(&browser, "the bottleneck is named", |browser| {
        let said = browser.text(".finding").unwrap().unwrap_or_default();
        said.contains("debits is the bottleneck: worker 0 spends 97 % of its time in it") && said.contains("unevenly")
    });
    let marked = list(&browser, "g.node", "of.textContent.includes('▲ bottleneck') && of.dataset.node");
    assert_eq!(marked.iter().filter(|id| !id.is_empty()).collect::<Vec<_>>(), ["durable:debits"]);
    let width = |id: &str| {
        let script =
            "return getComputedStyle(document.querySelector(`g[data-node='${arguments[0]}'] .box`)).strokeWidth";
        browser.run(script, &[id.into()]).unwrap()
    };
    assert_ne!(width("durable:debits"), width("durable:credits"));
    assert!(row(&browser, "operator durable:debits")[0].contains("▲ bottleneck"));
    is_for_everybody(&browser, "a bottleneck");
    complains_of_nothing(&browser);

    // The figures of other workers, of a generation that begins at 0.
    browser.open(&format!("http://{}/jobs/{name}", api_of(&cluster, 0))).unwrap();
    cluster.tell(&format!("rescale {name} --workers 2"));
    agree(&browser, &cluster, &name, 2);
    let lost = cluster.nodes_of(&name)[0];
    let serving = 1 - lost;
    browser.open(&format!("http://{}/jobs/{name}", api_of(&cluster, serving))).unwrap();
    agree(&browser, &cluster, &name, 2);
    cluster.kill(lost);
    agree(&browser, &cluster, &name, 2);

    // Each generation with the reason it ended, as the API has it, which says the reason that the next one began.
    let all_shown = || {
        let attempts = answer(&cluster, serving, &format!("/v1/jobs/{name}/attempts"));
        let attempts = attempts.as_array().unwrap();
        let shown = |attempt: &Value| {
            let cells = row(&browser, &format!("attempt {}", attempt["number"]));
            let ended = attempt["ended"].as_str().unwrap_or("goes on");
            cells.len() == 5
                && cells[0].starts_with(&attempt["generation"].to_string())
                && words(&cells[1]).ends_with(attempt["why"].as_str().unwrap())
                && words(&cells[2]).ends_with(ended)
        };
        attempts.len() == 3
            && attempts[1]["ended"].as_str().is_some_and(|why| why.contains("lost"))
            && attempts.iter().all(shown)
    };
    cluster.wait_until("the generations", all_shown);
    wait_until(&browser, "a checkpoint", |browser| {
        let sizes = list(browser, "tr[data-key^='checkpoint '] td[data-name='Size']", "of.innerText");
        sizes.first().is_some_and(|size| size.contains('B'))
    });
    complains_of_nothing(&browser);
}

/// What the page says of a job with one operator.
fn finding(browser: &Browser, shares: &[f64], skew: f64, lag_ms: u64) -> String {
    let workers: Vec<_> =
        shares.iter().enumerate().map(|(worker, share)| json!({ "worker": worker, "busy_share": share })).collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let operator = json!({ "id": "durable:orders", "workers": workers, "busy_share": mean, "busy_skew": skew });
    let figures = json!({ "operators": [operator], "commits": { "count": 10, "sum_ms": 1200.0 } });
    let job = json!({ "figures": figures, "progress": { "lag_ms": lag_ms, "lag_records": 5000 } });
    let script = "return import('/console/busy.js').then(({ finding }) => finding(arguments[0], () => 'orders').text)";
    browser.run(script, &[job]).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_page_says_in_a_sentence_where_a_job_is_slow_and_why() {
    let cluster = Cluster::without_key(1);
    let browser = browse(&api_of(&cluster, 0), "/");
    for (shares, skew, lag_ms, says) in [
        (&[0.0, 0.0][..], 1.0, 0, "No operator limits the job. All operators are idle."),
        (
            &[0.2, 0.3],
            1.2,
            0,
            "No operator limits the job. The busiest operator, orders, takes 30 % of the time of one worker.",
        ),
        (
            &[0.9, 0.85],
            1.03,
            0,
            "orders is the bottleneck: worker 0 spends 90 % of its time in it: more workers would help.",
        ),
        (
            &[0.05, 0.95],
            1.9,
            30_000,
            "The output is 30 s behind, 5,000 records. orders is the bottleneck: worker 1 spends 95 % of its time in it, 1.9 times the \
             mean of the workers: records are unevenly distributed, so more workers would not help.",
        ),
        (
            &[0.1],
            1.0,
            30_000,
            "The output is 30 s behind, 5,000 records. No operator limits the job, so the source may be slow, or the sink, whose \
             commits take 120 ms. The busiest operator, orders, takes 10 % of the time of one worker.",
        ),
    ] {
        assert_eq!(finding(&browser, shares, skew, lag_ms), says);
    }
}

#[test]
fn a_savepoint_is_taken_listed_and_deleted_after_a_confirmation() {
    let (cluster, stage) = (Cluster::without_key(1), Stage::new(Subject::Orders, 2).unwrap());
    let name = stage.name().to_owned();
    stage.feed(0..200).unwrap();
    let (succeeded, said) = cluster.submit(&stage, 1, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&stage);
    cluster.wait_until("a checkpoint", || !cluster.status(&name)["progress"]["checkpoint"].is_null());
    let kept = || answer(&cluster, 0, &format!("/v1/jobs/{name}/savepoints"));
    let browser = browse(&api_of(&cluster, 0), &format!("/jobs/{name}"));
    wait_until(&browser, "there is no savepoint", |browser| {
        browser.text("[data-key=savepoints]").unwrap().is_some_and(|shown| shown.contains("No savepoint"))
    });
    browser.click("[data-action=savepoint]").unwrap();
    is_for_everybody(&browser, "the confirmation of a savepoint");
    browser.type_into("dialog input", "before-lunch").unwrap();
    browser.click("dialog [type=submit]").unwrap();
    wait_until(&browser, "the savepoint is listed", |browser| row(browser, "savepoint before-lunch").len() == 5);
    assert_eq!(kept()[0]["name"], "before-lunch");
    assert_eq!(row(&browser, "savepoint before-lunch")[3], kept()[0]["generation"].to_string());
    // The same name once more is refused, and the reason is read where the name was typed.
    browser.click("[data-action=savepoint]").unwrap();
    browser.type_into("dialog input", "before-lunch").unwrap();
    browser.click("dialog [type=submit]").unwrap();
    wait_until(&browser, "the refusal", |browser| {
        browser.text("dialog .error").unwrap().is_some_and(|error| error.contains("before-lunch"))
    });
    browser.click("dialog [data-close]").unwrap();
    is_for_everybody(&browser, "savepoints");
    act(&browser, "delete-savepoint");
    wait_until(&browser, "the savepoint is gone", |browser| row(browser, "savepoint before-lunch").is_empty());
    assert_eq!(kept(), json!([]));
    // A request that was refused is no error of the page.
    let complaints = browser.complaints().unwrap();
    assert!(
        complaints.iter().all(|complaint| complaint.contains("/savepoints") && complaint.contains("409")),
        "{complaints:#?}"
    );
}

#[test]
fn a_page_that_nobody_sees_asks_for_nothing() {
    let (cluster, stage) = (Cluster::without_key(1), Stage::new(Subject::Orders, 2).unwrap());
    let name = stage.name().to_owned();
    let (succeeded, said) = cluster.submit(&stage, 1, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    let front = Front::before(&api_of(&cluster, 0));
    let browser = browse(&front.address, &format!("/jobs/{name}"));
    let status = format!("/v1/jobs/{name}");
    let times = || front.asked().iter().filter(|path| **path == status).count();
    cluster.wait_until("the page asks again and again", || times() >= 3);
    browser.hide(true).unwrap();
    wait_until(&browser, "the page has paused", |browser| browser.text("#link").unwrap().as_deref() == Some("Paused"));
    cluster.wait_until("no request is open", || front.open() == 0);
    let asked = front.asked();
    // This takes seconds, in which a page that is seen would ask.
    cluster.tell(&format!("rescale {name} --workers 2"));
    cluster.wait_until("two workers", || cluster.status(&name)["attempt"]["workers"] == 2);
    assert_eq!(front.asked(), asked);
    assert!(words(&fact(&browser, "Wanted")).starts_with("to run with 1 worker"));
    browser.hide(false).unwrap();
    wait_until(&browser, "the page goes on", |browser| {
        words(&fact(browser, "Wanted")).starts_with("to run with 2 workers")
            && browser.text("#link").unwrap().as_deref() == Some("Live")
    });
    assert!(times() > asked.iter().filter(|path| **path == status).count());
    complains_of_nothing(&browser);
}

#[test]
fn every_node_tells_the_same_of_the_last_hour_also_what_a_lost_node_knew_and_nobody_looked_at() {
    let (cluster, stage) = (Cluster::without_key(3), Stage::new(Subject::Orders, 2).unwrap());
    let name = stage.name().to_owned();
    let (succeeded, said) = cluster.submit(&stage, 1, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    stage.feed(0..200).unwrap();
    cluster.wait_until_right(&stage);
    let first = cluster.nodes_of(&name)[0];
    // The samples of a node, without their ages.
    let samples = |node: usize| {
        let history = answer(&cluster, node, "/v1/history");
        let samples = history["jobs"][&name].as_array().cloned().unwrap_or_default();
        samples.iter().map(|sample| sample.as_array().unwrap()[1..].to_vec()).collect::<Vec<_>>()
    };
    let attempts = |node: usize| answer(&cluster, node, &format!("/v1/jobs/{name}/attempts"));
    cluster.wait_until("two samples at the node of the job", || samples(first).len() >= 2);
    let known = samples(first);
    cluster.wait_until("all nodes tell the same", || (0..3).all(|node| samples(node).starts_with(&known)));
    cluster
        .wait_until("all nodes tell the same of the attempts", || (0..3).all(|node| attempts(node) == attempts(first)));
    cluster.kill(first);
    let others: Vec<_> = (0..3).filter(|node| *node != first).collect();
    for node in &others {
        assert!(samples(*node).starts_with(&known), "node {node}: {:?}, before {known:?}", samples(*node));
    }
    cluster.wait_until("the job runs elsewhere", || {
        let status = cluster.status(&name);
        status["state"] == "running" && cluster.nodes_of(&name)[0] != first
    });
    // A node that was not there is told.
    cluster.start_node(first);
    cluster.wait_until("the new node tells the same", || {
        samples(first).starts_with(&known)
            && attempts(first).as_array().unwrap().len() >= 2
            && attempts(first) == attempts(others[0])
    });
}
