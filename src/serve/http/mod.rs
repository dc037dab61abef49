//! Requests that are answered once, one file for each kind of thing that is asked for.

mod answer;
pub mod health;
pub mod sources;
pub mod sql;
pub mod views;

use axum::{
    body::Body,
    http::{HeaderMap, Uri, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::types::limits;

use super::problem::Refusal;

pub async fn unknown_path(uri: Uri) -> Refusal {
    Refusal::not_found(format!("nothing is at {}", uri.path())).help("the API is described in docs/api.md")
}

pub async fn wrong_method() -> Refusal {
    Refusal::method_not_allowed("this address does not take that method")
}

/// The whole body, within its limits of size and time.
async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::too_large(format!(
            "a request body has at most {} bytes",
            limits::HTTP_BODY_BYTES_MAX
        ))
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| limits::HTTP_BODY_BYTES_DISCARDED_MAX < length) {
        return Err(too_large());
    }
    let read = async {
        let mut chunks = body.into_data_stream();
        let mut all = BytesMut::new();
        let mut read = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Refusal::body_unreadable())?;
            read += chunk.len();
            if limits::HTTP_BODY_BYTES_DISCARDED_MAX < read {
                break;
            }
            // What is a little too large is read to its end: a client that still sends would see a broken pipe, not the answer.
            if read <= limits::HTTP_BODY_BYTES_MAX {
                all.extend_from_slice(&chunk);
            }
        }
        let is_whole =
            read <= limits::HTTP_BODY_BYTES_MAX && announced.is_none_or(|length| length <= limits::HTTP_BODY_BYTES_MAX);
        if is_whole { Ok(all.freeze()) } else { Err(too_large()) }
    };
    tokio::time::timeout(limits::HTTP_BODY_READ_MAX, read)
        .await
        .unwrap_or_else(|_| Err(Refusal::body_timeout()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_announced_or_not() {
        let body =
            |bytes: usize| Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(vec![b'x'; bytes])]));
        let read = read_body(&HeaderMap::new(), body(limits::HTTP_BODY_BYTES_MAX)).await;
        assert_eq!(read.unwrap().len(), limits::HTTP_BODY_BYTES_MAX);
        let refused = read_body(&HeaderMap::new(), body(limits::HTTP_BODY_BYTES_MAX + 1)).await;
        assert_eq!(refused.unwrap_err().status(), 413);
        for (announced, sent, why) in [
            ("1048577", 1, "as announced, whatever comes"),
            ("9000000000", 0, "before a byte is read"),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, announced.parse().unwrap())]);
            assert_eq!(
                read_body(&headers, body(sent)).await.unwrap_err().status(),
                413,
                "{why}"
            );
        }
        let endless = Body::from_stream(futures::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(vec![b'x'; 1 << 16])
        }));
        assert_eq!(
            read_body(&HeaderMap::new(), endless).await.unwrap_err().status(),
            413,
            "and not for ever"
        );
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let chunks = [Ok(Bytes::from("SELECT")), Err(std::io::Error::other("gone"))];
        let refused = read_body(&HeaderMap::new(), Body::from_stream(futures::stream::iter(chunks))).await;
        assert_eq!(refused.unwrap_err().status(), 400);
    }
}
