//! Who a client's certificate names. The transport has checked it against the configured roots before.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::CertificateName;

/// The names in a certificate that may stand for a principal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    subject_cn: Option<String>,
    san_dns: Option<String>,
    san_uri: Option<String>,
}

impl Names {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self::default();
        };
        let subject_cn = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .map(str::to_owned);
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
        let mut names = Self { subject_cn, ..Self::default() };
        for name in alternatives {
            match name {
                GeneralName::DNSName(name) => names.san_dns.get_or_insert_with(|| (*name).to_owned()),
                GeneralName::URI(name) => names.san_uri.get_or_insert_with(|| (*name).to_owned()),
                _ => continue,
            };
        }
        names
    }

    pub(crate) fn get(&self, which: CertificateName) -> Option<&str> {
        match which {
            CertificateName::SubjectCn => self.subject_cn.as_deref(),
            CertificateName::SanDns => self.san_dns.as_deref(),
            CertificateName::SanUri => self.san_uri.as_deref(),
        }
        .filter(|name| !name.is_empty() && name.len() <= 256)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_are_read_from_a_certificate() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "shop");
        params.subject_alt_names = vec![
            SanType::URI("spiffe://example/shop".try_into().unwrap()),
            SanType::DnsName("shop.example".try_into().unwrap()),
            SanType::DnsName("other.example".try_into().unwrap()),
        ];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = Names::of(certificate.der());
        assert_eq!(names.get(CertificateName::SubjectCn), Some("shop"));
        assert_eq!(names.get(CertificateName::SanDns), Some("shop.example"));
        assert_eq!(names.get(CertificateName::SanUri), Some("spiffe://example/shop"));
        assert_eq!(Names::of(&CertificateDer::from(vec![1, 2, 3])), Names::default());
    }
}
