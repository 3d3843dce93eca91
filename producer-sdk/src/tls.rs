//! How an `https` gateway is recognized, and how it recognizes this producer.

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The settings of TLS. What is not set is the system's.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    pub(crate) ca_certificates: Option<Vec<u8>>,
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) server_name: Option<String>,
}

impl Tls {
    pub(crate) fn client(&self) -> ClientTlsConfig {
        let mut client = match &self.ca_certificates {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            client = client.identity(Identity::from_pem(certificate, key));
        }
        match &self.server_name {
            Some(name) => client.domain_name(name),
            None => client,
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("Tls")
            .field("own_authorities", &self.ca_certificates.is_some())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}
