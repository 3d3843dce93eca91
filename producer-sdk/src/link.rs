//! One gateway: the connection to it, and the records that are its to deliver.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use headworks_proto::v1::put_stream_request::{Batch, Message as Asked};
use headworks_proto::v1::{PutStreamRequest, PutStreamResponse};
use tokio::time::sleep;
use tonic::Status;
use tonic::transport::Endpoint;

use crate::backoff::Backoff;
use crate::builder::Config;
use crate::connect::ConnectError;
use crate::outbox::{Outbox, Settled};
use crate::session::{self, Failure, Session};

/// The state of things where nothing is wrong with the connection.
const CONNECTED: &str = "it is connected, and has not answered in time";

type Connecting = BoxFuture<'static, Result<Session, Failure>>;

/// What happened to a link.
#[derive(Debug)]
pub(crate) enum Event {
    /// The gateway said something, or nothing more.
    Told(Option<Result<PutStreamResponse, Status>>),
    /// An attempt to connect ended.
    Opened(Result<Session, Failure>),
    /// Records were settled that can never be sent.
    Settled,
}

/// One gateway of a producer's.
pub(crate) struct Link {
    config: Arc<Config>,
    /// Its address, as it was given.
    pub(crate) address: Arc<str>,
    endpoint: Endpoint,
    pub(crate) outbox: Outbox,
    session: Option<Session>,
    connecting: Option<Connecting>,
    backoff: Backoff,
    /// What went wrong last, for the records that run out of time.
    pub(crate) last: Failure,
    /// Whether records go here. A link that lost its connection keeps them for one attempt to come back.
    pub(crate) is_up: bool,
    /// Nothing is sent before the other links have settled what came before this place: they had the
    /// keys that are this link's now, and an order to keep.
    pub(crate) held_until: Option<u64>,
}

impl Link {
    pub(crate) fn new(config: Arc<Config>, address: &str) -> Result<Self, ConnectError> {
        Ok(Self {
            endpoint: session::endpoint(&config, address)?,
            address: address.into(),
            outbox: Outbox::default(),
            session: None,
            connecting: None,
            backoff: Backoff::new(config.longest_pause),
            last: Failure::passing("no attempt was finished"),
            is_up: false,
            held_until: None,
            config,
        })
    }

    /// Begins to connect, if there is no connection; after a pause, unless this is the first attempt
    /// since the last success.
    pub(crate) fn connect(&mut self, at_once: bool) {
        if self.session.is_some() || self.connecting.is_some() {
            return;
        }
        let pause = if at_once { Duration::ZERO } else { self.backoff.pause() };
        let (endpoint, config) = (self.endpoint.clone(), Arc::clone(&self.config));
        self.connecting = Some(
            async move {
                sleep(pause).await;
                Session::open(endpoint, config).await
            }
            .boxed(),
        );
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// The gateway takes records.
    pub(crate) fn opened(&mut self, session: Session) {
        self.session = Some(session);
        self.last = Failure::passing(CONNECTED);
        self.is_up = true;
    }

    /// The gateway does work: the next loss of the connection is a new one.
    pub(crate) fn answered(&mut self) {
        self.backoff.reset();
    }

    pub(crate) fn set_credit(&mut self, credit: headworks_proto::v1::put_stream_response::Credit) {
        if let Some(session) = &mut self.session {
            session.credit = credit;
        }
    }

    /// The connection is gone; what was not answered is sent again.
    pub(crate) fn disconnected(&mut self, why: Failure) {
        self.session = None;
        self.outbox.disconnected();
        self.last = why;
    }

    /// Sends what can be sent, and tells of what happened.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, settled: &mut Vec<Settled>) -> Poll<Event> {
        if let Some(connecting) = &mut self.connecting {
            let opened = ready!(connecting.poll_unpin(cx));
            self.connecting = None;
            return Poll::Ready(Event::Opened(opened));
        }
        let Some(session) = &mut self.session else { return Poll::Pending };
        while session.takes && self.held_until.is_none() && self.outbox.can_send(&session.credit) {
            match session.asks.poll_reserve(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {
                    let (records, bytes) = (self.config.batch_records, self.config.batch_bytes);
                    let batch = self.outbox.next_batch(&session.credit, records, bytes, settled);
                    let Some((number, records)) = batch else {
                        session.asks.abort_send();
                        break;
                    };
                    let message = Some(Asked::Batch(Batch { number, records }));
                    // The room was reserved.
                    let _ = session.asks.send_item(PutStreamRequest { message });
                }
                // The gateway takes no more, and its last answers may still be on their way: they end
                // the session, not this.
                Poll::Ready(Err(_closed)) => session.takes = false,
            }
        }
        if !settled.is_empty() {
            return Poll::Ready(Event::Settled);
        }
        session.tells.poll_next_unpin(cx).map(Event::Told)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address)
            .field("is_up", &self.is_up)
            .finish_non_exhaustive()
    }
}
