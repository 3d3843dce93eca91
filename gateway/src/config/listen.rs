//! Where is listened, and whose web pages may send.

use super::{Config, Error};

impl Config {
    /// Refuses to be reachable from elsewhere while nobody is authenticated, or credentials could be read.
    pub(super) fn check_listeners(&self) -> Result<(), Error> {
        for (setting, listen) in [("listen", Some(self.listen)), ("http_listen", self.http_listen)] {
            match listen {
                Some(listen) if !listen.ip().to_canonical().is_loopback() => {
                    if !self.auth.is_enabled() && !self.allow_beyond_loopback {
                        return Err(Error::Exposed { setting, listen });
                    }
                    if self.auth.is_enabled() && self.tls.is_none() && !self.allow_unencrypted {
                        return Err(Error::Unencrypted { setting, listen });
                    }
                }
                _ => {}
            }
        }
        if self.http_listen == Some(self.listen) && self.listen.port() != 0 {
            return Err(Error::SameAddress { listen: self.listen });
        }
        Ok(())
    }

    pub(super) fn check_origins(&self) -> Result<(), Error> {
        match self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => Err(Error::Origin { origin: origin.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether a browser could send this as `Origin`; or `*`.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b);
    text == "*" || host.is_some_and(|host| !host.is_empty() && host.bytes().all(allowed))
}
