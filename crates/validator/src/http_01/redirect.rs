//! Which redirects an http-01 validation follows (RFC 8555 §8.3, BR 3.2.2.4.19): pure rules over URLs.

use std::collections::HashSet;

use url::{Host, Url};

use crate::failure::excerpt;

/// The rules, and what was visited so far.
#[derive(Debug)]
pub(super) struct Trail<'a> {
    ports: &'a [u16],
    limit: usize,
    visited: HashSet<String>,
}

/// Why a redirect is not followed. The texts go to the client's operator.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RefusedRedirect {
    #[error("the redirect (status {0}) has no Location")]
    NoLocation(u16),
    #[error("status {0} is not a redirect that may be followed: only 301, 302, 307 and 308 are")]
    Status(u16),
    #[error("more than {0} redirects")]
    TooMany(usize),
    #[error("the Location {0} is not a URL")]
    NotUrl(String),
    #[error("the Location is longer than {LOCATION_BYTES} bytes")]
    TooLong,
    #[error("the redirect to {0} is not followed: only http and https are")]
    Scheme(String),
    #[error("the redirect to {0} is not followed: it carries a user or a password")]
    UserInfo(String),
    #[error("the redirect to {0} is not followed: port {1} is not permitted")]
    Port(String, u16),
    #[error("the redirect to {0} closes a loop")]
    Loop(String),
}

/// As much as other CAs accept; a real target needs far less.
const LOCATION_BYTES: usize = 2000;

impl<'a> Trail<'a> {
    pub(super) fn new(start: &Url, ports: &'a [u16], limit: usize) -> Self {
        Self { ports, limit, visited: HashSet::from([start.as_str().to_owned()]) }
    }

    /// Where to go next from an answer with a 3xx status.
    pub(super) fn follow(
        &mut self,
        current: &Url,
        status: u16,
        location: Option<&[u8]>,
    ) -> Result<Url, RefusedRedirect> {
        if !matches!(status, 301 | 302 | 307 | 308) {
            return Err(RefusedRedirect::Status(status));
        }
        let location = location.ok_or(RefusedRedirect::NoLocation(status))?;
        if location.len() > LOCATION_BYTES {
            return Err(RefusedRedirect::TooLong);
        }
        let not_url = || RefusedRedirect::NotUrl(excerpt(location));
        let text = std::str::from_utf8(location).map_err(|_| not_url())?;
        let mut next = current.join(text).map_err(|_| not_url())?;
        next.set_fragment(None);
        if !matches!(next.scheme(), "http" | "https") {
            return Err(RefusedRedirect::Scheme(short(&next)));
        }
        if next.host().is_none_or(|host| matches!(host, Host::Domain(""))) {
            return Err(not_url());
        }
        if !next.username().is_empty() || next.password().is_some() {
            return Err(RefusedRedirect::UserInfo(short(&without_userinfo(next))));
        }
        let port = next.port_or_known_default().unwrap_or_default();
        if !self.ports.contains(&port) {
            return Err(RefusedRedirect::Port(short(&next), port));
        }
        if self.visited.len() > self.limit {
            return Err(RefusedRedirect::TooMany(self.limit));
        }
        if !self.visited.insert(next.as_str().to_owned()) {
            return Err(RefusedRedirect::Loop(short(&next)));
        }
        Ok(next)
    }
}

fn without_userinfo(mut url: Url) -> Url {
    // Both fail only for URLs without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// A URL as it stands in a detail. `Url` keeps itself ASCII.
pub(super) fn short(url: &Url) -> String {
    match url.as_str().get(..SHOWN_CHARS) {
        Some(start) if url.as_str().len() > SHOWN_CHARS => format!("{start}..."),
        _ => url.as_str().to_owned(),
    }
}

const SHOWN_CHARS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Url {
        Url::parse("http://example.org/.well-known/acme-challenge/token").unwrap()
    }

    fn follow(status: u16, location: &str) -> Result<String, RefusedRedirect> {
        let mut trail = Trail::new(&start(), &[80, 443], 10);
        trail.follow(&start(), status, Some(location.as_bytes())).map(|url| url.to_string())
    }

    #[test]
    fn four_statuses_are_followed() {
        for status in [301, 302, 307, 308] {
            assert_eq!(follow(status, "https://other.example/x?y#z").unwrap(), "https://other.example/x?y");
        }
        for status in [300, 303, 304, 305, 306, 309, 399] {
            assert_eq!(follow(status, "/x"), Err(RefusedRedirect::Status(status)));
        }
    }

    #[test]
    fn relative_targets_are_relative_to_where_they_stand() {
        assert_eq!(follow(302, "/x").unwrap(), "http://example.org/x");
        assert_eq!(follow(302, "x").unwrap(), "http://example.org/.well-known/acme-challenge/x");
        assert_eq!(follow(302, "//other.example/x").unwrap(), "http://other.example/x");
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        assert!(matches!(follow(302, "ftp://example.org/x"), Err(RefusedRedirect::Scheme(_))));
        assert!(matches!(follow(302, "file:///etc/passwd"), Err(RefusedRedirect::Scheme(_))));
        assert!(matches!(follow(302, "gopher://127.0.0.1:25/x"), Err(RefusedRedirect::Scheme(_))));
        assert!(matches!(follow(302, "http://example.org:8080/"), Err(RefusedRedirect::Port(_, 8080))));
        assert!(matches!(follow(302, "https://example.org:22/"), Err(RefusedRedirect::Port(_, 22))));
        assert!(matches!(follow(302, "http://user@example.org/"), Err(RefusedRedirect::UserInfo(_))));
        assert!(matches!(follow(302, "http://:secret@example.org/"), Err(RefusedRedirect::UserInfo(_))));
        assert!(matches!(follow(302, "http://"), Err(RefusedRedirect::NotUrl(_))));
        assert!(matches!(follow(302, "http://a b/"), Err(RefusedRedirect::NotUrl(_))));
        assert_eq!(follow(302, &format!("/{}", "x".repeat(2000))), Err(RefusedRedirect::TooLong));
    }

    #[test]
    fn a_password_is_not_repeated() {
        let text = follow(302, "http://user:hunter2@example.org/").unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn loops_and_long_chains_end() {
        let mut trail = Trail::new(&start(), &[80, 443], 3);
        assert_eq!(
            trail.follow(&start(), 302, Some(start().as_str().as_bytes())),
            Err(RefusedRedirect::Loop(start().to_string()))
        );
        for hop in 0..3 {
            trail.follow(&start(), 302, Some(format!("/{hop}").as_bytes())).unwrap();
        }
        assert_eq!(trail.follow(&start(), 302, Some(b"/4")), Err(RefusedRedirect::TooMany(3)));
    }

    #[test]
    fn a_redirect_needs_a_location() {
        let mut trail = Trail::new(&start(), &[80], 3);
        assert_eq!(trail.follow(&start(), 301, None), Err(RefusedRedirect::NoLocation(301)));
    }
}
