//! Whose pages may act here: a browser lets any page open our WebSocket and post text to us, so we look where it comes from.

use axum::http::{HeaderMap, header};
use url::Url;

use super::problem::Refusal;

/// Passes requests without an origin (no browser), those of a page of the same host, and those of an origin in `allowed`.
pub fn check(headers: &HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("an unreadable origin");
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_allowed = allowed
        .iter()
        .any(|allowed| allowed.trim_end_matches('/').eq_ignore_ascii_case(origin));
    match is_allowed || host.is_some_and(|host| is_same_host(origin, host)) {
        true => Ok(()),
        false => Err(Refusal::foreign_origin(origin)),
    }
}

/// The scheme is not ours to know: a proxy in front may speak TLS.
fn is_same_host(origin: &str, host: &str) -> bool {
    let Ok(origin) = Url::parse(origin) else { return false };
    let Ok(host) = Url::parse(&format!("{}://{host}", origin.scheme())) else {
        return false;
    };
    origin.host().is_some()
        && origin.host() == host.host()
        && origin.port_or_known_default() == host.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_page_of_another_host_is_refused() {
        let allowed = ["https://charts.example".to_owned()];
        for (origin, host, expected, why) in [
            (None, Some("zeta:8088"), true, "curl sends none"),
            (Some("http://zeta:8088"), Some("zeta:8088"), true, "our own page"),
            (
                Some("https://zeta.example"),
                Some("zeta.example"),
                true,
                "our own page behind TLS",
            ),
            (
                Some("https://zeta.example"),
                Some("zeta.example:443"),
                true,
                "the port that goes without saying",
            ),
            (Some("http://[::1]:8088"), Some("[::1]:8088"), true, "by address"),
            (Some("http://ZETA:8088"), Some("zeta:8088"), true, "hosts have no case"),
            (
                Some("https://charts.example"),
                Some("zeta:8088"),
                true,
                "named at start",
            ),
            (
                Some("http://charts.example"),
                Some("zeta:8088"),
                false,
                "named with another scheme",
            ),
            (
                Some("http://zeta:3000"),
                Some("zeta:8088"),
                false,
                "another port is another page",
            ),
            (Some("http://evil.example"), Some("zeta:8088"), false, "elsewhere"),
            (
                Some("http://zeta:8088.evil.example"),
                Some("zeta:8088"),
                false,
                "only looks like us",
            ),
            (Some("null"), Some("zeta:8088"), false, "a page in a sandbox"),
            (Some("file://"), Some("zeta:8088"), false, "a page from a disk"),
            (Some("http://zeta:8088"), None, false, "we do not know our name"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            if let Some(host) = host {
                headers.insert(header::HOST, HeaderValue::from_static(host));
            }
            assert_eq!(check(&headers, &allowed).is_ok(), expected, "{why}");
        }
    }
}
