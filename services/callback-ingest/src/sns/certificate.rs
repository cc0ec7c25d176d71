//! The certificate that a message is signed with: is it SNS's, now, by a chain to a public root?
//!
//! The file at `SigningCertURL` holds the end-entity certificate alone, so the issuer between it and the root is fetched from where the
//! certificate says it lies. That place is only a hint: what comes from there counts if it completes a chain, and else not.

use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime, pem::PemObject as _};
use url::Url;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use x509_parser::{extensions::GeneralName, oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS, prelude::*};
use zeroize::Zeroizing;

/// Who may be asked for an issuer's certificate: Amazon Trust Services, and DigiCert, which serves AWS in China.
const ISSUER_DOMAINS: [&str; 2] = [".amazontrust.com", ".digicert.com"];
/// Most certificates read from one file.
const MOST_CERTIFICATES: usize = 8;

/// Why a certificate or a signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the signing certificate is not PEM of one to {MOST_CERTIFICATES} certificates")]
    Pem,
    #[error("the signing certificate is malformed")]
    Malformed(#[source] webpki::Error),
    #[error("the signing certificate has expired or is not yet valid")]
    Time,
    #[error("the signing certificate does not chain to a public root")]
    Chain(#[source] webpki::Error),
    #[error("the signing certificate is not issued to SNS in the topic's region")]
    Name,
    #[error("the signature is not of this message")]
    Signature,
}

/// A certificate and what may lie between it and a root. Not yet checked: that is done at every use, since time passes in caches.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    leaf: CertificateDer<'static>,
    issuers: Vec<CertificateDer<'static>>,
}

impl Chain {
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MOST_CERTIFICATES + 1).collect();
        let mut certificates = read.map_err(|_| CertificateError::Pem)?;
        if certificates.is_empty() || certificates.len() > MOST_CERTIFICATES {
            return Err(CertificateError::Pem);
        }
        let leaf = certificates.remove(0);
        Ok(Self { leaf, issuers: certificates })
    }

    pub(super) fn add_issuer(&mut self, der: Vec<u8>) {
        self.issuers.push(CertificateDer::from(der));
    }

    /// Where the issuer of the last certificate lies, by its own word (RFC 5280, 4.2.2.1), if that is a place that may be asked.
    pub(super) fn issuer_url(&self) -> Option<Url> {
        let last = self.issuers.last().unwrap_or(&self.leaf);
        let (_, parsed) = X509Certificate::from_der(last).ok()?;
        let access = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityInfoAccess(access) => Some(access),
            _ => None,
        })?;
        access.accessdescs.iter().find_map(|description| match &description.access_location {
            GeneralName::URI(uri) if description.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS => {
                allowed_issuer(uri)
            }
            _ => None,
        })
    }

    /// Whether only an issuer is missing.
    pub(super) fn is_incomplete(&self, roots: &[TrustAnchor<'_>], now: UnixTime) -> bool {
        matches!(self.verify_chain(roots, now), Err(CertificateError::Chain(webpki::Error::UnknownIssuer)))
    }

    /// Whether it leads to a root, now.
    pub(super) fn holds(&self, roots: &[TrustAnchor<'_>], now: UnixTime) -> bool {
        self.verify_chain(roots, now).is_ok()
    }

    fn verify_chain(&self, roots: &[TrustAnchor<'_>], now: UnixTime) -> Result<(), CertificateError> {
        let leaf = EndEntityCert::try_from(&self.leaf).map_err(CertificateError::Malformed)?;
        leaf.verify_for_usage(ALL_VERIFICATION_ALGS, roots, &self.issuers, now, KeyUsage::server_auth(), None, None)
            .map(|_| ())
            .map_err(|error| match error {
                webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => CertificateError::Time,
                other => CertificateError::Chain(other),
            })
    }

    /// Checks chain, time, use, name, and that `signature` (RSA PKCS #1 1.5 with SHA-256) is over `text`.
    pub(super) fn verify(
        &self,
        roots: &[TrustAnchor<'_>],
        now: UnixTime,
        names: &[String],
        text: &Zeroizing<String>,
        signature: &[u8],
    ) -> Result<(), CertificateError> {
        self.verify_chain(roots, now)?;
        let leaf = EndEntityCert::try_from(&self.leaf).map_err(CertificateError::Malformed)?;
        let is_for = |name: &String| {
            ServerName::try_from(name.as_str()).is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
        };
        if !names.iter().any(is_for) {
            return Err(CertificateError::Name);
        }
        leaf.verify_signature(webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256, text.as_bytes(), signature)
            .map_err(|_| CertificateError::Signature)
    }
}

/// Issuers are served over plain http, since https would need them first.
fn allowed_issuer(uri: &str) -> Option<Url> {
    let url = Url::parse(uri).ok()?;
    let host = url.host_str()?;
    let fine = matches!(url.scheme(), "http" | "https")
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && ISSUER_DOMAINS.iter().any(|domain| host.ends_with(domain));
    fine.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_issuers_may_lie() {
        assert!(allowed_issuer("http://crt.r2m01.amazontrust.com/r2m01.cer").is_some());
        assert!(allowed_issuer("http://cacerts.digicert.com/x.crt").is_some());
        for uri in [
            "http://169.254.169.254/x.cer",
            "http://evilamazontrust.com/x.cer",
            "http://crt.amazontrust.com.evil.example/x.cer",
            "http://user@crt.amazontrust.com/x.cer",
            "http://crt.amazontrust.com:8080/x.cer",
            "ldap://crt.amazontrust.com/x",
            "nonsense",
        ] {
            assert!(allowed_issuer(uri).is_none(), "{uri}");
        }
    }
}
