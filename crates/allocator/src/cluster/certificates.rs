//! The allocator's own certificate authority, the certificate it serves with, and the key of tickets.
//!
//! All replicas share them through one Secret, which outlives an uninstall: sidecars that were injected
//! before trust its authority (`design.md` 10.6). The authority lasts ten years; what is served with is
//! made anew long before it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// What the Secret holds. Has no `Debug`: half of it is keys.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    ca: String,
    ca_key: String,
    certificate: String,
    key: String,
    ticket_key: Vec<u8>,
    /// Seconds since the Unix epoch.
    renew_at: u64,
    /// What the certificate is for, comma-separated.
    names: String,
}

/// Why a Secret holds no certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("entry {0} is missing or no text")]
    Missing(&'static str),
    #[error("a certificate or key cannot be made or read")]
    Rcgen(#[from] rcgen::Error),
    #[error("a certificate or key is no PEM")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("a key cannot be used")]
    Tls(#[from] rustls::Error),
}

const CA_DAYS: i64 = 3_652;
const CERTIFICATE_DAYS: i64 = 90;
/// Clocks of clients may be behind.
const BACKDATED_DAYS: i64 = 1;
/// Two thirds of a certificate's life.
const RENEW_AFTER: Duration = Duration::from_secs(60 * 86_400);
const TICKET_KEY_BYTES: usize = 32;

const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const TICKET_KEY: &str = "ticket.key";
const RENEW_AT: &str = "renew-at";
const NAMES: &str = "names";

// === impl Certificates ===

impl Certificates {
    /// A new authority, and a certificate for `names`. `now` counts from the Unix epoch.
    pub(crate) fn make(
        names: &[String],
        now: Duration,
        ticket_key: [u8; TICKET_KEY_BYTES],
    ) -> Result<Certificates, Error> {
        let key = KeyPair::generate()?;
        let mut params = authority();
        (params.not_before, params.not_after) = (day(now, -BACKDATED_DAYS), day(now, CA_DAYS));
        let made = Certificates {
            ca: params.self_signed(&key)?.pem(),
            ca_key: key.serialize_pem(),
            certificate: String::new(),
            key: String::new(),
            ticket_key: ticket_key.to_vec(),
            renew_at: 0,
            names: String::new(),
        };
        made.certified(names, now)
    }

    /// The same with a new certificate, if the one there is ends soon or is for other names.
    pub(crate) fn renewed(
        &self,
        names: &[String],
        now: Duration,
    ) -> Result<Option<Certificates>, Error> {
        let is_good = now.as_secs() < self.renew_at && self.names == names.join(",");
        if is_good { Ok(None) } else { self.certified(names, now).map(Some) }
    }

    fn certified(&self, names: &[String], now: Duration) -> Result<Certificates, Error> {
        let issuer = Issuer::new(authority(), KeyPair::from_pem(&self.ca_key)?);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("weir-allocator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) =
            (day(now, -BACKDATED_DAYS), day(now, CERTIFICATE_DAYS));
        Ok(Certificates {
            certificate: params.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
            renew_at: (now + RENEW_AFTER).as_secs(),
            names: names.join(","),
            ..self.clone()
        })
    }

    /// The same, but shown and trusted is what another made, cert-manager for example: `tls.crt`,
    /// `tls.key` and `ca.crt` of a Secret.
    pub(crate) fn shown_from(&self, secret: &Secret) -> Result<Certificates, Error> {
        let text = |name| text_of(secret, name);
        let theirs = Certificates {
            ca: text(CA)?,
            certificate: text(CERTIFICATE)?,
            key: text(KEY)?,
            ..self.clone()
        };
        // Whatever cannot be served is refused here, while there still is something else to serve.
        theirs.certified_key()?;
        Ok(theirs)
    }

    /// What clients trust, as PEM.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    /// The key of tickets.
    pub(crate) fn ticket_key(&self) -> &[u8] {
        &self.ticket_key
    }

    /// What a TLS server shows.
    pub(crate) fn certified_key(&self) -> Result<Arc<CertifiedKey>, Error> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        Ok(Arc::new(CertifiedKey::new(chain, any_supported_type(&key)?)))
    }

    /// What a Secret holds.
    pub(crate) fn of(secret: &Secret) -> Result<Certificates, Error> {
        let text = |name| text_of(secret, name);
        let read = Certificates {
            ca: text(CA)?,
            ca_key: text(CA_KEY)?,
            certificate: text(CERTIFICATE)?,
            key: text(KEY)?,
            ticket_key: bytes_of(secret, TICKET_KEY)?,
            renew_at: text(RENEW_AT)?.parse().map_err(|_| Error::Missing(RENEW_AT))?,
            names: text(NAMES)?,
        };
        read.certified_key()?;
        Ok(read)
    }

    /// The Secret that holds them, over the version that was read.
    pub(crate) fn into_secret(self, name: &str, version: Option<String>) -> Secret {
        let entries = [
            (CA, self.ca.into_bytes()),
            (CA_KEY, self.ca_key.into_bytes()),
            (CERTIFICATE, self.certificate.into_bytes()),
            (KEY, self.key.into_bytes()),
            (TICKET_KEY, self.ticket_key),
            (RENEW_AT, self.renew_at.to_string().into_bytes()),
            (NAMES, self.names.into_bytes()),
        ];
        let data = entries.map(|(name, bytes)| (name.to_owned(), ByteString(bytes)));
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                resource_version: version,
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/part-of".to_owned(),
                    "weir".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from(data)),
            ..Secret::default()
        }
    }
}

