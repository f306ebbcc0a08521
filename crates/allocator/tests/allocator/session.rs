//! What a sidecar may expect of its stream.

use std::time::Duration;

use quota::message::{DrawId, Epoch, Reason, Report, ToAllocator};
use quota::units::Rate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::{FromAllocator, FromSidecar, Hello, RefusedReason};

use crate::harness::{PATIENCE, POLICY, Process, RPD, RPM, Site, hello, mono, vector};

#[tokio::test]
async fn a_sidecar_gets_its_policy_then_a_lease_and_credit() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut sidecar, policy) = allocator.join(hello("chat-1", 1)).await;
    assert_eq!((&*policy.quota.name, policy.generation), ("chat", 1));

    let credit = sidecar.draw(vector(&[(RPM, 1), (RPD, 1)])).await.unwrap();
    assert_eq!((credit.id, credit.epoch), (DrawId(1), Epoch(1)));
    let lease = sidecar.lease().await;
    let rates: Vec<Rate> = lease.items.values().map(|terms| terms.rate).collect();
    assert!(rates.len() == 1 && rates[0] > Rate::ZERO, "{lease:?}");

    let state = allocator.until(|state| state["pods"]["shop/chat-1"]["quota"] == "shop/chat").await;
    assert_eq!(state["epoch"], 1);
    let metrics = allocator.get("/metrics").await;
    for line in [
        "weir_allocator_sessions 1\n",
        "weir_allocator_draws_total{outcome=\"granted\"} 1\n",
        "weir_allocator_draw_wait_seconds_count{class=\"default\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn a_sidecar_gets_keys_only_of_the_providers_that_its_quota_names() {
    let site = Site::new();
    let allocator = site.start().await;
    let (_sidecar, policy) = allocator.join(hello("chat-1", 1)).await;
    let keys: Vec<&str> = policy
        .providers
        .iter()
        .flat_map(|provider| &provider.keys)
        .map(|key| key.secret.expose())
        .collect();
    assert_eq!(keys, ["sk-openai"]);
    let shown = allocator.get("/state").await + &allocator.get("/config").await;
    assert!(!shown.contains("sk-"), "{shown}");
}

