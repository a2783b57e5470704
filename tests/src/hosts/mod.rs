//! Hosts on one machine: a network of its own for a test, whose links can be cut and whose hosts can lose their power.
//!
//! ```text
//!   test (198.18.x.1) ── switch: a bridge and the rules for faults ─┬─ broker (.2)
//!                                                                   ├─ store  (.3)
//!                                                                   └─ hosts  (.10, .11, …)
//! ```
//!
//! Each place but the test's is a network namespace; the switch stands in one more. In the machine's own namespace there is
//! one link, whose name is that of the network's number, so that no two networks have the same addresses. Packets are dropped
//! in the switch, so no host is told of a cut. Hosts share the machine's files: a folder is a store that all can reach.
//!
//! Each namespace lives as long as the process that was started in it first. This one ends with the test, also after a
//! `kill -9`, and the namespace's links go with it.
//!
//! Needs root, a kernel with nftables for bridges, and Debian's packages iproute2, nftables, util-linux and python3 (for
//! [`Network::delay`]); `tests/prepare` installs them. Delays are made by a program that passes on frames, because many kernels
//! lack the queueing discipline `netem`.

mod clock;
mod namespace;
mod rules;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt as _;
use rustix::process::Signal;

use crate::child::{Folder, Process, Spec};
pub use clock::Clock;
use namespace::{Namespace, run};
use rules::Rules;

const CURE: &str = "network namespaces are needed: run as root (or with CAP_NET_ADMIN and CAP_SYS_ADMIN), on a kernel with \
                    nftables for bridges, with iproute2, nftables, util-linux and python3 installed (the script \
                    tests/prepare does it)";
/// 198.18.0.0/15 is set aside for tests of networks, so no real one has these addresses. It holds so many networks.
const NETWORKS: u16 = 512;
/// Passes on frames later.
const SLOW_LINK: &str = include_str!("slow_link.py");

/// Where something is in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The test's process.
    Test,
    /// The host of the broker.
    Broker,
    /// The host of the store, if that is no folder.
    Store,
    /// A host for jobs, counted from 0.
    Host(u8),
}

impl Place {
    /// The last part of its address.
    fn last(self) -> u8 {
        match self {
            Self::Test => 1,
            Self::Broker => 2,
            Self::Store => 3,
            Self::Host(number) => 10 + number,
        }
    }

    /// The name of its link to the switch, there.
    fn port(self) -> String {
        match self {
            Self::Test => "test".to_owned(),
            Self::Broker => "broker".to_owned(),
            Self::Store => "store".to_owned(),
            Self::Host(number) => format!("host-{number}"),
        }
    }
}

/// A network. Dropping it ends what runs in it.
#[derive(Debug)]
pub struct Network {
    /// Tells it from all others on this machine.
    number: u16,
    switch: Namespace,
    /// What has power.
    places: Mutex<BTreeMap<Place, Arc<Namespace>>>,
    rules: Mutex<Rules>,
    /// The programs that pass on frames later.
    slow: Mutex<BTreeMap<Place, Process>>,
    folder: Folder,
}

impl Network {
    /// Makes a network with so many hosts, a host for a broker and one for a store.
    ///
    /// # Errors
    /// Namespaces may not be made here, or a program is missing; the error says what is needed.
    pub fn new(hosts: u8) -> Result<Self> {
        Self::make(hosts).context(CURE)
    }

    fn make(hosts: u8) -> Result<Self> {
        let folder = Folder::new("fluvial-network-")?;
        let switch = Namespace::new("switch", folder.path())?;
        let network = Self {
            number: link_to(&switch)?,
            switch,
            places: Mutex::default(),
            rules: Mutex::default(),
            slow: Mutex::default(),
            folder,
        };
        network.switch.batch(
            "link add switch type bridge
             link set switch up
             link set test master switch
             link set test up",
        )?;
        fs::write(network.folder.path().join("slow_link.py"), SLOW_LINK)?;
        network.apply(|_| ())?;
        for place in [Place::Broker, Place::Store].into_iter().chain((0..hosts).map(Place::Host)) {
            network.plug_in(place)?;
        }
        let address = network.address(Place::Test);
        run(&["ip", "addr", "add", &format!("{address}/24"), "dev", &link(network.number)], "")?;
        run(&["ip", "link", "set", &link(network.number), "up"], "")?;
        Ok(network)
    }

