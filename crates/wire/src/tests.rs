use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use quota::budget::{Budget, BudgetId, Kind};
use quota::charge::Vector;
use quota::dimension::{Dimension, Protocol};
use quota::message::{
    Counters, Credit, Denial, DrawId, DrawRequest, Epoch, Held, Holdings, LeaseSet, Nonce, Reason,
    Report, ReportItem, Seen, Terms, ToAllocator as Up, ToPod, Version, WindowEnd,
};
use quota::policy::{
    Key, Limit, Mode, Name, OnLoss, PodPolicy, Provider, QueueLimits, Quota, Secret, Use,
};
use quota::time::Time;
use quota::units::{Amount, Rate};

use super::generated as proto;
use super::*;

fn name() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9./-]{0,40}".prop_map(Arc::from)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zäß漢 ]{0,40}"
}

fn budget() -> impl Strategy<Value = BudgetId> {
    (name(), 0..7usize).prop_map(|(limit, d)| BudgetId::new("openai", &limit, Dimension::ALL[d]))
}

fn by_budget<T: std::fmt::Debug>(
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = BTreeMap<BudgetId, T>> {
    btree_map(budget(), of, 0..5)
}

fn amount() -> impl Strategy<Value = Amount> {
    any::<u64>().prop_map(Amount::from_micros)
}

fn rate() -> impl Strategy<Value = Rate> {
    any::<u64>().prop_map(Rate::from_micros)
}

fn time() -> impl Strategy<Value = Time> {
    any::<u64>().prop_map(Time::from_nanos)
}

fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z/.]{1,20}", "[a-z0-9]{0,20}", 0..5)
}

fn hello() -> impl Strategy<Value = Hello> {
    let who = ("[a-z0-9-]{0,36}", any::<u64>(), "[a-z]{1,20}", "[a-z0-9-]{1,60}", labels());
    let rest = (any::<u32>(), any::<u64>(), time(), option::of(any::<u32>()), vec(0..255u8, 0..64));
    (who, rest).prop_map(|((pod_uid, boot_id, namespace, pod, labels), rest)| {
        let (protocol_version, epoch, mono, pid, resumption_ticket) = rest;
        Hello {
            protocol_version,
            pod_uid,
            boot_id,
            namespace,
            pod,
            labels,
            highest_epoch_seen: Epoch(epoch),
            mono,
            pid,
            resumption_ticket,
        }
    })
}

fn counters() -> impl Strategy<Value = Counters> {
    (amount(), amount(), amount(), amount(), amount(), amount(), amount()).prop_map(
        |(offered, leased, credited, returned, overdrawn, settled, unspent)| Counters {
            offered,
            leased,
            credited,
            returned,
            overdrawn,
            settled,
            unspent,
        },
    )
}

fn vector(least: usize) -> impl Strategy<Value = Vector> {
    btree_map(budget(), (1..=u64::MAX).prop_map(Amount::from_micros), least..5)
}

fn holdings() -> impl Strategy<Value = Holdings> {
    let held = (rate(), amount(), rate(), duration(), amount()).prop_map(
        |(rate, cap, floor, floor_left, in_use)| Held { rate, cap, floor, floor_left, in_use },
    );
    let maps = (by_budget(held), by_budget(counters()), vector(0));
    (any::<u64>(), time(), duration(), maps).prop_map(|(nonce, mono, ttl_left, maps)| {
        let (items, counters, debts) = maps;
        Holdings { nonce: Nonce(nonce), mono, ttl_left, items, counters, debts }
    })
}

fn report() -> impl Strategy<Value = Report> {
    let seen = (time(), time(), time(), amount(), amount()).prop_map(
        |(at, reset_lo, reset_hi, limit, remaining)| Seen {
            at,
            reset_lo,
            reset_hi,
            limit,
            remaining,
        },
    );
    let item = (counters(), amount(), option::of(seen))
        .prop_map(|(counters, large, seen)| ReportItem { counters, large, seen });
    (time(), by_budget(item), any::<u32>(), any::<u64>(), any::<u64>(), duration()).prop_map(
        |(mono, items, waiting, refused, provider_429, transit)| Report {
            mono,
            items,
            waiting,
            refused,
            provider_429,
            transit,
        },
    )
}

fn draw() -> impl Strategy<Value = DrawRequest> {
    let parent = option::of("[0-9a-f-]{55}".prop_map(Arc::from));
    (any::<u64>(), time(), vector(1), name(), duration(), duration(), parent).prop_map(
        |(id, mono, vector, class, max_wait, waited, traceparent)| DrawRequest {
            id: DrawId(id),
            mono,
            vector,
            class,
            max_wait,
            waited,
            traceparent,
        },
    )
}

