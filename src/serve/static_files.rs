//! The dashboard, carried inside the binary: what `npm run build` left in `web/dist` when the binary was built.

use axum::{
    body::Body,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use rust_embed::Embed;

use super::problem::Refusal;

#[derive(Embed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Dashboard;

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Zeta</title>\
    <h1>Zeta runs, its dashboard is not built</h1>\
    <p>Run <code>npm ci &amp;&amp; npm run build</code> in <code>web/</code>, then build <code>zeta</code> again.</p>\
    <p>The data is there all the same: <a href=\"api/v1/views\">views</a>, <a href=\"api/v1/sources\">sources</a>, \
    <a href=\"readyz\">readiness</a>.</p></html>";

/// Answers what no route took.
pub async fn file(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return super::http::wrong_method().await.into_response();
    }
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    match Dashboard::get(path) {
        Some(file) => found(
            path,
            file.metadata.sha256_hash(),
            file.data.into_owned().into(),
            &headers,
        ),
        None if path == "index.html" => (
            StatusCode::NOT_FOUND,
            [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
            NOT_BUILT,
        )
            .into_response(),
        None => Refusal::not_found(format!("nothing is at /{path}")).into_response(),
    }
}

fn found(path: &str, hash: [u8; 32], content: Bytes, headers: &HeaderMap) -> Response {
    // Weak: the same file may travel compressed.
    let tag = format!(
        "W/\"{}\"",
        hash[..12].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    // Names under assets/ carry a hash of what is in them; the others keep their name when they change.
    let cache = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let is_known = known
        .flat_map(|value| value.split(','))
        .any(|known| known.trim() == tag || known.trim() == "*");
    let tags = [
        (header::ETAG, tag.as_str()),
        (header::CACHE_CONTROL, cache),
        (header::VARY, "accept-encoding"),
    ];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, tags).into_response(),
        false => {
            let content_type = mime_guess::from_path(path).first_or_octet_stream();
            let content_type = match content_type.type_() == mime_guess::mime::TEXT || path.ends_with(".js") {
                true => format!("{}; charset=utf-8", content_type.essence_str()),
                false => content_type.essence_str().to_owned(),
            };
            (tags, [(header::CONTENT_TYPE, content_type)], Body::from(content)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, headers: &HeaderMap) -> Response {
        found(path, [7; 32], Bytes::from("<!doctype html>"), headers)
    }

    #[test]
    fn only_names_with_a_hash_are_kept_for_ever() {
        for (path, is_for_ever, content_type) in [
            ("index.html", false, "text/html; charset=utf-8"),
            ("favicon.svg", false, "image/svg+xml"),
            ("assets/index-3f2a.js", true, "text/javascript; charset=utf-8"),
            ("assets/index-3f2a.css", true, "text/css; charset=utf-8"),
        ] {
            let response = of(path, &HeaderMap::new());
            let cache = response.headers()[header::CACHE_CONTROL].to_str().unwrap();
            assert_eq!(cache.contains("immutable"), is_for_ever, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
        }
    }

    #[test]
    fn a_browser_that_has_the_file_gets_no_body() {
        let tag = of("index.html", &HeaderMap::new()).headers()[header::ETAG].clone();
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, tag);
        assert_eq!(of("index.html", &headers).status(), StatusCode::NOT_MODIFIED);
        headers.insert(header::IF_NONE_MATCH, "W/\"other\"".parse().unwrap());
        assert_eq!(of("index.html", &headers).status(), StatusCode::OK);
    }
}