fn bytes_of(secret: &Secret, name: &'static str) -> Result<Vec<u8>, Error> {
    let entry = secret.data.as_ref().and_then(|data| data.get(name));
    entry.map(|entry| entry.0.clone()).ok_or(Error::Missing(name))
}

fn text_of(secret: &Secret, name: &'static str) -> Result<String, Error> {
    String::from_utf8(bytes_of(secret, name)?).map_err(|_| Error::Missing(name))
}

/// Always the same, so that a certificate can be issued with nothing but the authority's key.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Weir CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// The beginning of a day, some days from `now`.
fn day(now: Duration, days: i64) -> time::OffsetDateTime {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX) + days * 86_400;
    time::OffsetDateTime::from_unix_timestamp(seconds - seconds.rem_euclid(86_400))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn names() -> Vec<String> {
        vec!["weir-allocator.weir-system.svc".to_owned()]
    }

    fn made() -> Certificates {
        Certificates::make(&names(), NOW, [7; TICKET_KEY_BYTES]).unwrap()
    }

    /// True if a client that trusts `ca` at that time takes what `certificates` shows for `name`.
    fn is_trusted(ca: &str, certificates: &Certificates, name: &str, now: Duration) -> bool {
        use rustls::client::WebPkiServerVerifier;
        use rustls::client::danger::ServerCertVerifier as _;
        use rustls::pki_types::{ServerName, UnixTime};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().unwrap();
        let shown = certificates.certified_key().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(now);
        verifier.verify_server_cert(&shown.cert[0], &[], &name, &[], now).is_ok()
    }

    #[test]
    fn clients_that_trust_the_authority_trust_every_certificate_of_it() {
        let first = made();
        let later = NOW + RENEW_AFTER;
        let second = first.renewed(&names(), later).unwrap().expect("it is time");
        let name = names()[0].clone();
        assert!(second.certificate != first.certificate && second.ca == first.ca);
        assert!(is_trusted(first.ca(), &first, &name, NOW));
        assert!(is_trusted(first.ca(), &second, &name, later));
        assert!(!is_trusted(first.ca(), &second, "other.weir-system.svc", later));
        assert!(!is_trusted(made().ca(), &second, &name, later));
        // The old one lasts until everybody has the new one.
        assert!(is_trusted(first.ca(), &first, &name, later + Duration::from_secs(20 * 86_400)));
        assert!(!is_trusted(first.ca(), &first, &name, NOW + Duration::from_secs(91 * 86_400)));
    }

    #[test]
    fn a_certificate_is_made_anew_in_time_or_for_other_names_only() {
        let first = made();
        assert!(first.renewed(&names(), NOW).unwrap().is_none());
        let moved = vec!["weir-allocator.elsewhere.svc".to_owned()];
        assert!(first.renewed(&moved, NOW).unwrap().is_some());
    }

    #[test]
    fn what_another_made_is_shown_and_trusted_under_our_own_ticket_key() {
        let (ours, theirs) = (made(), made());
        let secret = theirs.clone().into_secret("weir-certificate", None);
        let shown = ours.shown_from(&secret).unwrap();
        assert!(is_trusted(theirs.ca(), &shown, &names()[0], NOW));
        assert!(shown.ca() == theirs.ca() && shown.ticket_key() == ours.ticket_key());
        let mut broken = secret;
        broken.data.as_mut().unwrap().insert(KEY.to_owned(), ByteString(b"no key".to_vec()));
        assert!(ours.shown_from(&broken).is_err());
    }

    #[test]
    fn a_secret_keeps_all_of_it_and_a_damaged_one_is_named() {
        let first = made();
        let mut secret = first.clone().into_secret("weir-ca", Some("3".into()));
        assert!(Certificates::of(&secret).unwrap() == first);
        secret.data.as_mut().unwrap().remove(TICKET_KEY);
        let error = Certificates::of(&secret).err().unwrap();
        assert_eq!(error.to_string(), "entry ticket.key is missing or no text");
    }
}