fn from_sidecar() -> impl Strategy<Value = FromSidecar> {
    prop_oneof![
        hello().prop_map(FromSidecar::Hello),
        holdings().prop_map(|it| FromSidecar::Lease(Up::Holdings(it))),
        report().prop_map(|it| FromSidecar::Lease(Up::Report(it))),
        draw().prop_map(|it| FromSidecar::Lease(Up::Draw(it))),
        any::<u64>().prop_map(|id| FromSidecar::Lease(Up::Cancel(DrawId(id)))),
        any::<(u64, u64)>().prop_map(|(e, v)| FromSidecar::Lease(Up::Ack(Epoch(e), Version(v)))),
        report().prop_map(|it| FromSidecar::Lease(Up::Bye(it))),
    ]
}

fn lease_set() -> impl Strategy<Value = LeaseSet> {
    let window_end = (duration(), (1..=u64::MAX).prop_map(Duration::from_nanos))
        .prop_map(|(after, length)| WindowEnd { after, length });
    let window_end = option::of(window_end);
    let terms = (rate(), amount(), rate(), duration(), amount(), window_end).prop_map(
        |(rate, cap, floor, floor_ttl, fill, window_end)| Terms {
            rate,
            cap,
            floor,
            floor_ttl,
            fill,
            window_end,
        },
    );
    (any::<(u64, u64)>(), time(), duration(), by_budget(terms)).prop_map(
        |((epoch, version), echo, ttl, items)| LeaseSet {
            epoch: Epoch(epoch),
            version: Version(version),
            echo,
            ttl,
            items,
        },
    )
}

fn denial() -> impl Strategy<Value = Denial> {
    let reason = prop::sample::select(vec![
        Reason::Deadline,
        Reason::TooLarge,
        Reason::Exhausted,
        Reason::QueueFull,
        Reason::NotPermitted,
        Reason::AllocatorLost,
    ]);
    (any::<u64>(), reason, option::of(duration()), text()).prop_map(
        |(id, reason, retry_after, explain)| Denial {
            id: DrawId(id),
            reason,
            retry_after,
            explain,
        },
    )
}

fn to_pod() -> impl Strategy<Value = ToPod> {
    let credit =
        (any::<(u64, u64)>(), time(), duration()).prop_map(|((id, epoch), echo, spend_by)| {
            Credit { id: DrawId(id), epoch: Epoch(epoch), echo, spend_by }
        });
    prop_oneof![
        any::<(u64, u64)>().prop_map(|(e, n)| ToPod::Challenge(Epoch(e), Nonce(n))),
        any::<u64>().prop_map(|e| ToPod::Welcome(Epoch(e))),
        lease_set().prop_map(ToPod::Lease),
        credit.prop_map(ToPod::Credit),
        denial().prop_map(ToPod::Deny),
    ]
}

fn rates() -> impl Strategy<Value = BTreeMap<Dimension, Rate>> {
    btree_map(prop::sample::select(Dimension::ALL.to_vec()), rate(), 0..4)
}

fn quota() -> impl Strategy<Value = Quota> {
    let uses = (name(), option::of(name()), rates(), rates()).prop_map(
        |(provider, limit, guaranteed, ceiling)| Use { provider, limit, guaranteed, ceiling },
    );
    let who = (name(), name(), labels(), name(), vec(name(), 0..3));
    let loss = prop::sample::select(vec![OnLoss::Floor, OnLoss::Closed, OnLoss::Open]);
    let mode = prop::sample::select(vec![Mode::Off, Mode::Shadow, Mode::Enforce]);
    let queue = (duration(), any::<u32>())
        .prop_map(|(max_wait, max_requests)| QueueLimits { max_wait, max_requests });
    let rest = (any::<u32>(), vec(uses, 0..3), queue, option::of(any::<u64>()), loss, mode);
    (who, rest).prop_map(|((namespace, name, selector, class, permitted), rest)| {
        let (weight, uses, queue, per_request_max_tokens, on_allocator_loss, mode) = rest;
        Quota {
            namespace,
            name,
            selector,
            class,
            permitted,
            weight,
            uses,
            queue,
            per_request_max_tokens,
            on_allocator_loss,
            mode,
        }
    })
}

