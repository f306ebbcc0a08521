//! The rules by which a contract may change, held against both versions of ours, and against
//! contracts that break them.

use protox::prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, ServiceDescriptor,
};

/// This version's contract.
pub(crate) fn present() -> DescriptorPool {
    pool("../../proto", "weir/v1/allocator.proto")
}

/// The previous version's.
pub(crate) fn previous() -> DescriptorPool {
    pool("tests/previous", "allocator.proto")
}

fn pool(folder: &str, file: &str) -> DescriptorPool {
    let files = protox::compile([file], [folder]).expect("the contract compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("its types are all there")
}

/// What of `old` is not in `new` as it was. What was removed must be reserved, so that its number
/// never comes back as something else.
fn breaks(old: &DescriptorPool, new: &DescriptorPool) -> Vec<String> {
    let mut found = Vec::new();
    for message in old.all_messages() {
        match new.get_message_by_name(message.full_name()) {
            None => found.push(format!("message {} is gone", message.full_name())),
            Some(now) => message_breaks(&message, &now, &mut found),
        }
    }
    for kind in old.all_enums() {
        match new.get_enum_by_name(kind.full_name()) {
            None => found.push(format!("enum {} is gone", kind.full_name())),
            Some(now) => enum_breaks(&kind, &now, &mut found),
        }
    }
    for service in old.services() {
        let now = new.get_service_by_name(service.full_name());
        let now = now.as_ref().map(methods).unwrap_or_default();
        let gone = methods(&service).into_iter().filter(|method| !now.contains(method));
        found.extend(gone.map(|method| format!("{method} is gone or another")));
    }
    found
}

fn message_breaks(old: &MessageDescriptor, new: &MessageDescriptor, found: &mut Vec<String>) {
    for field in old.fields() {
        let (name, number) = (field.full_name().to_owned(), field.number());
        match new.get_field(number) {
            Some(now) if shape(&now) == shape(&field) => {}
            Some(now) => found.push(format!("{name} was {}, is {}", shape(&field), shape(&now))),
            None if new.reserved_ranges().any(|range| range.contains(&number)) => {}
            None => found.push(format!("{name} is gone, and its number {number} is not reserved")),
        }
    }
    let still = |range: &std::ops::Range<u32>| new.reserved_ranges().any(|it| it == *range);
    let freed = old.reserved_ranges().filter(|range| !still(range));
    found.extend(freed.map(|it| format!("{}: {it:?} is reserved no more", old.full_name())));
}

fn enum_breaks(old: &EnumDescriptor, new: &EnumDescriptor, found: &mut Vec<String>) {
    for value in old.values() {
        let now = new.get_value(value.number());
        if now.as_ref().map(|it| it.name()) != Some(value.name()) {
            found.push(format!("{} = {} is gone or another", value.full_name(), value.number()));
        }
    }
}

/// All that the bytes and the meaning of a field depend on.
fn shape(field: &FieldDescriptor) -> String {
    let oneof = field.containing_oneof().map(|it| it.name().to_owned());
    let (name, kind, cardinality) = (field.name(), field.kind(), field.cardinality());
    format!("{name}: {kind:?} {cardinality:?} packed={} in {oneof:?}", field.is_packed())
}

fn methods(service: &ServiceDescriptor) -> Vec<String> {
    let methods = service.methods().map(|it| {
        let stream = |is: bool| if is { "stream " } else { "" };
        let (from, to) = (stream(it.is_client_streaming()), stream(it.is_server_streaming()));
        let (input, output) = (it.input(), it.output());
        let (input, output) = (input.full_name(), output.full_name());
        format!("rpc {}({from}{input}) returns ({to}{output})", it.full_name())
    });
    methods.collect()
}

#[test]
fn all_of_the_previous_contract_is_in_this_one_as_it_was() {
    let found = breaks(&previous(), &present());
    assert!(found.is_empty(), "an upgrade would break:\n{}", found.join("\n"));
}

#[test]
fn every_way_to_break_a_contract_is_found() {
    let contract = |text: &str| {
        let text = format!("syntax = \"proto3\"; package a; {text}");
        let file = protox::Compiler::with_file_resolver(InMemory(text))
            .open_file("a.proto")
            .expect("it compiles")
            .file_descriptor_set();
        DescriptorPool::from_file_descriptor_set(file).expect("its types are all there")
    };
    let old = "message A { uint32 x = 1; optional uint32 y = 2; oneof z { uint32 p = 3; uint32 q = 4; } reserved 9; }
        enum E { E_ZERO = 0; E_ONE = 1; } service S { rpc Do(stream A) returns (A); }";
    let cases = [
        ("reserved 9;", "reserved 9; uint32 later = 10;", None),
        ("uint32 x = 1;", "reserved 1;", None),
        ("uint32 x = 1;", "", Some("a.A.x is gone, and its number 1 is not reserved")),
        ("uint32 x = 1;", "uint32 w = 1;", Some("a.A.x was x: uint32")),
        ("uint32 x = 1;", "uint64 x = 1;", Some("is x: uint64")),
        ("uint32 x = 1;", "repeated uint32 x = 1;", Some("is x: uint32 Repeated")),
        ("uint32 x = 1;", "optional uint32 x = 1;", Some("in Some(\"_x\")")),
        (
            "optional uint32 y = 2;",
            "uint32 y = 2;",
            Some("is y: uint32 Optional packed=false in None"),
        ),
        (
            "uint32 q = 4; }",
            "} uint32 q = 4;",
            Some("a.A.q was q: uint32 Optional packed=false in Some(\"z\")"),
        ),
        ("reserved 9;", "", Some("a.A: 9..10 is reserved no more")),
        ("E_ONE = 1;", "", Some("a.E_ONE = 1 is gone or another")),
        ("E_ONE = 1;", "E_UNO = 1;", Some("a.E_ONE = 1 is gone or another")),
        ("enum E {", "enum F {", Some("enum a.E is gone")),
        ("stream A", "A", Some("rpc a.S.Do(stream a.A) returns (a.A) is gone or another")),
    ];
    for (from, to, expected) in cases {
        let found = breaks(&contract(old), &contract(&old.replacen(from, to, 1)));
        match expected {
            None => assert!(found.is_empty(), "{from} -> {to}: {found:?}"),
            Some(text) => {
                assert!(found.iter().any(|it| it.contains(text)), "{from} -> {to}: {found:?}")
            }
        }
    }
}

/// One file that is on no disk.
struct InMemory(String);

impl protox::file::FileResolver for InMemory {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        protox::file::File::from_source(name, &self.0)
    }
}
