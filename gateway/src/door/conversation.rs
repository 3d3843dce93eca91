//! One `PutStream`: batches in, taken in their order; answers out, in any order.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use headworks_proto::v1::PutStreamResponse;
use headworks_proto::v1::put_stream_request::Open;
use headworks_proto::v1::put_stream_response::{Credit, Message as Told, Results};
use headworks_proto::wire::{Asked, Batch, PutStreamRequest};
use headworks_telemetry::Parent;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};
use tracing::debug;

use crate::answer::Pending;
use crate::auth::Session;
use crate::auth::quota::{self, Permit};
use crate::call;
use crate::hand_over::{Refused, Ticket};
use crate::intake::Intake;
use crate::shared::{Inbound, Shared};
use crate::tally;

/// What an unanswered batch weighs.
#[derive(Debug, Clone, Copy)]
struct Weight {
    number: u64,
    records: u64,
    bytes: u64,
}

impl Weight {
    fn of(batch: &Batch) -> Self {
        let quota::Weight { records, bytes } = quota::Weight::of(&batch.records);
        Self { number: batch.number, records, bytes }
    }
}

/// What is unanswered.
#[derive(Debug, Default)]
struct Unanswered {
    numbers: HashSet<u64>,
    records: u64,
    bytes: u64,
}

impl Unanswered {
    fn add(&mut self, batch: Weight, credit: Credit) -> Result<(), call::Error> {
        let (records, bytes) = (self.records + batch.records, self.bytes + batch.bytes);
        if records > credit.records.into() || bytes > credit.bytes {
            return Err(call::Error::CreditExceeded {
                number: batch.number,
                records,
                bytes,
                credit_records: credit.records,
                credit_bytes: credit.bytes,
            });
        }
        if !self.numbers.insert(batch.number) {
            return Err(call::Error::BatchNumber { number: batch.number });
        }
        (self.records, self.bytes) = (records, bytes);
        Ok(())
    }

    fn remove(&mut self, batch: Weight) {
        self.numbers.remove(&batch.number);
        self.records -= batch.records;
        self.bytes -= batch.bytes;
    }
}

type Answers = mpsc::Sender<Result<PutStreamResponse, Status>>;
type Answered = BoxFuture<'static, (Weight, Results)>;
type HandedOver = BoxFuture<'static, (Weight, Pending, Option<Permit>, Result<Ticket, Refused>)>;

/// How a conversation ends.
enum End {
    /// The client sends no more; what is open is answered.
    HalfClosed,
    /// The call fails, after what is open is answered.
    Failed(call::Error),
    /// Nobody listens any more.
    Gone,
}

pub(super) struct Conversation {
    shared: Arc<Shared>,
    session: Session,
    caller: Parent,
    requests: Streaming<PutStreamRequest>,
    answers: Answers,
    counted: bool,
    /// The client reads compact results.
    compact: bool,
}

impl Conversation {
    pub(super) fn new(
        shared: Arc<Shared>,
        session: Session,
        caller: Parent,
        requests: Streaming<PutStreamRequest>,
        answers: Answers,
    ) -> Self {
        Self { shared, session, caller, requests, answers, counted: false, compact: false }
    }

