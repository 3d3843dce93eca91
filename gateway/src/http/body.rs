//! Reads bodies, within bounds of bytes and time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use headworks_proto::MAX_MESSAGE_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::Error;
use crate::config::Config;

/// How long a body may take to arrive: it holds room meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the rest of a body is read that was refused.
const COURTESY: Duration = Duration::from_secs(5);

// Permits are counted in 32 bits.
const _: () = assert!(MAX_MESSAGE_BYTES <= u32::MAX as usize);

/// Reads a body. The permit stands for its bytes.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    room: &Arc<Semaphore>,
    config: &Config,
) -> Result<(Bytes, OwnedSemaphorePermit), Error> {
    let told: Option<u64> =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(bytes) = told.filter(|bytes| *bytes > MAX_MESSAGE_BYTES as u64) {
        return Err(Error::too_large(format!("Content-Length {bytes}")));
    }
    let slow = |_elapsed| Error::Slow { seconds: PATIENCE.as_secs() };
    let mut chunks = body.into_data_stream();
    let full = Error::Full { limit: config.http_buffer_bytes };
    let collected = async {
        let mut held = Arc::clone(room).try_acquire_many_owned(0).map_err(|_full| full.clone())?;
        // What is told is only believed once it has come: room that is not used is nobody's.
        let mut body = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Error::Malformed {
                part: "the body".to_owned(),
                reason: format!("{error}; send it again, whole"),
            })?;
            if body.len() + chunk.len() > MAX_MESSAGE_BYTES {
                return Err(Error::too_large("chunked body"));
            }
            let more = Arc::clone(room).try_acquire_many_owned(chunk.len() as u32);
            held.merge(more.map_err(|_full| full.clone())?);
            body.extend_from_slice(&chunk);
        }
        Ok((body.freeze(), held))
    };
    let collected = timeout(PATIENCE, collected).await.map_err(slow)?;
    if matches!(collected, Err(Error::Full { .. })) {
        let _ = timeout(COURTESY, skip(chunks)).await;
    }
    collected
}

/// Reads the rest of a body that is refused, and keeps nothing of it: a client that is still writing
/// when the connection closes may never see the answer. One that waits for permission gets none.
pub(super) async fn discard(body: Body, headers: &HeaderMap) {
    if !headers.contains_key(header::EXPECT) {
        let _ = timeout(COURTESY, skip(body.into_data_stream())).await;
    }
}

async fn skip(mut chunks: axum::body::BodyDataStream) {
    let mut bytes = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        bytes += chunk.len();
        if bytes > MAX_MESSAGE_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(sizes: &[usize]) -> Body {
        let chunks: Vec<_> =
            sizes.iter().map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; *size]))).collect();
        Body::from_stream(futures_util::stream::iter(chunks))
    }

    async fn read_into(body: Body, room: usize) -> Result<(usize, usize), Error> {
        let room = Arc::new(Semaphore::new(room));
        let config = Config { http_buffer_bytes: 7, ..Config::default() };
        let (body, held) = read(body, &HeaderMap::new(), &room, &config).await?;
        assert_eq!(held.num_permits(), body.len());
        let left = room.available_permits();
        drop(held);
        assert_eq!(room.available_permits(), left + body.len());
        Ok((body.len(), left))
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read_whole() {
        assert_eq!(read_into(chunks(&[]), 10).await.unwrap(), (0, 10));
        assert_eq!(read_into(chunks(&[3, 4]), 10).await.unwrap(), (7, 3));
        let half = MAX_MESSAGE_BYTES / 2;
        assert_eq!(read_into(chunks(&[half, half]), MAX_MESSAGE_BYTES).await.unwrap().0, MAX_MESSAGE_BYTES);
        let error = read_into(chunks(&[half, half, 1]), 2 * MAX_MESSAGE_BYTES).await.unwrap_err();
        assert_eq!(error.code(), "message-too-large");
    }

    #[tokio::test]
    async fn a_body_takes_the_room_that_there_is() {
        assert_eq!(read_into(chunks(&[5, 5]), 10).await.unwrap(), (10, 0));
        let error = read_into(chunks(&[5, 6]), 10).await.unwrap_err();
        assert_eq!(error, Error::Full { limit: 7 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]);
        let stuck = Body::from_stream(first.chain(futures_util::stream::pending()));
        let begun = tokio::time::Instant::now();
        assert_eq!(read_into(stuck, 10).await.unwrap_err().code(), "request-too-slow");
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
