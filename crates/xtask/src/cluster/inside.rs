//! The first process in the cluster's namespaces: it makes network and mounts as a node has them,
//! starts and stops the parts as it is asked, and reaps what ends. When it ends, the kernel ends
//! everything else in here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio, exit};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, test_kill_process};

use crate::cluster::control::{self, Request};
use crate::cluster::part::Part;
use crate::cluster::programs::execute;
use crate::cluster::state::{INSIDE, State};
use crate::cluster::{relay, wait};

/// The parts that run, and those that ended without being asked to.
#[derive(Debug, Default)]
struct Parts {
    running: BTreeMap<&'static str, Pid>,
    ended: BTreeMap<&'static str, String>,
}

/// A killed process is gone at once; the limit is for one that the kernel holds.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often to look for children when there are none.
const NO_CHILDREN: Duration = Duration::from_millis(100);

/// What makes a node of an empty network.
const NETWORK: [&str; 6] = [
    "link set lo up",
    // Not every kernel has a dummy device.
    "link add node0 type veth peer name node0p",
    "addr add 10.99.0.1/24 dev node0",
    "link set node0 up",
    "link set node0p up",
    // Kubelet and kube-proxy want a default route. Nobody is there.
    "route add default via 10.99.0.254 dev node0",
];

/// Settings of the kernel, of this network only. The second is there where bridges can be filtered.
const KERNEL: [(&str, bool); 2] = [
    ("/proc/sys/net/ipv4/ip_forward", true),
    ("/proc/sys/net/bridge/bridge-nf-call-iptables", false),
];

/// What this process does, until it is asked to end or its keeper is gone.
pub(super) fn run(state: &State) -> anyhow::Result<()> {
    make_mounts(state)?;
    make_network()?;
    let port: u16 = fs::read_to_string(state.path("port"))?.trim().parse().context("the port")?;
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut keeper = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let socket = UnixListener::bind(format!("{INSIDE}/{}", control::SOCKET))?;
    let parts = Arc::new(Mutex::new(Parts::default()));
    thread::spawn(move || relay::serve(&listener, port));
    thread::spawn(move || {
        // The keeper never says anything: this returns when it is gone.
        let _gone = keeper.read(&mut [0]);
        exit(1);
    });
    let answering = Arc::clone(&parts);
    thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            if let Err(error) = answer(&stream, &answering, port) {
                eprintln!("control: {error:#}");
            }
        }
    });
    reap(&parts)
}

fn make_mounts(state: &State) -> anyhow::Result<()> {
    let mount = |arguments: &[&str]| execute(Command::new("mount").args(arguments));
    let folder = state.folder().to_str().context("the cluster's directory is no text")?;
    // By way of a folder that the new /run does not hide, should the directory be below it.
    mount(&["--bind", folder, "/mnt"])?;
    mount(&["-t", "tmpfs", "tmpfs", "/run"])?;
    for name in ["netns", "lock", "weir"] {
        fs::create_dir_all(format!("/run/{name}"))?;
    }
    mount(&["--move", "/mnt", INSIDE])?;
    // Kubelet, CNI and others have fixed folders in /var; what they write stays with the cluster.
    let layers = format!("lowerdir=/var,upperdir={INSIDE}/var/upper,workdir={INSIDE}/var/work");
    mount(&["-t", "overlay", "overlay", "-o", &layers, "/var"])?;
    // Names of Services are known to whatever runs in here.
    let names = format!("{INSIDE}/conf/node-resolv.conf");
    mount(&["--bind", &names, "/etc/resolv.conf"])
}

fn make_network() -> anyhow::Result<()> {
    for arguments in NETWORK {
        execute(Command::new("ip").args(arguments.split(' ')))?;
    }
    for (setting, needed) in KERNEL {
        match fs::write(setting, "1") {
            Err(error) if needed => return Err(error).context(setting),
            _ => {}
        }
    }
    Ok(())
}

fn answer(stream: &UnixStream, parts: &Mutex<Parts>, port: u16) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(control::TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.take(control::MAX_REQUEST_BYTES)).read_line(&mut line)?;
    // Somebody only wanted to know who is here.
    if line.is_empty() {
        return Ok(());
    }
    let answer = line.parse().and_then(|request| handle(&request, parts, port));
    let answer = answer.unwrap_or_else(|error| format!("{}{error:#}\n", control::ERROR));
    let mut stream = stream;
    stream.write_all(answer.as_bytes()).context("an answer cannot be sent")
}

fn handle(request: &Request, parts: &Mutex<Parts>, port: u16) -> anyhow::Result<String> {
    match request {
        Request::Status => Ok(parts.lock().status()),
        Request::Start(name) => parts.lock().start(Part::named(name)?, port),
        Request::Stop(name) => stop(Part::named(name)?, parts),
        Request::End => exit(0),
    }
}

fn stop(part: &Part, parts: &Mutex<Parts>) -> anyhow::Result<String> {
    let Some(number) = parts.lock().running.remove(part.name) else {
        bail!("{} does not run", part.name);
    };
    kill_process(number, Signal::KILL).with_context(|| part.name.to_owned())?;
    wait::within(STOP_LIMIT, part.name, || Ok(test_kill_process(number).is_err().then_some(())))?;
    Ok(format!("{} is stopped\n", part.name))
}

/// Waits for whatever ends in here, for ever: orphans come to the first process.
fn reap(parts: &Mutex<Parts>) -> anyhow::Result<()> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((number, status))) => {
                let mut parts = parts.lock();
                let mut running = parts.running.iter();
                if let Some(name) = running.find_map(|(name, it)| (*it == number).then_some(*name))
                {
                    let how = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("ended with code {code}"),
                        (None, Some(signal)) => format!("was killed by signal {signal}"),
                        (None, None) => "ended".to_owned(),
                    };
                    parts.running.remove(name);
                    parts.ended.insert(name, how);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => wait::pause(NO_CHILDREN),
            Err(error) => return Err(error).context("children cannot be waited for"),
        }
    }
}

// === impl Parts ===

impl Parts {
    /// The lock is held meanwhile, so that the reaper knows a child before it can end.
    fn start(&mut self, part: &'static Part, port: u16) -> anyhow::Result<String> {
        if self.running.contains_key(part.name) {
            bail!("{} runs already", part.name);
        }
        let log = format!("{INSIDE}/logs/{}.log", part.name);
        let log = fs::File::options().create(true).append(true).open(&log).context(log)?;
        let mut command = part.command(port);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(INSIDE);
        let child = command.spawn().with_context(|| format!("{} cannot be started", part.name))?;
        let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        self.running.insert(part.name, number.context("a process has a number")?);
        self.ended.remove(part.name);
        Ok(format!("{} is started\n", part.name))
    }

    /// A line for each part: name, tab, `runs as N` or how it ended.
    fn status(&self) -> String {
        let mut text = String::new();
        for (name, number) in &self.running {
            let _infallible = writeln!(text, "{name}\truns as {}", number.as_raw_nonzero());
        }
        for (name, how) in &self.ended {
            let _infallible = writeln!(text, "{name}\t{how}");
        }
        text
    }
}