    pub(super) async fn run(mut self) {
        let draining = self.shared.draining.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = draining.cancelled() => Err(End::Failed(call::Error::Draining)),
        };
        let end = match opened {
            Ok((inbound, timeout)) => self.converse(&inbound, timeout).await,
            Err(end) => end,
        };
        self.count(&end);
        if let End::Failed(error) = end {
            debug!(code = error.code(), "a PutStream ends: {error}");
            // Nobody may be left to read it.
            let _ = self.answers.send(Err(error.into())).await;
        }
    }

    /// Counts the call, once.
    fn count(&mut self, end: &End) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        self.shared.ended.put_stream.count(match end {
            End::HalfClosed => tally::OK,
            End::Failed(error) => error.code(),
            End::Gone => tally::CANCELLED,
        });
    }

    /// Reads the first message and grants the credit.
    async fn open(&mut self) -> Result<(Arc<Inbound>, Duration), End> {
        let opened = match next(&mut self.requests).await? {
            None => return Err(End::HalfClosed),
            Some(Asked::Open(Open { stream, timeout, compact_results })) => {
                self.compact = compact_results;
                self.shared
                    .inbound(&stream)
                    .and_then(|inbound| {
                        self.shared.check_stream(self.session.principal(), inbound)?;
                        Ok(inbound)
                    })
                    .and_then(|inbound| Ok((Arc::clone(inbound), self.shared.timeout(timeout)?)))
                    .map_err(End::Failed)?
            }
            Some(Asked::Batch(_)) => return Err(End::Failed(call::Error::NotOpened)),
        };
        let told = Told::Credit(self.credit());
        self.answers.send(Ok(message(told))).await.map_err(|_gone| End::Gone)?;
        Ok(opened)
    }

    fn credit(&self) -> Credit {
        Credit { records: self.shared.config.credit_records, bytes: self.shared.config.credit_bytes }
    }

    async fn converse(&mut self, inbound: &Arc<Inbound>, timeout: Duration) -> End {
        let draining = self.shared.draining.clone();
        let mut unanswered = Unanswered::default();
        let mut open: FuturesUnordered<Answered> = FuturesUnordered::new();
        // At most one batch waits for room, and while it does nothing more is read: so batches are
        // handed over in their order, and a full gateway holds its clients back.
        let mut waiting: Option<HandedOver> = None;
        let mut end: Option<End> = None;
        loop {
            // At once: what is open may take its time.
            if let Some(failed @ End::Failed(_)) = &end {
                self.count(failed);
            }
            if waiting.is_none()
                && open.is_empty()
                && let Some(end) = end
            {
                return end;
            }
            tokio::select! {
                Some((weight, results)) = open.next(), if !open.is_empty() => {
                    unanswered.remove(weight);
                    let told = Told::Results(results);
                    if self.answers.send(Ok(message(told))).await.is_err() {
                        end = Some(End::Gone);
                    }
                }
                Some((weight, pending, permit, ticket)) = OptionFuture::from(waiting.as_mut()), if waiting.is_some() => {
                    waiting = None;
                    match ticket {
                        Ok(ticket) => open.push(self.answer(weight, pending, permit, ticket, inbound)),
                        Err(refused) => end = Some(End::Failed(call::Error::from_refused(refused, &inbound.name))),
                    }
                }
                asked = next(&mut self.requests), if waiting.is_none() && end.is_none() => {
                    match self.renew().await.map_err(End::Failed).and_then(|()| self.asked(asked, inbound, timeout, &mut unanswered)) {
                        Ok(handed_over) => waiting = Some(handed_over),
                        Err(over) => end = Some(over),
                    }
                }
                () = draining.cancelled(), if end.is_none() => end = Some(End::Failed(call::Error::Draining)),
                // Half-closing leaves the answers' way open; only a client that is gone closes it.
                () = self.answers.closed(), if !matches!(end, Some(End::Gone)) => {
                    end = Some(End::Gone);
                    // What is not handed over was never taken, and nobody can be told of it.
                    waiting = None;
                }
            }
        }
    }

    /// Whoever may not write any more is not read from any more.
    async fn renew(&mut self) -> Result<(), call::Error> {
        self.session = self.session.clone().renew(&self.shared).await?;
        Ok(())
    }

    fn asked(
        &self,
        asked: Result<Option<Asked>, End>,
        inbound: &Arc<Inbound>,
        timeout: Duration,
        unanswered: &mut Unanswered,
    ) -> Result<HandedOver, End> {
        let batch = match asked? {
            None => return Err(End::HalfClosed),
            Some(Asked::Open(_)) => return Err(End::Failed(call::Error::OpenedTwice)),
            Some(Asked::Batch(batch)) => batch,
        };
        let weight = Weight::of(&batch);
        let intake = Intake {
            shared: &self.shared,
            inbound,
            principal: self.session.principal(),
            caller: self.caller,
            timeout,
        };
        let (load, pending) = unanswered
            .add(weight, self.credit())
            .and_then(|()| intake.take(&batch.records))
            .map_err(End::Failed)?;
        let (shared, inbound) = (Arc::clone(&self.shared), Arc::clone(inbound));
        let quota = Arc::clone(&self.session.principal().quota);
        Ok(async move {
            let permit = match quota.is_unlimited() {
                true => None,
                false => {
                    let weight = quota::Weight { records: weight.records, bytes: weight.bytes };
                    Some(quota.wait(weight, |exceeded| shared.limited.count(exceeded.name)).await)
                }
            };
            let ticket = inbound.put(load).await;
            (weight, pending, permit, ticket)
        }
        .boxed())
    }

    fn answer(
        &self,
        weight: Weight,
        pending: Pending,
        permit: Option<Permit>,
        ticket: Ticket,
        inbound: &Arc<Inbound>,
    ) -> Answered {
        let (shared, inbound) = (Arc::clone(&self.shared), Arc::clone(inbound));
        let compact = self.compact;
        async move {
            let _permit = permit;
            let (number, fates) = (weight.number, ticket.fates().await);
            let results = if compact {
                let compact = pending.answer_compact(&fates, &inbound, &shared.tracer);
                Results { number, results: Vec::new(), compact: Some(compact) }
            } else {
                Results { number, results: pending.answer(&fates, &inbound, &shared.tracer), compact: None }
            };
            (weight, results)
        }
        .boxed()
    }
}

fn message(told: Told) -> PutStreamResponse {
    PutStreamResponse { message: Some(told) }
}

/// The next message; `None` when the client half-closed.
async fn next(requests: &mut Streaming<PutStreamRequest>) -> Result<Option<Asked>, End> {
    match requests.message().await {
        Ok(None) => Ok(None),
        Ok(Some(PutStreamRequest { message: Some(asked) })) => Ok(Some(asked)),
        Ok(Some(PutStreamRequest { message: None })) => Err(End::Failed(call::Error::EmptyMessage)),
        Err(status) if super::limit::is_too_large(&status) => {
            Err(End::Failed(call::Error::MessageTooLarge { detail: status.message().to_owned() }))
        }
        Err(status) if super::receive::is_too_slow(&status) => {
            Err(End::Failed(call::Error::Slow { patience: super::receive::PATIENCE }))
        }
        Err(status) if status.code() == Code::Internal => {
            Err(End::Failed(call::Error::Unreadable { detail: status.message().to_owned() }))
        }
        Err(status) => {
            debug!("the client of a PutStream is gone: {status}");
            Err(End::Gone)
        }
    }
}
