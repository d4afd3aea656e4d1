//! The dashboard as a person sees it: a real Chromium before a running fleet.
//!
//! Without Chromium and its driver these tests say that they are skipped; where `CI` is `true` that is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod browser;
mod care;
mod demo;
mod hostile;
mod lean;
mod live;
mod operate;
mod pictures;
mod samples;
mod service;
mod told;
mod url;

use browser::Browser;

/// The tabs: their paths, and their headings.
const TABS: [(&str, &str); 10] = [
    ("", "Fleet Overview"),
    ("/trends", "Trends"),
    ("/models", "Model Insights"),
    ("/apps", "Apps"),
    ("/benchmarks", "Benchmarks"),
    ("/health", "Health"),
    ("/recommendations", "Recommendations"),
    ("/settings", "Settings"),
    ("/traces", "Traces"),
    ("/explain", "Explain"),
];

/// Opens the dashboard at `rest` and waits for the heading of its tab.
fn open(browser: &Browser, base: &str, rest: &str) {
    browser.open(&format!("{base}/dashboard{rest}"));
    browser.until("document.querySelector('main h1') && !document.querySelector('main .skeleton')");
}
