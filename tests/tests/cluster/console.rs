//! The console, in a browser.

use fluvial_tests::browser::Browser;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::front::Front;
use crate::nodes::Cluster;

/// The browser's window.
const WIDE: (u32, u32) = (1280, 800);
/// The width of a telephone.
const NARROW: (u32, u32) = (390, 800);

/// A browser that shows a path of a console.
pub(crate) fn browse(address: &str, path: &str) -> Browser {
    browse_by("http", address, path)
}

pub(crate) fn browse_by(scheme: &str, address: &str, path: &str) -> Browser {
    let browser = Browser::start().unwrap();
    browser.resize(WIDE.0, WIDE.1).unwrap();
    browser.open(&format!("{scheme}://{address}{path}")).unwrap();
    browser
}

pub(crate) fn api_of(cluster: &Cluster, node: usize) -> String {
    cluster.addresses.borrow()[&node].1.clone()
}

/// The value that the page of a job shows beside a name.
pub(crate) fn fact(browser: &Browser, name: &str) -> String {
    browser.text(&format!("[data-key='{name}'] dd")).unwrap().unwrap_or_default()
}

/// The texts of the cells of a row of a table.
pub(crate) fn row(browser: &Browser, key: &str) -> Vec<String> {
    let script = "return [...document.querySelectorAll(`tr[data-key='${arguments[0]}'] :is(th, td)`)].map((cell) => cell.innerText.trim())";
    let cells = browser.run(script, &[key.into()]).unwrap();
    cells.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
pub(crate) fn wait_until(browser: &Browser, what: &str, holds: impl Fn(&Browser) -> bool) {
    browser.wait_until(what, |browser| Ok(holds(browser))).unwrap();
}

/// Clicks on an action of a job, and confirms it.
pub(crate) fn act(browser: &Browser, action: &str) {
    browser.click(&format!("[data-action={action}]")).unwrap();
    browser.click("dialog [type=submit]").unwrap();
    wait_until(browser, "the dialog closes", |browser| browser.text("dialog[open]").unwrap().is_none());
}

/// The page has complained about nothing.
#[track_caller]
pub(crate) fn complains_of_nothing(browser: &Browser) {
    let complaints: Vec<_> = browser.complaints().unwrap();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Anybody can use the page: it is readable for a screen reader, in the light, in the dark and on a telephone.
#[track_caller]
pub(crate) fn is_for_everybody(browser: &Browser, page: &str) {
    for dark in [false, true] {
        browser.prefer_dark(dark).unwrap();
        for (width, height) in [WIDE, NARROW] {
            browser.resize(width, height).unwrap();
            let widths = browser.run("return [document.documentElement.scrollWidth, innerWidth]", &[]).unwrap();
            assert!(widths[0].as_u64() <= widths[1].as_u64(), "{page} is wider than {width} px: {widths}");
            browser.picture(&format!("{page} {width} {}", if dark { "dark" } else { "light" })).unwrap();
            let found = browser.accessibility().unwrap();
            assert!(found.is_empty(), "{page}, {width} px, dark: {dark}: {found:#?}");
        }
    }
    browser.prefer_dark(false).unwrap();
    browser.resize(WIDE.0, WIDE.1).unwrap();
}

/// A text in which line breaks are blanks.
pub(crate) fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How far a job is that runs.
fn progress_of(status: &Value) -> Option<&Value> {
    (status["state"] != "stopped").then_some(&status["progress"]).filter(|progress| progress.is_object())
}

/// What the API says of a job that the page of the job shows, as the page shows it.
fn said(status: &Value) -> Vec<String> {
    let (wanted, attempt) = (&status["wanted"], &status["attempt"]);
    let workers = wanted["workers"].as_u64().unwrap();
    let workers = format!("{workers} worker{}", if workers == 1 { "" } else { "s" });
    let runs = if wanted["run"] == true { format!("to run with {workers}") } else { "to be stopped".to_owned() };
    let mut said = vec![
        format!("{runs} revision {}", wanted["revision"]),
        status["state"].as_str().unwrap().to_owned(),
        attempt["number"].to_string(),
        attempt["generation"].to_string(),
        attempt["why"].as_str().unwrap().to_owned(),
    ];
    for process in attempt["processes"].as_array().unwrap() {
        said.push(format!("Process {}", process["process"]));
        said.extend([process["node"].as_str().unwrap().to_owned(), process["workers"].to_string()]);
        let why = process["why"].as_str().unwrap_or_default();
        said.push(words(&format!("{} {why}", process["state"].as_str().unwrap())));
    }
    if let Some(progress) = progress_of(status) {
        said.extend([progress["lag_records"].to_string(), progress["records_in"].to_string()]);
        said.push(progress["records_out"].to_string());
    }
    said
}

fn shown(browser: &Browser, status: &Value) -> Vec<String> {
    let mut shown =
        vec![words(&fact(browser, "Wanted")), browser.text(".state-of .badge").unwrap().unwrap_or_default()];
    shown.extend(["Attempt", "Generation", "Began because of"].map(|name| fact(browser, name)));
    for process in 0..status["attempt"]["processes"].as_array().unwrap().len() {
        shown.extend(row(browser, &process.to_string()).iter().map(|cell| words(cell)));
    }
    if progress_of(status).is_some() {
        let number = |text: String| text.split_whitespace().next().unwrap_or_default().replace(',', "");
        shown.extend(["Lag", "Records read", "Records committed"].map(|name| number(fact(browser, name))));
    }
    shown
}

/// Waits until the API says this of a job, and the page the same as the API.
#[track_caller]
fn agree(browser: &Browser, cluster: &Cluster, job: &str, when: impl Fn(&Value) -> bool) {
    let holds = || {
        let status = cluster.status(job);
        when(&status) && shown(browser, &status) == said(&status)
    };
    let begun = std::time::Instant::now();
    while !holds() {
        let status = cluster.status(job);
        assert!(
            begun.elapsed() < fluvial_tests::stage::MOST,
            "shown {:?}\nsaid {:?}\n{}",
            shown(browser, &status),
            said(&status),
            cluster.logs()
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn the_console_shows_what_the_api_says_while_a_job_is_stopped_started_rescaled_and_loses_its_node() {
    let (cluster, stage) = (Cluster::without_key(3), Stage::new(Subject::Orders, 2).unwrap());
    let name = stage.name().to_owned();
    stage.feed(0..200).unwrap();
    let (succeeded, said) = cluster.submit(&stage, 2, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&stage);
    let browser = browse(&api_of(&cluster, 0), "/");
    wait_until(&browser, "the overview shows the job", |browser| {
        let cells = row(browser, &name);
        cells.len() == 7 && cells[..3] == [name.as_str(), "running", "2 / 2"] && cells[3].starts_with('0')
    });
    is_for_everybody(&browser, "the overview");
    browser.click(&format!("tr[data-key='{name}'] a")).unwrap();
    let running_with =
        |workers: u64| move |status: &Value| status["state"] == "running" && status["attempt"]["workers"] == workers;
    agree(&browser, &cluster, &name, running_with(2));
    is_for_everybody(&browser, "the page of a job");
    // Who does not confirm changes nothing.
    browser.click("[data-action=stop]").unwrap();
    assert!(browser.text("dialog").unwrap().unwrap().contains(&format!("Stop {name}?")));
    is_for_everybody(&browser, "the confirmation");
    browser.click("dialog [data-close]").unwrap();
    agree(&browser, &cluster, &name, running_with(2));
    act(&browser, "stop");
    agree(&browser, &cluster, &name, |status| status["state"] == "stopped");
    is_for_everybody(&browser, "the page of a stopped job");
    act(&browser, "start");
    stage.feed(200..400).unwrap();
    agree(&browser, &cluster, &name, running_with(2));
    cluster.wait_until_right(&stage);
    let before = cluster.status(&name)["attempt"]["number"].as_u64();
    act(&browser, "restart");
    agree(&browser, &cluster, &name, |status| running_with(2)(status) && status["attempt"]["number"].as_u64() > before);
    browser.click("[data-action=rescale]").unwrap();
    browser.type_into("dialog input", "1").unwrap();
    // By the keyboard.
    browser.press("\u{E007}").unwrap();
    agree(&browser, &cluster, &name, running_with(1));
    stage.feed(400..600).unwrap();
    cluster.wait_until_right(&stage);
    agree(&browser, &cluster, &name, running_with(1));
    let attempt = cluster.status(&name)["attempt"]["number"].as_u64();
    let lost = cluster.nodes_of(&name)[0];
    // The job may have moved to the node that serves the page.
    let serving = (0..3).find(|node| *node != lost).unwrap();
    browser.open(&format!("http://{}/jobs/{name}", api_of(&cluster, serving))).unwrap();
    agree(&browser, &cluster, &name, running_with(1));
    cluster.kill(lost);
    agree(&browser, &cluster, &name, |status| {
        running_with(1)(status) && status["attempt"]["number"].as_u64() > attempt
    });
    assert!(fact(&browser, "Began because of").contains("lost"), "{}", fact(&browser, "Began because of"));
    cluster.start_node(lost);
    browser.click("nav [data-page=nodes]").unwrap();
    cluster.wait_until("the page of nodes shows them as the API does", || {
        let nodes: Value = serde_json::from_str(&cluster.tell("nodes --json")).unwrap();
        let nodes = nodes.as_array().unwrap();
        let used = |node: &Value| format!("{} / {}", node["slots_used"], node["slots"]);
        nodes.iter().filter(|node| node["state"] == "ready").count() == 3
            && nodes.iter().map(|node| node["slots_used"].as_u64().unwrap()).sum::<u64>() == 1
            && nodes.iter().all(|node| {
                let cells = row(&browser, node["node"].as_str().unwrap());
                cells.len() == 7 && cells[1] == "ready" && cells[2] == used(node)
            })
    });
    is_for_everybody(&browser, "the page of nodes");
    complains_of_nothing(&browser);
}

#[test]
fn a_page_that_loses_its_node_says_so_offers_the_others_and_goes_on_behind_one_name() {
    let cluster = Cluster::without_key(3);
    let front = Front::before(&api_of(&cluster, 0));
    let direct = browse(&api_of(&cluster, 0), "/nodes");
    let balanced = browse(&front.address, "/nodes");
    let others: Vec<_> = [1, 2].map(|node| api_of(&cluster, node)).into();
    for browser in [&direct, &balanced] {
        wait_until(browser, "the other nodes", |browser| {
            let page = browser.text("main").unwrap().unwrap_or_default();
            others.iter().all(|other| page.contains(other))
        });
        complains_of_nothing(browser);
    }
    cluster.kill(0);
    for browser in [&direct, &balanced] {
        wait_until(browser, "the connection is lost", |browser| {
            browser.text("#link").unwrap().as_deref() == Some("Connection lost")
        });
    }
    let said = direct.text("#notice").unwrap().unwrap();
    assert!(said.contains("Connection lost since") && others.iter().all(|other| said.contains(other)), "{said}");
    assert!(direct.text("#urgent").unwrap().unwrap().contains("Connection lost"));
    is_for_everybody(&direct, "a page without its node");
    // One of the others goes on with the same page.
    direct.click(&format!("#notice a[href*='{}']", others[0])).unwrap();
    wait_until(&direct, "the page is live on another node", |browser| {
        browser.text("#link").unwrap().as_deref() == Some("Live")
    });
    assert_eq!(direct.run("return location.host + location.pathname", &[]).unwrap(), format!("{}/nodes", others[0]));
    front.turn_to(&others[1]);
    wait_until(&balanced, "the page is live again by itself", |browser| {
        browser.text("#link").unwrap().as_deref() == Some("Live")
    });
    assert_eq!(balanced.text("#notice").unwrap().as_deref(), Some(""));
}

#[test]
fn texts_of_users_are_shown_as_text() {
    let cluster = Cluster::without_key(1);
    let script = "<img/src=x/onerror=window.hit=1><script>window.hit=1</script>";
    let orders = binary("orders").unwrap();
    let submit = format!("submit {} --detach --name odd -- --brokers {script} --input a --output b", orders.display());
    cluster.tell(&submit);
    let browser = browse(&api_of(&cluster, 0), "/");
    for path in ["/", "/jobs/odd", "/jobs/%3Cscript%3Ewindow.hit=1%3C%2Fscript%3E", "/jobs/%E0%A4%A"] {
        browser.open(&format!("http://{}{path}", api_of(&cluster, 0))).unwrap();
        wait_until(&browser, "the text", |browser| {
            let shown = browser.text("main").unwrap().unwrap_or_default();
            if path.contains('%') { shown.contains("There is no job") } else { shown.contains(script) }
        });
        assert_eq!(
            browser
                .run("return [window.hit ?? 0, document.querySelectorAll('main :is(script, img)').length]", &[])
                .unwrap(),
            serde_json::json!([0, 0])
        );
    }
    complains_of_nothing(&browser);
}

#[test]
fn a_token_signs_in_and_a_viewer_has_no_actions() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let (succeeded, said) = cluster.submit(&stage, 1, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    let tokens = ["viewer", "operator"].map(|role| {
        let said = cluster.tell(&format!("tokens create {role} --role {role}"));
        said.split_whitespace().find(|word| word.starts_with("fluvial_")).unwrap().to_owned()
    });
    let browser = browse_by("https", &api_of(&cluster, 0), &format!("/jobs/{}", stage.name()));
    let form = |browser: &Browser| browser.text("form.sign-in").unwrap();
    wait_until(&browser, "the form", |browser| form(browser).is_some());
    is_for_everybody(&browser, "the form");
    browser.type_into("#token", "guess").unwrap();
    browser.press("\u{E007}").unwrap();
    wait_until(&browser, "a wrong token is refused", |browser| form(browser).unwrap().contains("not known"));
    for (role, token, actions) in [("viewer", &tokens[0], 0), ("operator", &tokens[1], 4)] {
        browser.type_into("#token", token).unwrap();
        browser.press("\u{E007}").unwrap();
        wait_until(&browser, "the job", |browser| {
            browser.text(".state-of .badge").unwrap().as_deref() == Some("running")
        });
        let buttons = browser.run("return document.querySelectorAll('[data-action]').length", &[]).unwrap();
        assert_eq!(buttons, actions, "{role}");
        assert!(browser.text("#user").unwrap().unwrap().contains(role));
        browser.click("[data-sign-out]").unwrap();
        wait_until(&browser, "the form", |browser| form(browser).is_some());
        assert_eq!(browser.text(".state-of").unwrap(), None, "nothing of the job stays on the page");
    }
}
