//! A call of one batch and one answer, through whichever door it came.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use headworks_proto::{v1, wire};
use headworks_telemetry::Parent;

use crate::auth::quota::Weight;
use crate::call;
use crate::intake::Intake;
use crate::principal::Principal;
use crate::shared::Shared;

/// The name of the W3C trace context, in gRPC metadata and HTTP headers.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// The call's own trace context. As W3C asks, a malformed one counts as none.
pub(crate) fn caller(traceparent: Option<&[u8]>) -> Parent {
    traceparent
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|text| Parent::from_traceparent(text).ok())
        .unwrap_or(Parent::None)
}

/// What a call says beside its records.
#[derive(Debug)]
pub(crate) struct Unary<'a, T> {
    pub(crate) principal: &'a Principal,
    /// The call's own trace context.
    pub(crate) caller: Parent,
    /// The stream's name; empty for the default one.
    pub(crate) stream: &'a str,
    /// The time asked for.
    pub(crate) timeout: Option<T>,
}

impl<T: TryInto<Duration> + Debug + Copy> Unary<'_, T> {
    /// Checks the call and its records, hands them to the writer, and waits for one result per record.
    /// `held` is kept until the records are answered, even if the caller gives up before.
    pub(crate) async fn put(
        self,
        shared: &Arc<Shared>,
        records: wire::Records,
        held: impl Send + 'static,
    ) -> Result<Vec<v1::RecordResult>, call::Error> {
        shared.check_open()?;
        let inbound = shared.inbound(self.stream)?;
        let timeout = shared.timeout(self.timeout)?;
        let (principal, caller) = (self.principal, self.caller);
        shared.check_stream(principal, inbound)?;
        let quota = (!principal.quota.is_unlimited()).then(|| principal.quota.take(Weight::of(&records)));
        let permit = quota.transpose().map_err(|exceeded| {
            shared.limited.count(exceeded.name);
            call::Error::of_quota(principal, exceeded)
        })?;
        let intake = Intake { shared, inbound, principal, caller, timeout };
        let (load, pending) = intake.take(&records)?;
        drop(records);
        let ticket = inbound
            .try_put(load)
            .await
            .map_err(|refused| call::Error::from_refused(refused, &inbound.name))?;
        // A task of its own: the records stay on their way, and their spans are told, even if the
        // client gives up.
        let (of_task, inbound) = (Arc::clone(shared), Arc::clone(inbound));
        let answered = shared.calls.spawn(async move {
            let _held = (held, permit);
            pending.answer(&ticket.fates().await, &inbound, &of_task.tracer)
        });
        answered.await.map_err(|error| call::Error::Lost { reason: error.to_string() })
    }
}
