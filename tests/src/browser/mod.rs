//! A browser without a window, driven as a person would use it: headless Chromium behind chromedriver, by the W3C's WebDriver
//! protocol.
//!
//! ```text
//!   Browser ──HTTP and JSON, one request a connection──► chromedriver ──► Chromium
//! ```
//!
//! Everything is synchronous, as the tests are. A page's own errors are kept: [`Browser::complaints`].

mod driver;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fluvial_kafka_apache::workspace;
use serde_json::{Value, json};

use driver::Driver;

/// How long a page may take until it shows something.
const MOST: Duration = Duration::from_secs(60);
/// Between two looks at a page.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is installed of axe, once, into a folder of its own.
const AXE: &str = "4.14.1";
/// The rules that axe checks: those of WCAG to 2.2 AA, and its own good practices.
const RULES: &[&str] = &["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/// A running browser with one page. It ends with this.
pub struct Browser {
    driver: Driver,
}

impl Browser {
    /// Starts a browser with an empty profile.
    ///
    /// # Errors
    /// Chromium or chromedriver is missing, or does not start.
    pub fn start() -> Result<Self> {
        Ok(Self { driver: Driver::start()? })
    }

    /// Opens a page.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn open(&self, url: &str) -> Result<()> {
        self.driver.post("url", &json!({ "url": url })).map(drop)
    }

    /// The value of a script's `return`.
    ///
    /// # Errors
    /// The script throws.
    pub fn run(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.driver.post("execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// The text that is visible of the first element that matches, and `None` if there is none.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn text(&self, selector: &str) -> Result<Option<String>> {
        let text = self.run("return document.querySelector(arguments[0])?.innerText ?? null", &[selector.into()])?;
        Ok(text.as_str().map(|text| text.trim().to_owned()))
    }

    /// Clicks on the first element that matches, as a pointer does: what another element covers cannot be clicked on.
    ///
    /// # Errors
    /// There is none, or it cannot be clicked on.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.find(selector)?;
        self.driver.post(&format!("element/{element}/click"), &json!({})).map(drop)
    }

    /// Types into the first element that matches, over what is there.
    ///
    /// # Errors
    /// There is none, or it takes no text.
    pub fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.find(selector)?;
        self.driver.post(&format!("element/{element}/clear"), &json!({}))?;
        self.driver.post(&format!("element/{element}/value"), &json!({ "text": text })).map(drop)
    }

    /// Presses keys, one after the other, at what has the focus: `\u{E004}` is the tabulator, `\u{E007}` Enter.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn press(&self, keys: &str) -> Result<()> {
        let key = |key: char| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        let keys: Vec<_> = keys.chars().flat_map(key).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": keys });
        self.driver.post("actions", &json!({ "actions": [keyboard] })).map(drop)
    }

    /// The size of the part of the page that is visible, in CSS pixels.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.developer("Emulation.setDeviceMetricsOverride", &size)
    }

    /// Whether the user prefers dark pages.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn prefer_dark(&self, dark: bool) -> Result<()> {
        let scheme = json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        self.developer("Emulation.setEmulatedMedia", &json!({ "features": [scheme] }))
    }

    /// Minimises the browser's window, whose page is hidden then, or shows it again.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn hide(&self, hidden: bool) -> Result<()> {
        let window = self.ask_developer("Browser.getWindowForTarget", &json!({}))?;
        let state = if hidden { "minimized" } else { "normal" };
        let bounds = json!({ "windowId": window["windowId"], "bounds": { "windowState": state } });
        self.developer("Browser.setWindowBounds", &bounds)
    }

    /// Writes a picture of the whole page into the folder that `FLUVIAL_PICTURES` names, for people who look at them.
    ///
    /// # Errors
    /// The browser does not answer, or the folder is not there.
    pub fn picture(&self, name: &str) -> Result<()> {
        let Some(folder) = std::env::var_os("FLUVIAL_PICTURES") else { return Ok(()) };
        let whole = json!({ "captureBeyondViewport": true });
        let taken = self.ask_developer("Page.captureScreenshot", &whole)?;
        let picture = taken["data"].as_str().context("the browser takes no picture")?;
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        std::fs::write(PathBuf::from(folder).join(format!("{name}.png.base64")), picture)?;
        Ok(())
    }

    fn developer(&self, command: &str, parameters: &Value) -> Result<()> {
        self.ask_developer(command, parameters).map(drop)
    }

    fn ask_developer(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.driver.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    fn find(&self, selector: &str) -> Result<String> {
        let found = self.driver.post("element", &json!({ "using": "css selector", "value": selector }))?;
        // The name of the only member is a constant of the protocol.
        let element = found.as_object().and_then(|element| element.values().next()).and_then(Value::as_str);
        Ok(element.with_context(|| format!("no element: {found}"))?.to_owned())
    }

    /// What the page has complained about since this was asked last: errors of scripts, requests that failed, and violations of the
    /// content security policy.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let said = self.driver.post("se/log", &json!({ "type": "browser" }))?;
        let said = said.as_array().context("the browser's log is no list")?;
        let bad = said.iter().filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        Ok(bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// What axe finds on the page, with the elements; empty if nothing is wrong.
    ///
    /// # Errors
    /// axe cannot be installed, or does not run.
    pub fn accessibility(&self) -> Result<Vec<String>> {
        let axe = std::fs::read_to_string(axe()?.join("node_modules/axe-core/axe.min.js"))?;
        let script = format!(
            "{axe};const [rules, done] = arguments;axe.run({{runOnly: rules}}).then(\
             ({{violations}}) => done(violations.map(({{id, help, nodes}}) => `${{id}}: ${{help}}: ${{nodes.map((node) => node.html + \
             ' ' + node.failureSummary)}}`)), (error) => done([String(error)]))"
        );
        let found = self.driver.post("execute/async", &json!({ "script": script, "args": [RULES] }))?;
        let found = found.as_array().context("axe says nothing")?;
        Ok(found.iter().map(|violation| violation.as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Waits until this holds of the page.
    ///
    /// # Errors
    /// It does not within a minute; the error has what the page shows then.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !holds(self)? {
            if begun.elapsed() >= MOST {
                bail!("{what}; the page shows\n{}", self.text("body")?.unwrap_or_default());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// The folder that holds axe.
fn axe() -> Result<PathBuf> {
    workspace::made_once(&format!("axe-core-{AXE}"), |folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]);
        npm.arg("--prefix").arg(folder).arg(format!("axe-core@{AXE}"));
        let output = npm.output().context("run npm: apt-get install -y npm (the script tests/run does it)")?;
        ensure!(output.status.success(), "{npm:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
}
