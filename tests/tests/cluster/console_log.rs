//! The page of a job's log in the console.

use fluvial_tests::browser::Browser;
use fluvial_tests::client::Message;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::console::{api_of, browse, complains_of_nothing, is_for_everybody, row, wait_until, words};
use crate::logs::poison;
use crate::nodes::Cluster;

/// How many lines of orders the page shows.
fn orders(browser: &Browser) -> u64 {
    let script = "return [...document.querySelectorAll('#log .said')].filter((line) => line.textContent.startsWith('order ')).length";
    browser.run(script, &[]).unwrap().as_u64().unwrap()
}

fn number(browser: &Browser, script: &str) -> u64 {
    browser.run(&format!("const log = document.getElementById('log'); return {script}"), &[]).unwrap().as_u64().unwrap()
}

fn state(browser: &Browser) -> String {
    browser.text("#log-state").unwrap().unwrap_or_default()
}

#[test]
fn the_log_follows_waits_for_a_reader_who_scrolled_up_and_shows_markup_as_text() {
    let (cluster, stage) = (Cluster::without_key(1), Stage::new(Subject::Orders, 4).unwrap());
    let stage = stage.with_options(["--prints", "20", "--wrong", "panics"]);
    let name = stage.name().to_owned();
    let (succeeded, said) = cluster.submit(&stage, 2, &binary("faulty").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    stage.feed(0..200).unwrap();
    let browser = browse(&api_of(&cluster, 0), &format!("/jobs/{name}"));
    wait_until(&browser, "the page of the job", |browser| browser.text(".tabs").unwrap().is_some());
    browser.click(".tabs [data-key=logs]").unwrap();
    wait_until(&browser, "the lines of all orders", |browser| orders(browser) == 200 && state(browser) == "follows");
    assert!(number(&browser, "log.scrollHeight - log.clientHeight - log.scrollTop") <= 1, "it is at its end");

    // What a user has written is shown as text.
    let markup = "<img/src=x/onerror=window.hit=1><script>window.hit=1</script>";
    let order = r#"{"order_id":8,"customer":"c","region":"eu","product":"p","quantity":1,"price_cents":5,"at":0}"#;
    let input = stage.input();
    stage.endpoint().writer(&[]).unwrap().write(&[Message::text(&input, 1, markup, order)]).unwrap();
    wait_until(&browser, "the markup", |browser| {
        browser.text("#log").unwrap().is_some_and(|log| log.contains(&format!("order {markup}")))
    });
    let hit = browser
        .run("return [window.hit ?? 0, document.querySelectorAll('main :is(script, img)').length]", &[])
        .unwrap();
    assert_eq!(hit, serde_json::json!([0, 0]));

    // A reader who has scrolled up stays there; what is new waits, and is counted.
    browser.run("document.getElementById('log').scrollTop = 0", &[]).unwrap();
    wait_until(&browser, "the log has paused", |browser| state(browser) == "paused");
    let before = number(&browser, "log.childElementCount");
    stage.feed(200..400).unwrap();
    wait_until(&browser, "new lines are counted", |browser| {
        let said = browser.text("[data-to-end]").unwrap().unwrap_or_default();
        said.split(' ').next().and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 200)
    });
    assert_eq!((number(&browser, "log.scrollTop"), number(&browser, "log.childElementCount")), (0, before));
    is_for_everybody(&browser, "a log that has paused");
    browser.click("[data-to-end]").unwrap();
    wait_until(&browser, "all lines", |browser| orders(browser) == 401 && state(browser) == "follows");

    // The document holds the newest lines only.
    stage.feed(400..2400).unwrap();
    let newest = |browser: &Browser| browser.text("#log > :last-child .said").unwrap().unwrap_or_default();
    cluster.wait_until("the newest lines", || {
        let printed = cluster.tell(&format!("logs {name} --tail 1 --json"));
        let line = printed.lines().find(|line| line.starts_with('{')).unwrap();
        let said: Value = serde_json::from_str(line).unwrap();
        number(&browser, "log.childElementCount") == 1000
            && words(&newest(&browser)) == words(said["text"].as_str().unwrap())
    });
    is_for_everybody(&browser, "a log");
    complains_of_nothing(&browser);
}

