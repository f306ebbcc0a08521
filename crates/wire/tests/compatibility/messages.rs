//! Random messages of a contract, from nothing but the contract: whatever it has, they have.

use proptest::prelude::*;
use protox::prost_reflect::prost::Message as _;
use protox::prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value,
};

/// Lists and maps of messages in messages grow quickly.
const ENTRIES_MAX: usize = 3;

/// A message of this type that keeps the contract: every field is there, enums say something, and a
/// oneof says one thing. What is marked `optional` may be absent.
pub(crate) fn message(of: &MessageDescriptor) -> BoxedStrategy<DynamicMessage> {
    let mut parts: Vec<BoxedStrategy<Vec<(FieldDescriptor, Value)>>> = Vec::new();
    for field in of.fields().filter(|field| field.containing_oneof().is_none()) {
        parts.push(with(&field));
    }
    for oneof in of.oneofs() {
        let choices: Vec<_> = oneof.fields().map(|field| with(&field)).collect();
        let chosen = proptest::strategy::Union::new(choices);
        parts.push(if oneof.is_synthetic() {
            prop_oneof![chosen, Just(Vec::new())].boxed()
        } else {
            chosen.boxed()
        });
    }
    let of = of.clone();
    let whole = parts.prop_map(move |parts| {
        let mut message = DynamicMessage::new(of.clone());
        for (field, value) in parts.into_iter().flatten() {
            message.set_field(&field, value);
        }
        kept(message)
    });
    whole.boxed()
}

/// The one rule between fields: no end of a window, no length of it.
fn kept(mut message: DynamicMessage) -> DynamicMessage {
    if message.descriptor().name() == "Terms" && !message.has_field_by_name("window_end_nanos") {
        message.clear_field_by_name("window_length_nanos");
    }
    message
}

fn with(field: &FieldDescriptor) -> BoxedStrategy<Vec<(FieldDescriptor, Value)>> {
    let own = field.clone();
    value(field).prop_map(move |value| vec![(own.clone(), value)]).boxed()
}

fn value(field: &FieldDescriptor) -> BoxedStrategy<Value> {
    let kind = field.kind();
    if let (true, Some(entry)) = (field.is_map(), kind.as_message()) {
        let of = single(&entry.map_entry_value_field().kind());
        let entries =
            prop::collection::hash_map(name().prop_map(MapKey::String), of, 1..=ENTRIES_MAX);
        return entries.prop_map(Value::Map).boxed();
    }
    if field.is_list() {
        let entries = prop::collection::vec(single(&kind), 1..=ENTRIES_MAX);
        return entries.prop_map(|entries| Value::List(each_once(entries))).boxed();
    }
    single(&kind)
}

/// Lists name each dimension once; names differ anyway.
fn each_once(mut entries: Vec<Value>) -> Vec<Value> {
    let mut seen = Vec::new();
    entries.retain(|entry| {
        let rate = entry.as_message().filter(|it| it.descriptor().name() == "DimensionRate");
        let dimension = rate.and_then(|it| it.get_field_by_name("dimension")?.as_enum_number());
        let is_new = dimension.is_none_or(|it| !seen.contains(&it));
        seen.extend(dimension);
        is_new
    });
    entries
}

fn single(kind: &Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Uint32 => (1..=u32::MAX).prop_map(Value::U32).boxed(),
        Kind::Uint64 => (1..=u64::MAX).prop_map(Value::U64).boxed(),
        Kind::Int32 => any::<i32>().prop_map(Value::I32).boxed(),
        Kind::String => name().prop_map(Value::String).boxed(),
        Kind::Bytes => prop::collection::vec(any::<u8>(), 1..64)
            .prop_map(|bytes| Value::Bytes(bytes.into()))
            .boxed(),
        Kind::Enum(kind) => {
            let said: Vec<i32> =
                kind.values().map(|it| it.number()).filter(|it| *it != 0).collect();
            prop::sample::select(said).prop_map(Value::EnumNumber).boxed()
        }
        Kind::Message(of) => message(of).prop_map(Value::Message).boxed(),
        other => panic!("the contract has no {other:?} yet: say what a random one is"),
    }
}

/// Long enough that no two are the same, where names must differ.
fn name() -> impl Strategy<Value = String> {
    "[a-z]{12,20}"
}

/// The same whatever the order of its lists and maps: some are kept by name.
pub(crate) fn in_order(mut message: DynamicMessage) -> DynamicMessage {
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => *inner = in_order(inner.clone()),
            Value::List(entries) => {
                for entry in entries.iter_mut() {
                    if let Value::Message(inner) = entry {
                        *inner = in_order(inner.clone());
                    }
                }
                entries.sort_by_key(|entry| match entry {
                    Value::Message(inner) => sorted_bytes(inner),
                    other => format!("{other:?}").into_bytes(),
                });
            }
            _ => {}
        }
    }
    message
}

/// Maps have no order; only their values decide here.
fn sorted_bytes(message: &DynamicMessage) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    bytes.sort_unstable();
    bytes
}