    fn plug_in(&self, place: Place) -> Result<()> {
        let namespace = Namespace::new(&place.port(), self.folder.path())?;
        let (port, address) = (place.port(), self.address(place));
        let [_, _, high, low] = address.octets();
        let [number, _] = self.number.to_be_bytes();
        self.switch.batch(&format!(
            "link add {port} type veth peer name eth0 address 02:f1:00:{number:02x}:{high:02x}:{low:02x} netns {}
             link set {port} master switch
             link set {port} up",
            namespace.pid()
        ))?;
        // The processes of a job talk over the loopback interface, too.
        namespace.batch(&format!(
            "addr add {address}/24 dev eth0
             link set eth0 up
             link set lo up"
        ))?;
        self.places().insert(place, Arc::new(namespace));
        Ok(())
    }

    /// A temporary folder that lives as long as the network.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address of a place.
    #[must_use]
    pub fn address(&self, place: Place) -> Ipv4Addr {
        let [second, third] = (0x1200 + self.number).to_be_bytes();
        Ipv4Addr::new(198, second, third, place.last())
    }

    /// What starts a program there; the program and its arguments follow.
    ///
    /// # Errors
    /// The place is the test's own, or has no power.
    pub fn launcher(&self, place: Place) -> Result<Vec<OsString>> {
        Ok(self.namespace(place)?.launcher())
    }

    /// Starts a program there.
    ///
    /// # Errors
    /// As [`Process::start`], and if the place has no power.
    pub fn start(&self, place: Place, spec: Spec) -> Result<Process> {
        let mut words = self.launcher(place)?;
        let program = PathBuf::from(words.remove(0));
        words.push(spec.program.into_os_string());
        words.extend(spec.args);
        Process::start(Spec { program, args: words, ..spec })
    }

    /// Does something on a thread of this process that is there. A socket belongs to the place where it was made, whichever
    /// thread uses it.
    ///
    /// # Errors
    /// The thread may not go there.
    pub fn within<T: Send>(&self, place: Place, act: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace(place)?.within(act)
    }

