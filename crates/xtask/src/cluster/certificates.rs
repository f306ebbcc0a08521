//! The cluster's own authority, and what it signs: who is who in a Kubernetes.

use std::fs;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::cluster::state::State;

/// The authority, for as long as certificates are made.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(super) pem: String,
}

/// A certificate and its key.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Who somebody is to the API server: a user and a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) user: &'static str,
    pub(super) group: &'static str,
}

/// May do everything.
pub(super) const ADMIN: Subject = Subject { user: "admin", group: "system:masters" };

/// The names by which the API server is reached, from the node, from pods and from outside.
const API_SERVER: [&str; 7] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "127.0.0.1",
    "10.96.0.1",
    "10.99.0.1",
];

/// Writes what the parts read from files, and returns the authority for the rest.
pub(super) fn write(state: &State) -> anyhow::Result<Authority> {
    let authority = Authority::new()?;
    let save = |name: &str, text: &str| {
        let file = state.path("pki").join(name);
        fs::write(&file, text).with_context(|| file.display().to_string())
    };
    save("ca.crt", &authority.pem)?;
    let accounts = KeyPair::generate()?;
    save("service-accounts.key", &accounts.serialize_pem())?;
    save("service-accounts.pub", &accounts.public_key_pem())?;
    for (name, pair) in [
        ("apiserver", authority.server("kube-apiserver", &API_SERVER)?),
        ("kubelet-server", authority.server("node1", &["node1", "10.99.0.1"])?),
        ("apiserver-kubelet", authority.client(ADMIN)?),
    ] {
        save(&format!("{name}.crt"), &pair.certificate)?;
        save(&format!("{name}.key"), &pair.key)?;
    }
    Ok(authority)
}

// === impl Authority ===

impl Authority {
    fn new() -> anyhow::Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "weir test cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// For a client of the API server.
    pub(super) fn client(&self, subject: Subject) -> anyhow::Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject.user);
        params.distinguished_name.push(DnType::OrganizationName, subject.group);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn server(&self, name: &str, names: &[&str]) -> anyhow::Result<Pair> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<Pair> {
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
