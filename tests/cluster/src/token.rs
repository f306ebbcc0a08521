//! Tokens of service accounts with a life of our own choosing, in a cluster whose signing key is ours:
//! the API server itself makes none that lasts less than ten minutes.

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

/// Signs as the API server does.
#[derive(Debug)]
pub struct Signer(EcdsaKeyPair);

/// When a token was made and when it ends, in seconds after the one that it is a copy of was made.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Made, and valid from then on.
    pub from: i64,
    /// The end.
    pub to: i64,
}

// === impl Signer ===

impl Signer {
    /// The one of this cluster; none where the cluster is not ours.
    pub fn of_cluster() -> Option<Signer> {
        let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG")?);
        let pem = fs::read_to_string(kubeconfig.with_file_name("pki/service-accounts.key")).ok()?;
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = BASE64_STANDARD.decode(text).expect("PEM is base64");
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &bytes, &SystemRandom::new());
        Some(Signer(key.expect("the key is of the kind that the cluster makes")))
    }

    /// The same token with another life.
    pub fn copy(&self, token: &str, life: Life) -> String {
        let mut parts = token.trim().split('.');
        let (header, claims) = (parts.next().expect("a header"), parts.next().expect("claims"));
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("it is base64");
        let mut claims: Value = serde_json::from_slice(&claims).expect("it is JSON");
        let made = claims["iat"].as_i64().expect("it says when it was made");
        for (name, seconds) in [("iat", life.from), ("nbf", life.from), ("exp", life.to)] {
            claims[name] = json!(made + seconds);
        }
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        let said = format!("{header}.{claims}");
        let signature = self.0.sign(&SystemRandom::new(), said.as_bytes());
        let signature = signature.expect("there is randomness");
        format!("{said}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}
