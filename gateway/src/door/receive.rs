//! Bounds what is held of messages that are being read, over all connections.
//!
//! The transport collects a message before any code of ours sees it, and each stream may have one that waits for room
//! in its writer. So the length that stands before each message is looked for on its way: room for the whole of it is
//! taken before more than its first frame is read, and given back when the call asks for what follows it, which it
//! does when the message is handed over. Who waits for room holds none, so nobody waits for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use headworks_proto::MAX_MESSAGE_BYTES;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::PollSemaphore;
use tonic::Status;

use crate::call;

/// How long a message may take to arrive, for which room is held meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Whether a call ends because its message stopped on its way.
pub(super) fn is_too_slow(status: &Status) -> bool {
    let code = call::Error::Slow { patience: PATIENCE }.code();
    status.metadata().get(call::ERROR_CODE).is_some_and(|told| told == code)
}

/// Where the bytes stand among the messages.
#[derive(Debug, Default)]
struct Place {
    prefix: [u8; PREFIX],
    /// How much of the prefix is there.
    read: usize,
    /// What is left of the message.
    left: usize,
    /// What the message takes.
    weight: usize,
}

impl Place {
    fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(data.len());
                self.left -= passed;
                data = &data[passed..];
                continue;
            }
            let part = (PREFIX - self.read).min(data.len());
            self.prefix[self.read..self.read + part].copy_from_slice(&data[..part]);
            self.read += part;
            data = &data[part..];
            if self.read == PREFIX {
                let [compressed, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                // A compressed one may become as large as any; a larger one will be refused.
                let weight = if compressed == 0 { self.left } else { MAX_MESSAGE_BYTES };
                self.weight = weight.min(MAX_MESSAGE_BYTES);
                self.read = 0;
            }
        }
    }
}

/// A request's body whose messages take room while they are read.
#[derive(Debug)]
pub(super) struct Receiving<B> {
    inner: B,
    room: PollSemaphore,
    place: Place,
    held: Option<OwnedSemaphorePermit>,
    patience: Pin<Box<Sleep>>,
}

impl<B> Receiving<B> {
    pub(super) fn new(inner: B, room: Arc<Semaphore>) -> Self {
        let (room, place) = (PollSemaphore::new(room), Place::default());
        Self { inner, room, place, held: None, patience: Box::pin(sleep(PATIENCE)) }
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for Receiving<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.place.left == 0 {
            this.held = None;
        } else if this.held.as_ref().is_none_or(|held| held.num_permits() != this.place.weight) {
            // Also that of a message which came before this one in the same frame.
            this.held = None;
            // Closed never: it lives as long as the gateway.
            this.held = ready!(this.room.poll_acquire_many(cx, this.place.weight as u32));
            this.patience.as_mut().reset(Instant::now() + PATIENCE);
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.place.pass(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending if this.held.is_some() && this.patience.as_mut().poll(cx).is_ready() => {
                this.held = None;
                Poll::Ready(Some(Err(call::Error::Slow { patience: PATIENCE }.into())))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::StreamExt as _;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    type Frames = mpsc::Sender<Bytes>;

    fn body(room: &Arc<Semaphore>) -> (Frames, Receiving<impl Body<Data = Bytes, Error = Status> + Unpin>) {
        let (frames, sent) = mpsc::channel(8);
        let sent = ReceiverStream::new(sent).map(|data| Ok(Frame::data(data)));
        (frames, Receiving::new(StreamBody::new(sent), Arc::clone(room)))
    }

    fn message(flag: u8, length: u32, part: usize) -> Bytes {
        let mut bytes = vec![flag];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![b'x'; part]);
        bytes.into()
    }

    #[test]
    fn lengths_are_found_wherever_frames_are_cut() {
        let stream = [message(0, 7, 7), message(0, 0, 0), message(1, 3, 3), message(0, 90, 40)].concat();
        for cut in 1..stream.len() {
            let mut place = Place::default();
            stream.chunks(cut).for_each(|frame| place.pass(frame));
            assert_eq!((place.left, place.weight), (50, 90), "cut at {cut}");
        }
        let mut place = Place::default();
        place.pass(&message(1, 3, 2));
        assert_eq!(place.weight, MAX_MESSAGE_BYTES, "a compressed one may become as large as any");
    }

    #[tokio::test]
    async fn a_message_takes_room_until_the_next_is_asked_for_and_others_wait() {
        let room = Arc::new(Semaphore::new(100));
        let (first, mut one) = body(&room);
        let (second, mut two) = body(&room);
        first.send(message(0, 80, 10)).await.unwrap();
        second.send(message(0, 60, 10)).await.unwrap();
        one.frame().await.unwrap().unwrap();
        two.frame().await.unwrap().unwrap();
        assert_eq!(room.available_permits(), 100, "a first frame is there anyway");
        first.send(vec![b'x'; 30].into()).await.unwrap();
        one.frame().await.unwrap().unwrap();
        assert_eq!(room.available_permits(), 20);
        second.send(vec![b'x'; 50].into()).await.unwrap();
        assert!(two.frame().now_or_never().is_none(), "there is no room for the second");
        first.send(vec![b'x'; 40].into()).await.unwrap();
        one.frame().await.unwrap().unwrap();
        assert!(two.frame().now_or_never().is_none(), "the first is whole, and waits to be handed over");
        assert!(one.frame().now_or_never().is_none());
        two.frame().await.unwrap().unwrap();
        assert_eq!(room.available_permits(), 40);
        drop((one, two));
        assert_eq!(room.available_permits(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_is_not_waited_for() {
        let room = Arc::new(Semaphore::new(100));
        let (frames, mut body) = body(&room);
        frames.send(message(0, 80, 10)).await.unwrap();
        body.frame().await.unwrap().unwrap();
        let begun = Instant::now();
        let status = body.frame().await.unwrap().unwrap_err();
        assert_eq!((begun.elapsed(), room.available_permits()), (PATIENCE, 100));
        assert_eq!(status.metadata().get(call::ERROR_CODE).unwrap(), "request-too-slow");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_may_stay_idle() {
        let room = Arc::new(Semaphore::new(100));
        let (frames, mut body) = body(&room);
        frames.send(message(0, 10, 10)).await.unwrap();
        body.frame().await.unwrap().unwrap();
        assert!(tokio::time::timeout(10 * PATIENCE, body.frame()).await.is_err());
    }
}