#[test]
fn the_log_of_an_earlier_attempt_can_be_chosen_and_a_log_ends_with_its_job() {
    let (cluster, stage) = (Cluster::without_key(1), Stage::new(Subject::Orders, 4).unwrap());
    let stage = stage.with_options(["--prints", "20", "--wrong", "panics"]);
    let name = stage.name().to_owned();
    let (succeeded, said) = cluster.submit(&stage, 1, &binary("faulty").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    stage.feed(0..100).unwrap();
    let browser = browse(&api_of(&cluster, 0), &format!("/jobs/{name}/logs"));
    wait_until(&browser, "the lines of all orders", |browser| orders(browser) == 100);
    let first = cluster.status(&name)["attempt"]["number"].as_u64().unwrap();
    cluster.tell(&format!("restart {name}"));
    cluster.wait_until("the next attempt", || {
        let status = cluster.status(&name);
        status["attempt"]["number"].as_u64() > Some(first) && status["state"] == "running"
    });
    let second = cluster.status(&name)["attempt"]["number"].as_u64().unwrap();
    let choices = "return [...document.querySelectorAll('#attempt option')].map((option) => option.value)";
    wait_until(&browser, "both attempts can be chosen", |browser| {
        let found = browser.run(choices, &[]).unwrap();
        found == serde_json::json!(["", second.to_string(), first.to_string()])
    });
    let choose = |attempt: &str| {
        let script = "const of = document.getElementById('attempt'); of.value = arguments[0]; \
                      of.dispatchEvent(new Event('change', { bubbles: true }))";
        browser.run(script, &[attempt.into()]).unwrap();
    };
    let attempts = |browser: &Browser| {
        let script =
            "return [...new Set([...document.querySelectorAll('#log .from')].map((from) => from.textContent))].sort()";
        browser.run(script, &[]).unwrap()
    };
    choose(&first.to_string());
    wait_until(&browser, "the earlier attempt alone, which is over", |browser| {
        attempts(browser) == serde_json::json!([format!("{first}/0")])
            && orders(browser) == 100
            && state(browser) == "ended"
    });
    assert_eq!(browser.run("return location.search", &[]).unwrap(), format!("?attempt={first}"));
    choose(&second.to_string());
    wait_until(&browser, "the later attempt", |browser| {
        attempts(browser) == serde_json::json!([format!("{second}/0")])
    });
    choose("");
    wait_until(&browser, "all attempts", |browser| attempts(browser).as_array().is_some_and(|all| all.len() == 2));
    poison(&stage);
    wait_until(&browser, "the last words, and the end", |browser| {
        browser.text("#log").unwrap().is_some_and(|log| log.contains("order poison comes to nothing"))
            && state(browser) == "ended"
    });
    is_for_everybody(&browser, "a log that has ended");
    // The page of the job says why, and offers to start it.
    browser.click(".tabs [data-key=overview]").unwrap();
    wait_until(&browser, "the reason", |browser| {
        browser
            .text(".state-of")
            .unwrap()
            .is_some_and(|state| state.contains("failed") && state.contains("comes to nothing"))
    });
    wait_until(&browser, "the generation has ended for this reason", |browser| {
        row(browser, &format!("attempt {second}")).get(2).is_some_and(|ended| ended.contains("comes to nothing"))
    });
    assert!(browser.text(".finding").unwrap().unwrap().contains("While the job is failed"));
    assert!(
        browser.text("[data-action=start]").unwrap().is_some() && browser.text("[data-action=stop]").unwrap().is_none()
    );
    is_for_everybody(&browser, "the page of a job that has failed");
    complains_of_nothing(&browser);
}