#[tokio::test]
async fn a_draw_of_a_class_that_the_quota_does_not_permit_is_denied_with_the_reason() {
    let site = Site::new();
    site.write(&POLICY.replace("metadata: {name: default}", "metadata: {name: other}"));
    let allocator = site.start().await;
    let (mut sidecar, _) = allocator.join(hello("chat-1", 1)).await;
    let denial = sidecar.draw(vector(&[(RPM, 1)])).await.unwrap_err();
    assert_eq!(denial.reason, Reason::NotPermitted);
    assert!(denial.explain.contains("shop/chat"), "{denial:?}");
    let metrics = allocator.get("/metrics").await;
    assert!(metrics.contains("outcome=\"not_permitted\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_pod_that_no_quota_matches_is_told_so_and_gets_its_policy_when_one_does() {
    let site = Site::new();
    let allocator = site.start().await;
    let mut stranger = hello("batch-1", 1);
    stranger.labels.insert("app".to_owned(), "batch".to_owned());
    let mut sidecar = allocator.connect(stranger).await;
    let Some(FromAllocator::NoQuota { generation: 1, explain }) = sidecar.next().await else {
        panic!("it has a quota");
    };
    assert!(explain.contains("namespace shop (chat)"), "{explain}");
    sidecar.welcome(None).await;
    let denial = sidecar.draw(vector(&[(RPM, 1)])).await.unwrap_err();
    assert_eq!(denial.reason, Reason::NotPermitted);

    site.write(&POLICY.replace("{app: chat}", "{app: batch}"));
    let policy = sidecar.policy().await;
    assert_eq!((&*policy.quota.name, policy.generation), ("chat", 2));
    sidecar.draw(vector(&[(RPM, 1)])).await.unwrap();
}

#[tokio::test]
async fn a_second_living_process_of_one_name_is_refused_and_told_which() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut first, _) = allocator.join(hello("chat-1", 1)).await;
    let mut second = allocator.connect(hello("chat-1", 2)).await;
    let (reason, explain) = second.refused().await;
    assert_eq!(reason, RefusedReason::Duplicate);
    assert!(explain.contains("shop/chat-1"), "{explain}");
    assert!(explain.contains(&format!("process {}", std::process::id())), "{explain}");
    first.draw(vector(&[(RPM, 1)])).await.unwrap();
    let metrics = allocator.get("/metrics").await;
    assert!(metrics.contains("refused_sessions_total{reason=\"duplicate\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_new_run_takes_the_place_of_one_whose_process_has_ended() {
    let site = Site::new();
    let allocator = site.start().await;
    let mut process = Process::start();
    let old = Hello { pid: Some(process.pid()), ..hello("chat-1", 1) };
    let (_old, _) = allocator.join(old).await;
    process.kill().await;
    let (mut new, _) = allocator.join(hello("chat-1", 2)).await;
    new.draw(vector(&[(RPM, 1)])).await.unwrap();
}

#[tokio::test]
async fn the_same_run_may_open_a_new_stream_and_the_old_one_ends() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut old, _) = allocator.join(hello("chat-1", 1)).await;
    let (mut new, _) = allocator.join(old.again(Epoch(1))).await;
    while old.next().await.is_some() {}
    new.draw(vector(&[(RPM, 1)])).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_process_frees_what_its_pod_held() {
    let site = Site::new();
    let allocator = site.start().await;
    let mut process = Process::start();
    let dying = Hello { pid: Some(process.pid()), ..hello("chat-1", 1) };
    let (mut dying, _) = allocator.join(dying).await;
    dying.lease().await;
    let leased =
        |state: &serde_json::Value| state["budgets"][RPM]["leased_per_second"].as_f64().unwrap();
    allocator.until(|state| leased(state) > 0.0).await;
    process.kill().await;
    let state = allocator.until(|state| state["pods"].get("shop/chat-1").is_none()).await;
    assert!(leased(&state).abs() < f64::EPSILON, "{state:#}");
    assert_eq!(site.record()["pods"].as_object().unwrap().len(), 0);
}

#[tokio::test]
async fn a_pod_that_says_goodbye_is_forgotten() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut sidecar, _) = allocator.join(hello("chat-1", 1)).await;
    sidecar.send(ToAllocator::Bye(Report { mono: mono(), ..Report::default() })).await;
    while sidecar.next().await.is_some() {}
    allocator.until(|state| state["pods"].get("shop/chat-1").is_none()).await;
}

#[tokio::test]
async fn a_message_that_breaks_the_contract_ends_its_own_session_only() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut good, _) = allocator.join(hello("good", 1)).await;

    let version = Hello { protocol_version: 99, ..hello("bad", 1) };
    let (reason, explain) = allocator.connect(version).await.refused().await;
    assert_eq!(reason, RefusedReason::ProtocolVersion);
    assert!(explain.contains("99"), "{explain}");

    let epoch = Hello { highest_epoch_seen: Epoch(u64::MAX), ..hello("bad", 1) };
    let long = Hello { pod: "x".repeat(257), ..hello("bad", 1) };
    for (hello, named) in [(epoch, "highest_epoch_seen"), (long, "hello.pod has 257 bytes")] {
        let (reason, explain) = allocator.connect(hello).await.refused().await;
        assert_eq!(reason, RefusedReason::BadMessage);
        assert!(explain.contains(named), "{explain}");
    }

    let mut twice = allocator.connect(hello("bad", 1)).await;
    twice.policy().await;
    twice.send_raw(FromSidecar::Hello(hello("bad", 1)).into()).await;
    assert_eq!(twice.refused().await.0, RefusedReason::BadMessage);

    good.draw(vector(&[(RPM, 1)])).await.unwrap();
}

