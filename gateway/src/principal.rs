//! Who is at the door, and what they may do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use headworks_record::RecordRef;

use crate::auth;
use crate::auth::glob;
use crate::auth::quota::Quota;
use crate::config::{Config, PrincipalConfig};

/// The most principals that are kept apart at a time.
const MAX_PRINCIPALS: usize = 10_000;
/// The name of everybody, where nobody is authenticated.
const LOCAL: &str = "local";

/// Somebody who may write, and what they may do.
#[derive(Debug)]
pub struct Principal {
    /// The name, which takes part in identities that are derived from a client's own id.
    pub name: Arc<str>,
    /// Whether the principal may hand over creation contexts of its own. A forged one could make
    /// consumers take another's record for a repeat.
    pub may_mint: bool,
    grant: Arc<PrincipalConfig>,
    pub(crate) quota: Arc<Quota>,
}

impl Principal {
    fn new(name: &str, grant: Arc<PrincipalConfig>) -> Arc<Self> {
        let quota = Arc::new(Quota::new(&grant));
        Arc::new(Self { name: name.into(), may_mint: grant.may_mint, grant, quota })
    }

    /// Whether it may write to this stream.
    pub(crate) fn may_write(&self, stream: &str) -> bool {
        match &self.grant.streams {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| glob::matches(pattern, stream)),
        }
    }

    /// The first header whose value the principal may not send, with that value and those that it may.
    pub(crate) fn forbidden<'a>(
        &'a self,
        record: &RecordRef<'a>,
    ) -> Option<(&'a str, &'a str, &'a [String])> {
        self.grant.headers.iter().find_map(|(name, patterns)| {
            let value = record.header(name).unwrap_or_default();
            let allowed = patterns.iter().any(|pattern| glob::matches(pattern, value));
            (!allowed).then_some((name.as_str(), value, patterns.as_slice()))
        })
    }
}

/// The principals that the configuration knows, and those of them that were there lately.
#[derive(Debug, Default)]
pub(crate) struct Principals {
    /// The first that fits decides.
    grants: Vec<Arc<PrincipalConfig>>,
    seen: Mutex<HashMap<Arc<str>, Arc<Principal>>>,
}

impl Principals {
    pub(crate) fn new(config: &Config) -> Self {
        let mut grants: Vec<_> = config.principals.iter().cloned().map(Arc::new).collect();
        if grants.is_empty() && !config.auth.is_enabled() {
            grants.push(Arc::new(PrincipalConfig::unlimited(LOCAL)));
        }
        Self { grants, seen: Mutex::default() }
    }

    /// The same, with what was counted of principals whose grant has not changed.
    pub(crate) fn succeeding(self, former: &Self) -> Self {
        let former = former.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stays = |(name, principal): (&Arc<str>, &Arc<Principal>)| {
            let same = self.grant(name).is_some_and(|grant| **grant == *principal.grant);
            same.then(|| (Arc::clone(name), Arc::clone(principal)))
        };
        let seen = former.iter().filter_map(stays).collect();
        Self { seen: Mutex::new(seen), ..self }
    }

    fn grant(&self, name: &str) -> Option<&Arc<PrincipalConfig>> {
        self.grants.iter().find(|grant| glob::matches(&grant.name, name))
    }

    /// Everybody, where nobody is authenticated.
    pub(crate) fn local(&self) -> Result<Arc<Principal>, auth::Error> {
        self.named(LOCAL)
    }

    /// The principal of a name that was proven.
    pub(crate) fn named(&self, name: &str) -> Result<Arc<Principal>, auth::Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(principal) = seen.get(name) {
            return Ok(Arc::clone(principal));
        }
        let grant = self
            .grant(name)
            .ok_or_else(|| auth::Error::NotAllowed { principal: name.chars().take(256).collect() })?;
        if seen.len() >= MAX_PRINCIPALS {
            seen.retain(|_, principal| Arc::strong_count(principal) > 1 || !principal.quota.is_idle());
        }
        if seen.len() >= MAX_PRINCIPALS {
            return Err(auth::Error::TooMany { limit: MAX_PRINCIPALS });
        }
        let principal = Principal::new(name, Arc::clone(grant));
        seen.insert(Arc::clone(&principal.name), Arc::clone(&principal));
        Ok(principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principals(entries: &[PrincipalConfig]) -> Principals {
        let mut config = Config { principals: entries.to_vec(), ..Config::for_stream("inbound") };
        config.auth.key_file = Some("keys.toml".into());
        Principals::new(&config)
    }

    #[test]
    fn the_first_entry_that_fits_decides_and_no_entry_denies() {
        let narrow = PrincipalConfig { may_mint: false, ..PrincipalConfig::unlimited("shop") };
        let principals = principals(&[narrow, PrincipalConfig::unlimited("shop*")]);
        assert!(!principals.named("shop").unwrap().may_mint);
        assert!(principals.named("shop-2").unwrap().may_mint);
        assert!(Arc::ptr_eq(&principals.named("shop").unwrap(), &principals.named("shop").unwrap()));
        for nobody in ["", "local", "Shop", "a shop"] {
            assert_eq!(principals.named(nobody).unwrap_err().code(), "principal-not-allowed", "{nobody}");
        }
        assert!(Principals::new(&Config::for_stream("a")).local().unwrap().may_mint);
    }

    #[test]
    fn a_header_must_have_an_allowed_value() {
        let headers = [("type".to_owned(), vec!["order.*".to_owned(), "cart".to_owned()])].into();
        let principals = principals(&[PrincipalConfig { headers, ..PrincipalConfig::unlimited("p") }]);
        let principal = principals.named("p").unwrap();
        let record = |headers: &'static [(&'static str, &'static str)]| RecordRef {
            key: "k",
            explicit_hash_key: None,
            creation: None,
            headers,
            data: b"",
        };
        for allowed in [&[("type", "order.")], &[("type", "order.placed")], &[("type", "cart")]] {
            assert_eq!(principal.forbidden(&record(allowed)), None, "{allowed:?}");
        }
        for (forbidden, given) in [
            (&[("type", "orders")][..], "orders"),
            (&[("type", "cart ")], "cart "),
            (&[("type", "")], ""),
            (&[("kind", "cart")], ""),
            (&[], ""),
        ] {
            let (name, value, patterns) = principal.forbidden(&record(forbidden)).unwrap();
            assert_eq!((name, value, patterns.len()), ("type", given, 2));
        }
    }

    #[test]
    fn a_new_configuration_keeps_the_counts_of_grants_that_stay() {
        let limited =
            |records| PrincipalConfig { records_per_s: Some(records), ..PrincipalConfig::unlimited("p*") };
        let former = principals(&[limited(5)]);
        let one = former.named("p1").unwrap();
        let same = principals(&[limited(5)]).succeeding(&former);
        assert!(Arc::ptr_eq(&same.named("p1").unwrap(), &one));
        let other = principals(&[limited(6)]).succeeding(&former);
        assert!(!Arc::ptr_eq(&other.named("p1").unwrap(), &one));
    }

    #[test]
    fn those_who_left_make_room_for_others() {
        let principals = principals(&[PrincipalConfig::unlimited("*")]);
        let held: Vec<_> = (0..MAX_PRINCIPALS).map(|i| principals.named(&i.to_string()).unwrap()).collect();
        assert_eq!(principals.named("one more").unwrap_err().code(), "principals-too-many");
        drop(held);
        principals.named("one more").unwrap();
    }
}
