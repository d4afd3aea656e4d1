//! A headless Chromium, over `WebDriver`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use herd_harness::{PATIENCE, eventually, send};
use serde_json::{Value, json};

/// How `WebDriver` marks an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Only this machine can be reached, by its address: whatever else the page asked for would fail and be logged.
const NO_NETWORK: &str = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";
const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    NO_NETWORK,
];

pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: PathBuf,
}

impl Browser {
    /// Starts one; `None` = this machine has none.
    pub(crate) fn start() -> Option<Self> {
        let Some(chromium) = chromium() else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "chromium and chromedriver are wanted in CI");
            eprintln!("skipped: no chromium or no chromedriver on this machine");
            return None;
        };
        let mut command = Command::new("chromedriver");
        let mut driver =
            command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("started successfully on port") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "chromedriver starts");
        }
        let port = line.trim().trim_end_matches('.').rsplit(' ').next().and_then(|port| port.parse().ok()).unwrap();
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let profile = std::env::temp_dir().join(format!("herd-browser-{}-{port}", std::process::id()));
        let mut browser = Self { driver, address, session: String::new(), profile };
        let mut flags: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
        flags.push(format!("--user-data-dir={}", browser.profile.display()));
        flags.push("--window-size=1440,1000".into());
        let options = json!({ "binary": chromium, "args": flags });
        let wanted = json!({ "goog:loggingPrefs": { "browser": "ALL" }, "goog:chromeOptions": options });
        let made = browser.call("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("/session/{}", made["sessionId"].as_str().unwrap());
        Some(browser)
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"))
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = send(self.address, request.as_bytes());
        let value = serde_json::from_slice::<Value>(&answer.body).map_err(|error| error.to_string())?["value"].take();
        if answer.status == 200 { Ok(value) } else { Err(value["message"].to_string()) }
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("{}{path}", self.session), body)
    }

    /// Goes to a page.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    #[track_caller]
    pub(crate) fn reload(&self) {
        self.command("POST", "/refresh", &json!({}));
    }

    #[track_caller]
    pub(crate) fn back(&self) {
        self.command("POST", "/back", &json!({}));
    }

    /// What the expression is in the page.
    #[track_caller]
    pub(crate) fn value(&self, expression: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": format!("return ({expression})"), "args": [] }))
    }

    #[track_caller]
    pub(crate) fn text(&self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the expression holds.
    #[track_caller]
    pub(crate) fn until(&self, expression: &str) {
        let script = json!({ "script": format!("return Boolean({expression})"), "args": [] });
        let path = format!("{}/execute/sync", self.session);
        let shown = || self.text("document.body.innerText.slice(0, 3000)");
        let deadline = std::time::Instant::now() + PATIENCE / 2;
        eventually(expression, || {
            assert!(std::time::Instant::now() < deadline, "not in time: {expression}; the page says:\n{}", shown());
            std::thread::park_timeout(std::time::Duration::from_millis(30));
            // A page that is just being left answers with an error.
            self.ask("POST", &path, &script) == Ok(Value::Bool(true))
        });
    }

    #[track_caller]
    fn element(&self, expression: &str) -> String {
        self.until(expression);
        self.value(expression)[ELEMENT].as_str().unwrap_or_else(|| panic!("no element: {expression}")).to_owned()
    }

    /// Clicks as a person does: what is hidden or covered cannot be.
    #[track_caller]
    pub(crate) fn click(&self, expression: &str) {
        let element = self.element(expression);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Clicks the button, link or label with these words within `scope`.
    #[track_caller]
    pub(crate) fn click_words(&self, scope: &str, words: &str) {
        let all = format!("[...document.querySelectorAll({scope:?} + ' :is(a, button, label)')]");
        self.click(&format!("{all}.find((one) => one.checkVisibility() && one.textContent.trim() === {words:?})"));
    }

    /// Types into an element, in place of what is there.
    #[track_caller]
    pub(crate) fn fill(&self, expression: &str, text: &str) {
        let element = self.element(expression);
        self.command("POST", &format!("/element/{element}/clear"), &json!({}));
        self.command("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses keys on the page.
    #[track_caller]
    pub(crate) fn press(&self, keys: &str) {
        let element = self.element("document.activeElement");
        self.command("POST", &format!("/element/{element}/value"), &json!({ "text": keys }));
    }

    /// Calls Chromium's own protocol.
    #[track_caller]
    pub(crate) fn chromium(&self, command: &str, params: &Value) -> Value {
        self.command("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// Drags the pointer from one point of the page to another.
    pub(crate) fn drag(&self, from: (f64, f64), to: (f64, f64)) {
        let middle = (from.0.midpoint(to.0), from.1.midpoint(to.1));
        let steps =
            [("mouseMoved", from, 0), ("mousePressed", from, 1), ("mouseMoved", middle, 1), ("mouseMoved", to, 1)];
        for (kind, (x, y), buttons) in steps.into_iter().chain([("mouseReleased", to, 0)]) {
            let button = if kind == "mouseMoved" && buttons == 0 { "none" } else { "left" };
            let event = json!({ "type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": 1 });
            self.chromium("Input.dispatchMouseEvent", &event);
        }
    }

    pub(crate) fn size(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
        self.chromium("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
    }

    pub(crate) fn prefer(&self, theme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.chromium("Emulation.setEmulatedMedia", &features);
    }

    /// Writes what is seen to `target/screenshots/{name}.png`.
    pub(crate) fn screenshot(&self, name: &str) {
        let shot = self.chromium("Page.captureScreenshot", &json!({ "format": "png" }));
        let folder = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), base64(shot["data"].as_str().unwrap())).unwrap();
    }

    /// No error in the console, no violation of the page's policy, and nothing asked of anybody but this server.
    ///
    /// An answer that a test provokes is an error to the browser too: those whose text has one of `but` are passed over.
    #[track_caller]
    pub(crate) fn is_clean(&self, but: &[&str]) {
        let log = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        let errors: Vec<_> = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").collect();
        let of = |entry: &&&Value| !but.iter().any(|but| entry["message"].as_str().unwrap_or_default().contains(but));
        let unexpected: Vec<_> = errors.iter().filter(of).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
        let foreign = self.value(
            "performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith(location.origin + '/'))",
        );
        assert_eq!(foreign, json!([]), "asked elsewhere");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // This ends Chromium; the driver alone would leave it.
        drop(self.ask("DELETE", &self.session, &Value::Null));
        drop(self.driver.kill());
        drop(self.driver.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let find = |name: &str| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    find("chromedriver")?;
    ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| find(name))
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => u32::from(c - b'A'),
        b'a'..=b'z' => u32::from(c - b'a') + 26,
        b'0'..=b'9' => u32::from(c - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.bytes().filter(|c| *c != b'=').map(digit).collect();
    let group = |four: &[u32]| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}