fn provider() -> impl Strategy<Value = (Name, Provider)> {
    let kind = prop_oneof![
        (rate(), amount()).prop_map(|(rate, burst)| Kind::Bucket { rate, burst }),
        (amount(), duration()).prop_map(|(limit, length)| Kind::Window { limit, length }),
        (amount(), duration()).prop_map(|(amount, period)| Kind::Stock { amount, period }),
        amount().prop_map(|count| Kind::Slots { count }),
    ];
    let dimension = prop::sample::select(Dimension::ALL.to_vec());
    let figure = (budget(), dimension, kind, any::<u32>(), duration()).prop_map(
        |(id, dimension, kind, floor_percent, floor_duration)| Budget {
            id,
            dimension,
            kind,
            floor_percent,
            floor_duration,
        },
    );
    let patterns = || vec("[a-z*-]{1,20}", 0..3);
    let limit = (name(), patterns(), vec(figure, 0..3)).prop_map(|(name, models, budgets)| Limit {
        name,
        models,
        budgets,
    });
    let key = (name(), "[!-~]{1,80}", any::<u32>(), patterns()).prop_map(
        |(name, secret, weight, models)| Key { name, secret: Secret::new(&secret), weight, models },
    );
    let protocol = prop::sample::select(vec![
        Protocol::OpenAi,
        Protocol::Anthropic,
        Protocol::OpenAiCompatible,
    ]);
    let rest = ("https://[a-z.]{1,40}", vec(key, 0..3), vec(limit, 0..3));
    (name(), protocol, rest).prop_map(|(name, protocol, (endpoint, keys, limits))| {
        (name.clone(), Provider { name, protocol, endpoint, keys, limits })
    })
}

fn pod_policy() -> impl Strategy<Value = PodPolicy> {
    let providers = vec(provider(), 0..3)
        .prop_map(|it| it.into_iter().collect::<BTreeMap<_, _>>().into_values().collect());
    let classes = btree_map(name(), any::<i32>(), 0..4);
    (any::<u64>(), quota(), providers, classes).prop_map(
        |(generation, quota, providers, classes)| PodPolicy {
            generation,
            quota,
            providers,
            classes,
        },
    )
}

fn from_allocator() -> impl Strategy<Value = FromAllocator> {
    let reason = prop::sample::select(vec![
        RefusedReason::ProtocolVersion,
        RefusedReason::Identity,
        RefusedReason::Duplicate,
        RefusedReason::BadMessage,
        RefusedReason::Busy,
    ]);
    prop_oneof![
        4 => to_pod().prop_map(FromAllocator::Lease),
        2 => pod_policy().prop_map(|policy| FromAllocator::Policy(Box::new(policy))),
        1 => (any::<u64>(), text())
            .prop_map(|(generation, explain)| FromAllocator::NoQuota { generation, explain }),
        1 => Just(FromAllocator::Drain),
        1 => "[a-z.:]{1,40}".prop_map(|address| FromAllocator::Redirect { address }),
        1 => (reason, text())
            .prop_map(|(reason, explain)| FromAllocator::Refused { reason, explain }),
        1 => prop::collection::vec(any::<u8>(), 0..=512).prop_map(FromAllocator::Ticket),
    ]
}

