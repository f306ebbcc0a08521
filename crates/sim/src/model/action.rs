//! One step of the model, in a form that can be written to a file and read back.

use std::fmt;
use std::str::FromStr;

/// One step. Leaders are 0 (the first) and 1 (the successor), pods are 0, 1 and 2 (`a`, `b`, `c`).
/// Messages are named by what they are about, so that a list of steps still means something when a
/// step before them had another outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A second passes; pod a's clock advances by so many.
    Tick { advance: u8 },
    /// The leader hears a Hello of a run of a pod, perhaps one long over, and asks what it holds.
    Challenge { leader: u8, pod: u8, boot: u8 },
    /// The pod gets a challenge and answers.
    Answer { leader: u8, pod: u8, nonce: u8 },
    /// The answer arrives.
    Register { leader: u8, pod: u8, nonce: u8, clock: u8 },
    /// The leader grants a lease.
    Grant { leader: u8, pod: u8, rate: u8, floor: u8 },
    /// The lease arrives.
    Adopt { leader: u8, pod: u8, version: u8 },
    /// The pod's confirmation arrives.
    Ack { leader: u8, pod: u8, version: u8 },
    /// The pod's container restarts.
    Restart { pod: u8 },
    /// The pod ends.
    End { pod: u8 },
    /// The leader learns that the pod has ended.
    Confirm { leader: u8, pod: u8 },
    /// A pod joins.
    Join { pod: u8 },
    /// The first leader's death is confirmed; the successor begins.
    Death,
    /// The first leader is given up for lost; the successor begins, the first goes on for a while.
    Silence,
    /// The budget is halved.
    Cut,
}

/// A step that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no step of the model")]
pub struct Unreadable(String);

impl Action {
    /// What happens, for people.
    pub fn words(&self) -> String {
        match *self {
            Action::Tick { advance: 0 } => "a second passes; pod a's clock stands still".into(),
            Action::Tick { advance: 1 } => "a second passes".into(),
            Action::Tick { .. } => "a second passes; pod a's clock jumps ahead by two".into(),
            Action::Challenge { leader, pod, boot } => {
                let (leader, pod) = (self::leader(leader), self::pod(pod));
                format!("{leader} hears a Hello of {pod} (run {boot}) and asks what it holds")
            }
            Action::Answer { leader, pod, nonce } => {
                format!("{} answers challenge {nonce} of {}", self::pod(pod), self::leader(leader))
            }
            Action::Register { leader, pod, nonce, .. } => {
                let (leader, pod) = (self::leader(leader), self::pod(pod));
                format!("{leader} gets the answer of {pod} to challenge {nonce}")
            }
            Action::Grant { leader, pod, rate, floor: 0 } => {
                format!("{} grants {} a rate of {rate}", self::leader(leader), self::pod(pod))
            }
            Action::Grant { leader, pod, rate, floor } => {
                let (leader, pod) = (self::leader(leader), self::pod(pod));
                format!("{leader} grants {pod} a rate of {rate} and a floor of {floor}")
            }
            Action::Adopt { leader, pod, version } => {
                format!("{} gets lease {version} of {}", self::pod(pod), self::leader(leader))
            }
            Action::Ack { leader, pod, version } => {
                let (leader, pod) = (self::leader(leader), self::pod(pod));
                format!("{leader} gets the confirmation of lease {version} from {pod}")
            }
            Action::Restart { pod } => format!("{}'s container restarts", self::pod(pod)),
            Action::End { pod } => format!("{} ends", self::pod(pod)),
            Action::Confirm { leader, pod } => {
                format!("{} learns that {} has ended", self::leader(leader), self::pod(pod))
            }
            Action::Join { pod } => format!("{} joins", self::pod(pod)),
            Action::Death => "the first leader dies in view; the successor begins".into(),
            Action::Silence => {
                "the first leader is given up for lost but goes on; the successor begins".into()
            }
            Action::Cut => "the budget is halved".into(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::Tick { advance } => write!(f, "tick {advance}"),
            Action::Challenge { leader, pod, boot } => write!(f, "challenge {leader} {pod} {boot}"),
            Action::Answer { leader, pod, nonce } => write!(f, "answer {leader} {pod} {nonce}"),
            Action::Register { leader, pod, nonce, clock } => {
                write!(f, "register {leader} {pod} {nonce} {clock}")
            }
            Action::Grant { leader, pod, rate, floor } => {
                write!(f, "grant {leader} {pod} {rate} {floor}")
            }
            Action::Adopt { leader, pod, version } => write!(f, "adopt {leader} {pod} {version}"),
            Action::Ack { leader, pod, version } => write!(f, "ack {leader} {pod} {version}"),
            Action::Restart { pod } => write!(f, "restart {pod}"),
            Action::End { pod } => write!(f, "end {pod}"),
            Action::Confirm { leader, pod } => write!(f, "confirm {leader} {pod}"),
            Action::Join { pod } => write!(f, "join {pod}"),
            Action::Death => f.write_str("death"),
            Action::Silence => f.write_str("silence"),
            Action::Cut => f.write_str("cut"),
        }
    }
}

impl FromStr for Action {
    type Err = Unreadable;

    fn from_str(step: &str) -> Result<Action, Unreadable> {
        let unreadable = || Unreadable(step.to_owned());
        let mut words = step.split_whitespace();
        let verb = words.next().ok_or_else(unreadable)?;
        let numbers: Vec<u8> =
            words.map(str::parse).collect::<Result<_, _>>().map_err(|_| unreadable())?;
        let action = match (verb, numbers.as_slice()) {
            ("tick", &[advance]) => Action::Tick { advance },
            ("challenge", &[leader, pod, boot]) => Action::Challenge { leader, pod, boot },
            ("answer", &[leader, pod, nonce]) => Action::Answer { leader, pod, nonce },
            ("register", &[leader, pod, nonce, clock]) => {
                Action::Register { leader, pod, nonce, clock }
            }
            ("grant", &[leader, pod, rate, floor]) => Action::Grant { leader, pod, rate, floor },
            ("adopt", &[leader, pod, version]) => Action::Adopt { leader, pod, version },
            ("ack", &[leader, pod, version]) => Action::Ack { leader, pod, version },
            ("restart", &[pod]) => Action::Restart { pod },
            ("end", &[pod]) => Action::End { pod },
            ("confirm", &[leader, pod]) => Action::Confirm { leader, pod },
            ("join", &[pod]) => Action::Join { pod },
            ("death", []) => Action::Death,
            ("silence", []) => Action::Silence,
            ("cut", []) => Action::Cut,
            _ => return Err(unreadable()),
        };
        Ok(action)
    }
}

fn leader(leader: u8) -> &'static str {
    if leader == 0 { "the first leader" } else { "the successor" }
}

fn pod(pod: u8) -> String {
    format!("pod {}", char::from(b'a' + pod))
}
