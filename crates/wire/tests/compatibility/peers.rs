//! What one version says, as the other hears it.
//!
//! The present side is the code that ships: bytes, `try_from`, and back. The previous side is its
//! contract alone.

use proptest::prelude::*;
use protox::prost_reflect::prost::Message as _;
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _,
};
use wire::{Error, FromAllocator, FromSidecar, ToAllocator, ToSidecar};

use super::messages::{in_order, message};
use super::schema::{present, previous};

/// Kinds of message that the previous version does not know. It must live without them.
const NEW: [&str; 1] = [
    // Sent where identities are checked, which that version did nowhere.
    "ticket",
];

fn envelope(pool: &DescriptorPool, name: &str) -> MessageDescriptor {
    pool.get_message_by_name(&format!("weir.v1.{name}")).expect("the contract has it")
}

/// What the present code makes of a sidecar's bytes, said again.
fn heard_from_sidecar(bytes: &[u8]) -> Result<(FromSidecar, Vec<u8>), Error> {
    let message = ToAllocator::decode(bytes).expect("it is a message");
    let heard = FromSidecar::try_from(message)?;
    let again = ToAllocator::from(heard.clone()).encode_to_vec();
    Ok((heard, again))
}

/// What the present code makes of an allocator's bytes, said again.
fn heard_from_allocator(bytes: &[u8]) -> Result<(FromAllocator, Vec<u8>), Error> {
    let message = ToSidecar::decode(bytes).expect("it is a message");
    let heard = FromAllocator::try_from(message)?;
    let again = ToSidecar::from(heard.clone()).encode_to_vec();
    Ok((heard, again))
}

fn decoded(of: &MessageDescriptor, bytes: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(of.clone(), bytes).expect("it is a message")
}

/// The kind of message in an envelope; none for one that this version does not know.
fn kind(message: &DynamicMessage) -> Option<String> {
    message.fields().map(|(field, _)| field.name().to_owned()).next()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_previous_sidecar_says_arrives_as_it_was_said(
        said in message(&envelope(&previous(), "ToAllocator")),
    ) {
        let (_, again) = heard_from_sidecar(&said.encode_to_vec()).expect("it is understood");
        prop_assert_eq!(in_order(decoded(&said.descriptor(), &again)), in_order(said));
    }

    #[test]
    fn what_a_previous_allocator_says_arrives_as_it_was_said(
        said in message(&envelope(&previous(), "ToSidecar")),
    ) {
        let (_, again) = heard_from_allocator(&said.encode_to_vec()).expect("it is understood");
        prop_assert_eq!(in_order(decoded(&said.descriptor(), &again)), in_order(said));
    }

    #[test]
    fn a_previous_allocator_hears_all_that_it_knows_of_what_is_said_now(
        said in message(&envelope(&present(), "ToAllocator")),
    ) {
        let (meant, bytes) = heard_from_sidecar(&said.encode_to_vec()).expect("it is understood");
        let there = decoded(&envelope(&previous(), "ToAllocator"), &bytes);
        match kind(&there) {
            Some(_) => prop_assert_eq!(heard_from_sidecar(&there.encode_to_vec())?.0, meant),
            None => prop_assert!(kind(&said).is_some_and(|it| NEW.contains(&it.as_str()))),
        }
    }

    #[test]
    fn a_previous_sidecar_hears_all_that_it_knows_of_what_is_said_now(
        said in message(&envelope(&present(), "ToSidecar")),
    ) {
        let (meant, bytes) = heard_from_allocator(&said.encode_to_vec()).expect("it is understood");
        let there = decoded(&envelope(&previous(), "ToSidecar"), &bytes);
        match kind(&there) {
            Some(_) => prop_assert_eq!(heard_from_allocator(&there.encode_to_vec())?.0, meant),
            None => prop_assert!(kind(&said).is_some_and(|it| NEW.contains(&it.as_str()))),
        }
    }
}