proptest! {
    #[test]
    fn what_a_sidecar_says_arrives_as_it_was_said(message in from_sidecar()) {
        let bytes = ToAllocator::from(message.clone()).encode_to_vec();
        let arrived = ToAllocator::decode(&*bytes).unwrap();
        prop_assert_eq!(FromSidecar::try_from(arrived), Ok(message));
    }

    #[test]
    fn what_the_allocator_says_arrives_as_it_was_said(message in from_allocator()) {
        let bytes = ToSidecar::from(message.clone()).encode_to_vec();
        let arrived = ToSidecar::decode(&*bytes).unwrap();
        prop_assert_eq!(FromAllocator::try_from(arrived), Ok(message));
    }

    #[test]
    fn a_damaged_message_is_an_error_or_another_message_but_no_panic(
        up in from_sidecar(),
        down in from_allocator(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let spoil = |mut bytes: Vec<u8>| {
            // An empty policy encodes to few bytes, but never to none: the oneof takes two.
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes
        };
        if let Ok(message) = ToAllocator::decode(&*spoil(ToAllocator::from(up).encode_to_vec())) {
            let _ = FromSidecar::try_from(message);
        }
        if let Ok(message) = ToSidecar::decode(&*spoil(ToSidecar::from(down).encode_to_vec())) {
            let _ = FromAllocator::try_from(message);
        }
    }
}

fn greeting() -> proto::Hello {
    proto::Hello { namespace: "shop".into(), pod: "chat-1".into(), ..proto::Hello::default() }
}

fn amounts(count: usize) -> Vec<proto::BudgetAmount> {
    let amount = |i| proto::BudgetAmount { budget: format!("openai/{i}/x"), amount_micros: 1 };
    (0..count).map(amount).collect()
}

fn up(message: proto::to_allocator::Message) -> Result<FromSidecar, Error> {
    ToAllocator { message: Some(message) }.try_into()
}

#[test]
fn a_bad_greeting_is_refused_by_the_name_of_its_field() {
    let long = || "x".repeat(257);
    let labels = |count| (0..count).map(|i| (format!("l{i}"), String::new())).collect();
    let greeting_with = |change: fn(&mut proto::Hello)| {
        let mut hello = greeting();
        change(&mut hello);
        hello
    };
    let cases = [
        (greeting_with(|hello| hello.pod.clear()), "hello.pod is missing"),
        (greeting_with(|hello| hello.namespace.clear()), "hello.namespace is missing"),
        (proto::Hello { pod: long(), ..greeting() }, "hello.pod has 257 bytes, more than 256"),
        (
            proto::Hello { labels: labels(65), ..greeting() },
            "hello.labels has 65 entries, more than 64",
        ),
        (
            proto::Hello { resumption_ticket: vec![0; 513], ..greeting() },
            "hello.resumption_ticket has 513 bytes, more than 512",
        ),
    ];
    for (hello, expected) in cases {
        let error = up(proto::to_allocator::Message::Hello(hello)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(up(proto::to_allocator::Message::Hello(greeting())).is_ok());
}

#[test]
fn a_bad_draw_is_refused_by_the_name_of_its_field() {
    let draw = |vector| proto::Draw { class: "batch".into(), vector, ..proto::Draw::default() };
    let twice = [amounts(1), amounts(1)].concat();
    let free = vec![proto::BudgetAmount { amount_micros: 0, ..amounts(1)[0].clone() }];
    let cases = [
        (draw(vec![]), "draw.vector is missing"),
        (draw(amounts(33)), "draw.vector has 33 entries, more than 32"),
        (draw(twice), "draw.vector names one thing twice"),
        (draw(free), "draw.vector.amount_micros is zero"),
        (proto::Draw { class: String::new(), ..draw(amounts(1)) }, "draw.class is missing"),
    ];
    for (draw, expected) in cases {
        let error = up(proto::to_allocator::Message::Draw(draw)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_kind_of_message_that_is_not_known_is_no_error_and_an_unknown_reason_is_one() {
    // Number 99, with something in it: what a later version may say.
    let later: &[u8] = &[0x9a, 0x06, 0x02, 0x08, 0x01];
    let (up, down) = (ToAllocator::decode(later).unwrap(), ToSidecar::decode(later).unwrap());
    assert_eq!(FromSidecar::try_from(up), Ok(FromSidecar::Unknown));
    assert_eq!(FromAllocator::try_from(down), Ok(FromAllocator::Unknown));
    let deny = proto::Deny { reason: 99, ..proto::Deny::default() };
    let deny = ToSidecar { message: Some(proto::to_sidecar::Message::Deny(deny)) };
    let unknown = Error::Unknown { field: "deny.reason", value: 99 };
    assert_eq!(FromAllocator::try_from(deny), Err(unknown));
}

#[test]
fn an_explanation_is_cut_to_its_bound_between_two_characters() {
    let explain = format!("x{}", "漢".repeat(400));
    let said = ToSidecar::from(FromAllocator::NoQuota { generation: 1, explain });
    let Ok(FromAllocator::NoQuota { explain, .. }) = said.try_into() else { panic!("refused") };
    assert_eq!(explain.len(), 1_024);
}

#[test]
fn a_key_shows_in_no_debug_output() {
    let key = Key {
        name: "primary".into(),
        secret: Secret::new("sk-very-secret"),
        weight: 1,
        models: Vec::new(),
    };
    let shown = format!("{:?}", proto::Key::from(key));
    assert!(shown.contains("primary") && !shown.contains("secret\""), "{shown}");
    assert!(!shown.contains("sk-very"), "{shown}");
}

#[test]
fn a_policy_that_a_sidecar_would_refuse_is_found_before_it_is_sent() {
    let with_selector = |labels: usize| {
        let selector = (0..labels).map(|i| (format!("l{i}"), String::new())).collect();
        let quota = Quota {
            namespace: "shop".into(),
            name: "chat".into(),
            selector,
            class: "default".into(),
            permitted: Vec::new(),
            weight: 1,
            uses: Vec::new(),
            queue: QueueLimits::default(),
            per_request_max_tokens: None,
            on_allocator_loss: OnLoss::Floor,
            mode: Mode::Enforce,
        };
        let (providers, classes) = (Vec::new(), BTreeMap::new());
        FromAllocator::Policy(Box::new(PodPolicy { generation: 1, quota, providers, classes }))
    };
    assert_eq!(with_selector(64).check(), Ok(()));
    let many = Error::TooMany { field: "quota.selector", entries: 65, max: 64 };
    assert_eq!(with_selector(65).check(), Err(many));
    let long = FromAllocator::Redirect { address: "x".repeat(MAX_MESSAGE_BYTES) };
    assert!(matches!(long.check(), Err(Error::TooLarge { .. })));
}