    /// The ids of the processes that run there.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn pids(&self, place: Place) -> Result<Vec<u32>> {
        self.namespace(place)?.members()
    }

    /// Sends a signal to all processes there.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn signal(&self, place: Place, signal: Signal) -> Result<()> {
        self.namespace(place)?.signal(signal)
    }

    /// From now on nothing passes between these two, in either direction.
    ///
    /// # Errors
    /// The rules cannot be set.
    pub fn cut(&self, one: Place, other: Place) -> Result<()> {
        let (one, other) = (self.address(one), self.address(other));
        self.apply(|rules| rules.cuts.extend([(one, other), (other, one)]))
    }

    /// From now on nothing passes from the one to the other; the other direction works.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn cut_one_way(&self, from: Place, to: Place) -> Result<()> {
        let cut = (self.address(from), self.address(to));
        self.apply(|rules| rules.cuts.extend([cut]))
    }

    /// From now on nothing passes from or to this place.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn isolate(&self, place: Place) -> Result<()> {
        let address = self.address(place);
        self.apply(|rules| rules.isolated.extend([address]))
    }

    /// From now on this share of the packets from and to this place vanishes.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn lose(&self, place: Place, percent: u8) -> Result<()> {
        let address = self.address(place);
        self.apply(|rules| rules.losses.extend([(address, percent)]))
    }

    /// From now on every packet of the connections between a place and `to` that are established vanishes, and neither end is
    /// told; new connections work. Returns how many there were.
    ///
    /// # Errors
    /// There is none, or the rules cannot be set.
    pub fn drop_established(&self, place: Place, to: SocketAddrV4) -> Result<usize> {
        let ports = self.namespace(place)?.connections_to(to)?;
        ensure!(!ports.is_empty(), "{place:?} has no connection to {to}");
        let (address, count) = (self.address(place), ports.len());
        self.apply(|rules| rules.dropped.push((address, to, ports)))?;
        Ok(count)
    }

    /// Ends all cuts and losses. A place without power stays without.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn heal(&self) -> Result<()> {
        self.apply(|rules| *rules = Rules::default())
    }

    /// From now on each packet from and to this place takes so much longer, each way.
    ///
    /// # Errors
    /// The place has no power, or the program that does it does not start.
    pub fn delay(&self, place: Place, by: Duration) -> Result<()> {
        self.namespace(place)?.run(&["python3", "-c", SLOW_LINK, "whole", "eth0"], "")?;
        let port = place.port();
        // Frames go from the place's link through the program into another link, which is the switch's port now.
        self.switch.batch(&format!(
            "link add {port}-near type veth peer name {port}-far
             link set {port}-near up
             link set {port}-far master switch
             link set {port}-far up"
        ))?;
        let ms = by.as_millis().to_string();
        let (near, far) = (format!("{port}-near"), format!("{port}-far"));
        let mut args = self.switch.launcher();
        let program = PathBuf::from(args.remove(0));
        args.push("python3".into());
        args.push(self.folder.path().join("slow_link.py").into_os_string());
        args.extend(["between", &port, &near, &far, &ms].map(OsString::from));
        let log = self.folder.path().join(format!("{port}-slow.log"));
        let name = format!("the slow link of {port}");
        let slow = Process::start(Spec { name, program, args, env: Vec::new(), log })?;
        slow.wait_for_line("passes on", Duration::from_secs(20))?;
        self.switch.batch(&format!("link set {port} nomaster"))?;
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).insert(place, slow);
        Ok(())
    }

    /// The place loses its power: it is isolated, and everything in it is killed. No other host is told.
    ///
    /// # Errors
    /// It has none, or a process does not end.
    pub fn cut_power(&self, place: Place) -> Result<()> {
        let namespace = self.namespace(place)?;
        self.isolate(place)?;
        namespace.kill_all()?;
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
        self.switch.batch(&format!("link del {}", place.port()))?;
        self.places().remove(&place);
        Ok(())
    }

    /// The place has power again: another namespace with the same address, in which nothing runs.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn restore_power(&self, place: Place) -> Result<()> {
        self.plug_in(place)?;
        let address = self.address(place);
        self.apply(|rules| rules.isolated.retain(|place| *place != address))
    }

    /// The clock of a place, for the processes that are started with its environment.
    ///
    /// # Errors
    /// `cc` is not installed, or fails.
    pub fn clock(&self, place: Place) -> Result<Clock> {
        Clock::new(self.folder.path().join(format!("{}-clock", place.port())))
    }

    fn namespace(&self, place: Place) -> Result<Arc<Namespace>> {
        self.places()
            .get(&place)
            .cloned()
            .with_context(|| format!("{place:?} has no namespace of its own, or no power"))
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<Namespace>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, change: impl FnOnce(&mut Rules)) -> Result<()> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut rules);
        self.switch.run(&["nft", "-f", "-"], &rules.text()).context("set the rules for faults")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The kernel removes the link some time after the last process of the switch's namespace; here it is wanted at once.
        let _ = run(&["ip", "link", "del", &link(self.number)], "");
    }
}

/// The name of the test's end of its link to a network.
fn link(number: u16) -> String {
    format!("fluvial-{number}")
}

/// Makes the link between the test and a switch. The name is free if no other network has this number.
fn link_to(switch: &Namespace) -> Result<u16> {
    let pid = switch.pid().to_string();
    for _ in 0..20 {
        let number = rand::rng().random_range(0..NETWORKS);
        match run(&["ip", "link", "add", &link(number), "type", "veth", "peer", "name", "test", "netns", &pid], "") {
            Err(error) if format!("{error:#}").contains("File exists") => {}
            made => return made.map(|()| number),
        }
    }
    bail!("the numbers of twenty networks are taken")
}
