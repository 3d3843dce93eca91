//! A caller over the time of a long call.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Auth, Credential, Known};
use crate::call;
use crate::principal::Principal;
use crate::shared::Shared;

/// Who calls, checked again when the credential expires or what it was checked against changes: a key that is
/// taken away stops the streams that it opened.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    credential: Credential,
    source: Option<std::net::IpAddr>,
    door: &'static str,
    auth: Arc<Auth>,
    known: Known,
}

impl Session {
    pub(crate) async fn open(
        shared: &Shared,
        credential: Credential,
        source: Option<std::net::IpAddr>,
        door: &'static str,
    ) -> Result<Self, call::Error> {
        let auth = shared.auth();
        let known = match auth.check(&credential).await {
            Ok(known) => known,
            Err(error) => {
                shared.audit.refused(source, door, &credential, &error);
                return Err(error.into());
            }
        };
        Ok(Self { credential, source, door, auth, known })
    }

    pub(crate) fn principal(&self) -> &Arc<Principal> {
        &self.known.principal
    }

    /// Checks again, if there is cause.
    pub(crate) async fn renew(self, shared: &Shared) -> Result<Self, call::Error> {
        let expired = self.known.expires.is_some_and(|at| at <= SystemTime::now());
        if !expired && Arc::ptr_eq(&self.auth, &shared.auth()) {
            return Ok(self);
        }
        Self::open(shared, self.credential, self.source, self.door).await
    }
}
