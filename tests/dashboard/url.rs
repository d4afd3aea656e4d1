//! Where one is stands in the URL; keys lead there too.

use crate::browser::Browser;
use crate::demo::{Ask, Demo};
use crate::open;
use crate::service::Service;

#[test]
fn tabs_ranges_and_filters_are_linked_to() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    let service = Service::start(demo.edge, []);
    let heading = "document.querySelector('main h1')?.textContent";
    open(&browser, &service.base(), "/trends?range=24h&node=rtx&model=llama3.2%3A3b");
    browser.until(&format!("{heading} === 'Trends'"));
    assert_eq!(browser.text("document.querySelector('.segments [aria-pressed=true]').textContent"), "24h");
    assert_eq!(browser.text("document.querySelector('[aria-label=Node]').value"), "rtx");
    let asked = service.paths("/dashboard/api/trends");
    let whole =
        |path: &&String| ["range=24h", "node=rtx", "model=llama3.2%3A3b"].iter().all(|part| path.contains(part));
    assert!(asked.iter().any(|path| whole(&path)), "{asked:?}");
    browser.click_words(".segments", "7d");
    browser.until("location.search.includes('range=7d') && location.search.includes('node=rtx')");
    // The range goes along to other tabs, the filter does not.
    browser.click_words("nav", "Models");
    browser.until(&format!("{heading} === 'Model Insights' && location.search === '?range=7d'"));
    browser.back();
    browser.until(&format!("{heading} === 'Trends' && location.search.includes('node=rtx')"));
    browser.reload();
    browser.until(&format!("{heading} === 'Trends'"));
    assert_eq!(browser.text("document.querySelector('.segments [aria-pressed=true]').textContent"), "7d");
    // Unknown things are as good as none.
    open(&browser, &demo.base(), "/nope?range=1000y");
    browser.until(&format!("{heading} === 'Fleet Overview'"));
    // Keys.
    browser.press("ge");
    browser.until(&format!("{heading} === 'Explain'"));
    browser.press("gs");
    browser.until(&format!("{heading} === 'Settings'"));
    browser.press("/");
    browser.until("document.activeElement.type === 'search'");
    browser.press("weights");
    browser.until("location.search.includes('q=weights')");
    browser.until("[...document.querySelectorAll('[data-key]')].every((one) => one.dataset.key.includes('weights'))");
}

#[test]
fn explain_tells_where_a_request_would_go() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    open(&browser, &demo.base(), "/explain");
    browser.fill("document.querySelector('input[name=model]')", "llama3.2:3b");
    browser.fill("document.querySelector('input[name=num_ctx]')", "8192");
    browser.click_words("main", "Explain");
    browser.until("document.querySelector('.verdict')?.textContent.includes('rtx')");
    browser.until("document.querySelectorAll('table.signals tbody tr').length >= 8");
    assert_eq!(browser.value("location.search.includes('num_ctx=8192')"), true);
    browser.reload();
    browser.until("document.querySelector('.verdict')?.textContent.includes('rtx')");
    open(&browser, &demo.base(), "/explain?model=nobody-has-this");
    browser.until("document.querySelector('.verdict.bad')?.textContent.includes('No node')");
}

#[test]
fn a_stretch_marked_in_a_chart_is_the_range_of_the_page() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    assert_eq!(demo.ask(&Ask::of("llama3.2:3b", &[])).status, 200);
    let service = Service::start(demo.edge, []);
    open(&browser, &service.base(), "/trends");
    browser.until("document.querySelectorAll('.u-over').length === 6");
    let corner = browser
        .value("[document.querySelector('.u-over').getBoundingClientRect()].map((box) => [box.left, box.top])[0]");
    let at = |x: f64| (corner[0].as_f64().unwrap() + x, corner[1].as_f64().unwrap() + 20.0);
    browser.drag(at(100.0), at(220.0));
    browser.until("/from=\\d{13}&to=\\d{13}/.test(location.search)");
    let asked = || service.paths("/dashboard/api/trends");
    browser.until("document.querySelector('.range .marked')");
    assert!(asked().iter().any(|path| path.contains("from_unix_ms=") && path.contains("to_unix_ms=")), "{:?}", asked());
    browser.click("document.querySelector('.range .marked')");
    browser.until("!location.search.includes('from=') && !document.querySelector('.range .marked')");
}
