//! What a sidecar sends: its greeting, then the lease protocol.

use std::collections::BTreeMap;

use quota::message::{self, DrawId, Epoch, Version};
use quota::time::Time;

use crate::bounds::{self, STRING_MAX, required};
use crate::error::Error;
use crate::generated as proto;
use crate::generated::to_allocator::Message;

/// A message of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromSidecar {
    /// Who is there; first, and once.
    Hello(Hello),
    /// The lease protocol.
    Lease(message::ToAllocator),
    /// What only a later version says; it changes nothing.
    Unknown,
}

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version that the sidecar speaks.
    pub protocol_version: u32,
    /// The pod's uid; empty where there is no Kubernetes.
    pub pod_uid: String,
    /// Drawn at each start of the sidecar.
    pub boot_id: u64,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's labels, for an allocator that has no other source.
    pub labels: BTreeMap<String, String>,
    /// The highest epoch that the sidecar has ever seen; zero for none.
    pub highest_epoch_seen: Epoch,
    /// The sidecar's clock.
    pub mono: Time,
    /// The sidecar's process, if it runs on the allocator's machine.
    pub pid: Option<u32>,
    /// Proof of an identity that was checked before; empty without one.
    pub resumption_ticket: Vec<u8>,
}

// === impl FromSidecar ===

impl From<FromSidecar> for proto::ToAllocator {
    fn from(message: FromSidecar) -> proto::ToAllocator {
        let message = match message {
            FromSidecar::Hello(hello) => Message::Hello(hello.into()),
            FromSidecar::Lease(message) => message.into(),
            FromSidecar::Unknown => return proto::ToAllocator { message: None },
        };
        proto::ToAllocator { message: Some(message) }
    }
}

impl TryFrom<proto::ToAllocator> for FromSidecar {
    type Error = Error;

    fn try_from(message: proto::ToAllocator) -> Result<FromSidecar, Error> {
        use message::ToAllocator;
        let Some(message) = message.message else { return Ok(FromSidecar::Unknown) };
        let message = match message {
            Message::Hello(hello) => return Ok(FromSidecar::Hello(hello.try_into()?)),
            Message::Holdings(holdings) => ToAllocator::Holdings(holdings.try_into()?),
            Message::Report(report) => ToAllocator::Report(report.try_into()?),
            Message::Draw(draw) => ToAllocator::Draw(draw.try_into()?),
            Message::Cancel(cancel) => ToAllocator::Cancel(DrawId(cancel.id)),
            Message::Ack(ack) => ToAllocator::Ack(Epoch(ack.epoch), Version(ack.version)),
            Message::Bye(bye) => ToAllocator::Bye(required("bye.report", bye.report)?.try_into()?),
        };
        Ok(FromSidecar::Lease(message))
    }
}

impl From<message::ToAllocator> for Message {
    fn from(message: message::ToAllocator) -> Message {
        use message::ToAllocator;
        match message {
            ToAllocator::Holdings(holdings) => Message::Holdings(holdings.into()),
            ToAllocator::Report(report) => Message::Report(report.into()),
            ToAllocator::Draw(draw) => Message::Draw(draw.into()),
            ToAllocator::Cancel(id) => Message::Cancel(proto::Cancel { id: id.0 }),
            ToAllocator::Ack(epoch, version) => {
                Message::Ack(proto::Ack { epoch: epoch.0, version: version.0 })
            }
            ToAllocator::Bye(report) => Message::Bye(proto::Bye { report: Some(report.into()) }),
        }
    }
}

// === impl Hello ===

impl From<Hello> for proto::Hello {
    fn from(hello: Hello) -> proto::Hello {
        proto::Hello {
            protocol_version: hello.protocol_version,
            pod_uid: hello.pod_uid,
            boot_id: hello.boot_id,
            namespace: hello.namespace,
            pod: hello.pod,
            labels: hello.labels,
            highest_epoch_seen: hello.highest_epoch_seen.0,
            mono_nanos: hello.mono.as_nanos(),
            pid: hello.pid,
            resumption_ticket: hello.resumption_ticket,
        }
    }
}

impl TryFrom<proto::Hello> for Hello {
    type Error = Error;

    fn try_from(hello: proto::Hello) -> Result<Hello, Error> {
        Ok(Hello {
            protocol_version: hello.protocol_version,
            pod_uid: bounds::text("hello.pod_uid", hello.pod_uid, STRING_MAX)?,
            boot_id: hello.boot_id,
            namespace: bounds::filled("hello.namespace", hello.namespace, STRING_MAX)?,
            pod: bounds::filled("hello.pod", hello.pod, STRING_MAX)?,
            labels: bounds::labels("hello.labels", hello.labels)?,
            highest_epoch_seen: Epoch(hello.highest_epoch_seen),
            mono: Time::from_nanos(hello.mono_nanos),
            pid: hello.pid,
            resumption_ticket: bounds::ticket("hello.resumption_ticket", hello.resumption_ticket)?,
        })
    }
}