#[tokio::test]
async fn what_only_a_later_sidecar_says_is_passed_over_unless_it_is_the_greeting() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut sidecar, _) = allocator.join(hello("chat-1", 1)).await;
    sidecar.send_raw(FromSidecar::Unknown.into()).await;
    sidecar.draw(vector(&[(RPM, 1)])).await.unwrap();

    let (later, messages) = tokio::sync::mpsc::channel(1);
    later.send(FromSidecar::Unknown.into()).await.unwrap();
    let mut client = wire::AllocatorClient::new(allocator.channel().await);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut inbound = client.session(messages).await.unwrap().into_inner();
    let message = tokio::time::timeout(PATIENCE, inbound.message()).await.unwrap().unwrap();
    let answer = message.unwrap().try_into();
    let is_refused =
        matches!(answer, Ok(FromAllocator::Refused { reason: RefusedReason::BadMessage, .. }));
    assert!(is_refused, "{answer:?}");
}

#[tokio::test]
async fn bytes_that_are_no_grpc_are_turned_away_and_harm_nobody() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut good, _) = allocator.join(hello("good", 1)).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let frames = [preface, vec![0xff; 4_096]].concat();
    for bytes in [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), vec![0; 4_096], frames] {
        let mut stream = TcpStream::connect(allocator.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        // It may be answered by an error frame or a reset; it must end.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    }
    good.draw(vector(&[(RPM, 1)])).await.unwrap();
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_refused() {
    let site = Site::new();
    let allocator = site.start().await;
    let messages = tokio_stream::iter([vec![0xff_u8; 64]]);
    let mut client = tonic::client::Grpc::new(allocator.channel().await);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/weir.v1.Allocator/Session");
    let answer = client.streaming(tonic::Request::new(messages), path, bytes_codec::Bytes).await;
    let mut inbound = answer.unwrap().into_inner();
    let message = tokio::time::timeout(PATIENCE, inbound.message()).await.unwrap().unwrap();
    let message = message.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(message.as_ref().is_some_and(|text| text.contains("bad message")), "{message:?}");
}

#[tokio::test]
async fn a_stream_that_says_no_hello_does_not_stay_open() {
    let site = Site::new();
    let allocator = site.start().await;
    let (silent, messages) = tokio::sync::mpsc::channel(1);
    let mut client = wire::AllocatorClient::new(allocator.channel().await);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut inbound = client.session(messages).await.unwrap().into_inner();
    let message = tokio::time::timeout(PATIENCE, inbound.message()).await.unwrap().unwrap();
    let Ok(FromAllocator::Refused { reason, .. }) = message.unwrap().try_into() else {
        panic!("it was not refused");
    };
    assert_eq!(reason, RefusedReason::BadMessage);
    assert!(inbound.message().await.unwrap().is_none());
    drop(silent);
}

#[tokio::test]
async fn an_allocator_that_is_told_to_end_tells_its_sidecars_and_frees_the_state() {
    let site = Site::new();
    let mut allocator = site.start().await;
    let (mut sidecar, _) = allocator.join(hello("chat-1", 1)).await;
    let (status, ()) = tokio::join!(allocator.terminate(), async {
        sidecar.find(|message| (message == FromAllocator::Drain).then_some(())).await;
        assert_eq!(sidecar.next().await, None);
    });
    assert!(status.success(), "{status}");
    let mut next = site.launch();
    next.logged("leading").await;
    assert!(next.stirs_within(Duration::from_secs(10)).await);
}

/// Messages as they are.
mod bytes_codec {
    use bytes::{Buf as _, BufMut as _};
    use tonic::Status;
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

    #[derive(Clone, Default)]
    pub(super) struct Bytes;

    impl Codec for Bytes {
        type Encode = Vec<u8>;
        type Decode = Vec<u8>;
        type Encoder = Bytes;
        type Decoder = Bytes;

        fn encoder(&mut self) -> Bytes {
            Bytes
        }

        fn decoder(&mut self) -> Bytes {
            Bytes
        }
    }

    impl Encoder for Bytes {
        type Item = Vec<u8>;
        type Error = Status;

        fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
            out.put_slice(&item);
            Ok(())
        }
    }

    impl Decoder for Bytes {
        type Item = Vec<u8>;
        type Error = Status;

        fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
            let mut bytes = vec![0; from.remaining()];
            from.copy_to_slice(&mut bytes);
            Ok(Some(bytes))
        }
    }
}
