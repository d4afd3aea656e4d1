//! Which web page sent a request, as far as its browser says.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName};

use crate::hosts::Hosts;

/// Browsers say here how a request's site relates to ours.
pub(crate) const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Browsers say here whether somebody follows a link, or a page's script or picture asks.
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Which web page sent a request. Programs that are not browsers send none of the headers that tell it; a browser sends
/// them whatever its pages want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page<'a> {
    /// None.
    None,
    /// One of this server's own, or the person before the browser.
    Own,
    /// One of another site has a link to here, which somebody followed.
    Linked,
    /// One of another site, with its origin where the browser tells it.
    Foreign(Option<&'a str>),
}

impl<'a> Page<'a> {
    /// Reads it from the headers of a request.
    #[must_use]
    pub fn of(headers: &'a HeaderMap, hosts: &Hosts) -> Self {
        let site = text(headers, &FETCH_SITE);
        let from_own_site = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
        if let Some(origin) = text(headers, &ORIGIN) {
            let own = text(headers, &HOST).filter(|host| hosts.has(host));
            let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            let same = name.zip(own).is_some_and(|(name, own)| name.eq_ignore_ascii_case(own));
            return if same && from_own_site { Self::Own } else { Self::Foreign(Some(origin)) };
        }
        match site {
            None => Self::None,
            Some(_) if from_own_site => Self::Own,
            Some(_) if text(headers, &FETCH_MODE) == Some("navigate") => Self::Linked,
            Some(_) => Self::Foreign(None),
        }
    }
}

/// A header's text; one that is not text, or stands there twice, is as good as a foreign one.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { "?" } else { first.to_str().unwrap_or("?") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(HeaderName, &str)], expected: Page<'_>) {
        let mut map = HeaderMap::new();
        map.insert(HOST, "localhost:11435".parse().unwrap());
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        assert_eq!(Page::of(&map, &Hosts::new(&[], [])), expected, "{headers:?}");
    }

    #[test]
    fn browsers_tell_which_page_asks() {
        check(&[], Page::None);
        check(&[(ORIGIN, "http://localhost:11435")], Page::Own);
        check(&[(ORIGIN, "http://LOCALHOST:11435"), (FETCH_SITE, "same-origin")], Page::Own);
        check(&[(FETCH_SITE, "same-origin")], Page::Own);
        check(&[(FETCH_SITE, "none"), (FETCH_MODE, "navigate")], Page::Own);
        check(&[(FETCH_SITE, "cross-site"), (FETCH_MODE, "navigate")], Page::Linked);
        for origin in ["null", "", "http://evil.example", "http://localhost:3000", "file://localhost:11435"] {
            check(&[(ORIGIN, origin)], Page::Foreign(Some(origin)));
        }
        for (site, mode) in [("cross-site", "no-cors"), ("same-site", "cors"), ("cross-site", "websocket"), ("?", "?")]
        {
            check(&[(FETCH_SITE, site), (FETCH_MODE, mode)], Page::Foreign(None));
        }
        let own = (ORIGIN, "http://localhost:11435");
        check(&[own.clone(), (FETCH_SITE, "cross-site")], Page::Foreign(Some("http://localhost:11435")));
        check(&[own, (ORIGIN, "http://evil.example")], Page::Foreign(Some("?")));
    }

    #[test]
    fn a_page_under_a_foreign_name_is_not_our_own() {
        let map = HeaderMap::from_iter([
            (HOST, "evil.example:11435".parse().unwrap()),
            (ORIGIN, "http://evil.example:11435".parse().unwrap()),
        ]);
        assert_eq!(Page::of(&map, &Hosts::new(&[], [])), Page::Foreign(Some("http://evil.example:11435")));
    }
}
