//! Links over real sockets on the loopback interface.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fluvial_protocol::group::{Change, Message, NodeId, Status, Term};
use fluvial_store::Store;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::connection::{Answer, Connection, Hello, PROTOCOL};
use super::{Envelope, LinkEvent, LinkOptions, Links, StoreProof};
use crate::changes::Changes;
use crate::status::made_up::{self, offer};
use crate::trust::{Authorities, ClusterKey, Trust, TrustOptions, Withdrawn};

/// Longer than anything here takes, even on a busy machine; shorter than what one stranger after the other would take.
const LONG: Duration = Duration::from_secs(60);

pub(super) struct Copy {
    pub(super) me: NodeId,
    pub(super) links: Links,
    events: UnboundedReceiver<LinkEvent>,
}

fn plain() -> Arc<Trust> {
    Arc::new(TrustOptions { insecure: true, ..TrustOptions::default() }.open().unwrap())
}

fn with_key() -> Arc<Trust> {
    Arc::new(Trust::of_cluster_key(&ClusterKey::new()).unwrap())
}

fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn id(listener: &TcpListener, start: u64) -> NodeId {
    NodeId { address: listener.local_addr().unwrap().to_string(), start }
}

fn proof(store: &Path) -> StoreProof {
    StoreProof::new(Store::open(store.to_str().unwrap()).unwrap(), "job")
}

impl Copy {
    pub(super) fn new(start: u64, trust: &Arc<Trust>, store: &TempDir) -> Self {
        Self::at(listen(), start, trust, store.path())
    }

    fn at(listener: TcpListener, start: u64, trust: &Arc<Trust>, store: &Path) -> Self {
        let me = id(&listener, start);
        let options = LinkOptions {
            me: me.clone(),
            listener,
            trust: Arc::clone(trust),
            proof: proof(store),
            board: Arc::default(),
            changes: Changes::none(),
            logs: None,
            history: None,
        };
        let (to, events) = unbounded_channel();
        let links = Links::start(options, &Handle::current(), move |event| drop(to.send(event))).unwrap();
        Self { me, links, events }
    }

    pub(super) fn send(&self, to: &NodeId, message: Message) {
        self.links.send(to, envelope(&self.me, message));
    }

    async fn next(&mut self) -> LinkEvent {
        tokio::time::timeout(LONG, self.events.recv()).await.expect("an event within a minute").unwrap()
    }

    pub(super) async fn received(&mut self) -> Message {
        match self.next().await {
            LinkEvent::Received(envelope) => envelope.message,
            other => panic!("{other:?}"),
        }
    }
}

/// Opens a connection as `from` does, and says hello.
pub(super) async fn hello(from: &NodeId, to: &NodeId, trust: &Trust) -> (Connection, Answer) {
    let mut connection = Connection::open(&to.address, trust).await.unwrap();
    let hello = Hello::Messages { from: from.clone(), to: to.clone(), store: String::new(), protocol: PROTOCOL };
    connection.write(&hello).await.unwrap();
    let answer = connection.read().await.unwrap().unwrap();
    (connection, answer)
}

#[tokio::test]
async fn a_node_of_the_version_before_is_welcome_and_any_other_one_is_refused() {
    let store = tempfile::tempdir().unwrap();
    let trust = with_key();
    let (a, b) = (Copy::new(1, &trust, &store), Copy::new(2, &trust, &store));
    proof_is_shown(&a, &b).await;
    // Nodes of the first version name none.
    for (protocol, welcome) in
        [(None, true), (Some(PROTOCOL), true), (Some(PROTOCOL + 1), true), (Some(PROTOCOL + 2), false)]
    {
        let mut connection = Connection::open(&b.me.address, &trust).await.unwrap();
        let mut hello = serde_json::json!({"messages": {"from": a.me, "to": b.me, "store": ""}});
        if let Some(protocol) = protocol {
            hello["messages"]["protocol"] = protocol.into();
        }
        connection.write(&hello).await.unwrap();
        let answer = connection.read().await.unwrap().unwrap();
        let is_as_expected = match answer {
            Answer::Welcome => welcome,
            Answer::OtherVersion(theirs) => !welcome && theirs == PROTOCOL,
            _ => false,
        };
        assert!(is_as_expected, "{protocol:?}: {answer:?}");
    }
}

/// A node that would be refused by all ends, and says what to do.
#[tokio::test]
async fn a_node_that_nobody_understands_learns_why() {
    let store = tempfile::tempdir().unwrap();
    let trust = plain();
    let (mut a, listener) = (Copy::new(1, &trust, &store), listen());
    let newer = id(&listener, 2);
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let of_newer = Arc::clone(&trust);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = Connection::accept(socket, &of_newer).await.unwrap();
            connection.read_hello().await.unwrap();
            connection.write(&Answer::OtherVersion(PROTOCOL + 2)).await.unwrap();
        }
    });
    a.send(&newer, status(1));
    match a.next().await {
        LinkEvent::OtherVersion(why) => assert!(why.contains("upgrade this node"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Waits until both nodes have shown that they see the store.
async fn proof_is_shown(a: &Copy, b: &Copy) {
    a.links.shared.proof.is_shown().await;
    b.links.shared.proof.is_shown().await;
}

pub(super) async fn ended(connection: &mut Connection) {
    tokio::time::timeout(LONG, connection.ends()).await.expect("the connection is closed within a minute");
}

fn envelope(from: &NodeId, message: Message) -> Envelope {
    Envelope { from: from.clone(), message, authorities: Authorities::new(), history: None }
}

pub(super) fn status(number: u64) -> Message {
    let offer = offer();
    Message::Status(Box::new(Status { number, term: Term(1), offer, running: Default::default(), deaf_to: Vec::new() }))
}

#[tokio::test]
async fn messages_arrive_in_both_directions_with_and_without_tls() {
    let store = tempfile::tempdir().unwrap();
    for trust in [plain(), with_key()] {
        let (mut a, mut b) = (Copy::new(1, &trust, &store), Copy::new(2, &trust, &store));
        for number in 1..=3 {
            a.send(&b.me, status(number));
            assert_eq!(b.received().await, status(number));
            b.send(&a.me, Message::Ask { term: Term(number) });
            assert_eq!(a.received().await, Message::Ask { term: Term(number) });
        }
    }
}

#[tokio::test]
async fn only_the_newest_message_of_each_kind_waits_for_a_receiver_that_does_not_answer() {
    let store = tempfile::tempdir().unwrap();
    let (trust, later) = (with_key(), listen());
    let (a, b) = (Copy::new(1, &trust, &store), id(&later, 2));
    for number in 1..=100 {
        a.send(&b, status(number));
        a.send(&b, Message::Ask { term: Term(number) });
    }
    let mut b = Copy::at(later, 2, &trust, store.path());
    let mut received = [b.received().await, b.received().await];
    received.sort_by_key(|message| matches!(message, Message::Ask { .. }));
    assert_eq!(received, [status(100), Message::Ask { term: Term(100) }]);
    a.send(&b.me, status(101));
    assert_eq!(b.received().await, status(101));
}

#[tokio::test]
async fn a_node_is_gone_when_its_address_refuses_or_another_node_answers_there() {
    let store = tempfile::tempdir().unwrap();
    let trust = with_key();
    let (mut a, b) = (Copy::new(1, &trust, &store), Copy::new(2, &trust, &store));
    let earlier = NodeId { start: 77, ..b.me.clone() };
    a.send(&earlier, status(1));
    assert_eq!(a.next().await, LinkEvent::Gone(earlier));
    let nobody = id(&listen(), 3);
    a.send(&nobody, status(1));
    assert_eq!(a.next().await, LinkEvent::Gone(nobody));
}

#[tokio::test]
async fn a_node_that_ends_is_gone_before_the_next_message_for_it() {
    let store = tempfile::tempdir().unwrap();
    let trust = with_key();
    let (mut a, mut b) = (Copy::new(1, &trust, &store), Copy::new(2, &trust, &store));
    a.send(&b.me, status(1));
    assert_eq!(b.received().await, status(1));
    let gone = b.me.clone();
    drop(b);
    assert_eq!(a.next().await, LinkEvent::Gone(gone));
}

#[tokio::test]
async fn a_proxy_with_nobody_behind_it_is_no_proof_that_a_node_is_gone() {
    let store = tempfile::tempdir().unwrap();
    let trust = with_key();
    let (mut a, proxy) = (Copy::new(1, &trust, &store), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let behind = NodeId { address: proxy.local_addr().unwrap().to_string(), start: 2 };
    for number in 1..=3 {
        // A connection is tried for each message, and only after the one before has failed.
        a.send(&behind, status(number));
        drop(tokio::time::timeout(LONG, proxy.accept()).await.expect("a connection for each message").unwrap());
    }
    assert!(a.events.try_recv().is_err());
}

// The strangers block their thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_delay_nobody_and_nothing_of_them_is_received() {
    let store = tempfile::tempdir().unwrap();
    let trust = with_key();
    let (a, mut b) = (Copy::new(1, &trust, &store), Copy::new(2, &trust, &store));
    let mut strangers: Vec<_> = (0..300).map(|_| TcpStream::connect(&b.me.address).unwrap()).collect();
    for (number, stranger) in strangers.iter_mut().enumerate().skip(200) {
        // The oldest may have been closed already.
        let _ = stranger.write_all(&[u8::try_from(number % 256).unwrap(); 100]);
    }
    let foreign = Copy::new(3, &with_key(), &store);
    foreign.send(&b.me, status(1));
    a.send(&b.me, status(2));
    assert_eq!(b.received().await, status(2));
    // Each is closed, the silent ones too.
    tokio::task::spawn_blocking(move || {
        for mut stranger in strangers {
            stranger.set_read_timeout(Some(LONG)).unwrap();
            let mut said = Vec::new();
            if let Err(error) = stranger.read_to_end(&mut said) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
            }
        }
    })
    .await
    .unwrap();
    assert!(b.events.try_recv().is_err());
}

#[tokio::test]
async fn a_copy_that_sees_another_store_is_told_so_and_not_heard() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trust = with_key();
    let (mut a, mut b) = (Copy::new(1, &trust, &one), Copy::new(2, &trust, &other));
    a.send(&b.me, status(1));
    let LinkEvent::OtherStore(why) = a.next().await else { panic!("the copy was not refused") };
    for store in [&one, &other] {
        assert!(why.contains(store.path().to_str().unwrap()), "{why}");
    }
    assert!(b.events.try_recv().is_err());
}

/// Copies with another cluster key could not be heard, and took the job over from each other.
#[tokio::test]
async fn a_copy_with_another_key_ends_and_one_whose_peer_is_a_stranger_does_not() {
    let store = tempfile::tempdir().unwrap();
    for (mine, theirs) in [(with_key(), with_key()), (plain(), with_key()), (with_key(), plain())] {
        let (mut a, mut b) = (Copy::new(1, &mine, &store), Copy::new(2, &theirs, &store));
        a.links.shared.proof.is_shown().await;
        b.links.shared.proof.is_shown().await;
        b.send(&a.me, status(1));
        let ends = |event| match event {
            LinkEvent::OtherTrust(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(ends(b.next().await).contains(&mine.kind().to_string()));
        a.send(&b.me, status(1));
        let why = ends(a.next().await);
        assert!(why.contains(&mine.kind().to_string()) && why.contains(&theirs.kind().to_string()), "{why}");
    }
    // The address of a copy that has ended may be another group's by now.
    let (mut a, stranger) = (Copy::new(3, &with_key(), &store), listen());
    let (gone, elsewhere) = (id(&stranger, 4), tempfile::tempdir().unwrap());
    let _other_group = Copy::at(stranger, 5, &with_key(), elsewhere.path());
    let before = Copy::new(4, &a.links.shared.trust, &store);
    before.links.shared.proof.is_shown().await;
    a.send(&gone, status(1));
    assert!(
        tokio::time::timeout(Duration::from_secs(1), a.events.recv()).await.is_err(),
        "it knows nothing of the other"
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_no_proof_that_it_is_another() {
    let (store, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trust = with_key();
    // The same store at another path, which fails as long as this is a file.
    let path = broken.path().join("job");
    std::fs::write(&path, "").unwrap();
    let (a, b) = (Copy::new(1, &trust, &store), Copy::at(listen(), 2, &trust, broken.path()));
    a.links.shared.proof.is_shown().await;
    let (_, answer) = hello(&a.me, &b.me, &trust).await;
    assert!(matches!(&answer, Answer::Later(why) if why.contains("job/group/nodes")), "{answer:?}");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(store.path().join("job"), &path).unwrap();
    let (_, answer) = hello(&a.me, &b.me, &trust).await;
    assert!(matches!(answer, Answer::Welcome), "{answer:?}");
}

#[tokio::test]
async fn a_connection_carries_messages_of_its_own_node_and_of_bounded_length_only() {
    let store = tempfile::tempdir().unwrap();
    let (trust, sender) = (plain(), Copy::new(1, &plain(), &store));
    let mut b = Copy::new(2, &trust, &store);
    sender.send(&b.me, status(1));
    assert_eq!(b.received().await, status(1));
    let link = async || {
        let (connection, answer) = hello(&sender.me, &b.me, &trust).await;
        assert!(matches!(answer, Answer::Welcome), "{answer:?}");
        connection
    };
    let mut of_another = link().await;
    of_another.write(&envelope(&b.me, status(2))).await.unwrap();
    ended(&mut of_another).await;
    let mut too_long = link().await;
    for _ in 0..5 {
        // The last ones fail, because the other end has closed the connection.
        let _ = too_long.write_raw(&vec![b' '; 1 << 20]).await;
    }
    ended(&mut too_long).await;
    drop(link().await);
    assert!(b.events.try_recv().is_err());
}

#[test]
fn hostile_lines_of_other_nodes_are_read_or_refused_and_take_a_bounded_memory() {
    use tokio::io::{join, repeat, sink};

    use super::connection::LONGEST_HELLO;
    use crate::hostile::{decode_changed, within_bounds};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b) = (made_up::id("a"), made_up::id("b"));
    let hello = Hello::Messages { from: a.clone(), to: b.clone(), store: "/s".to_owned(), protocol: PROTOCOL };
    let question = Hello::Question { job: "orders".to_owned(), whole: true, figures_of: None };
    let change = Hello::Change { to: b, change: Change::Stop { job: "orders".to_owned(), force: false } };
    let answers = [Answer::OtherVersion(7), Answer::View(Box::new(made_up::view())), Answer::Changed(Ok(()))];
    let line = |json: serde_json::Result<Vec<u8>>| [json.unwrap(), b"\n".to_vec()].concat();
    let mut valid: Vec<_> = [hello, question, change].iter().map(|hello| line(serde_json::to_vec(hello))).collect();
    valid.extend(answers.iter().map(|answer| line(serde_json::to_vec(answer))));
    valid.push(line(serde_json::to_vec(&envelope(&a, status(1)))));
    let over = |input: &[u8]| Connection::over(join(std::io::Cursor::new(input.to_vec()), sink()), Withdrawn::never());
    decode_changed(&valid, 1 << 20, |input| {
        runtime.block_on(async {
            drop(over(input).read_hello().await);
            drop(over(input).read::<Envelope>().await);
            drop(over(input).read::<Answer>().await);
        });
    });
    let endless = || Connection::over(join(repeat(b'['), sink()), Withdrawn::never());
    // A vector doubles while it grows.
    let stranger = || runtime.block_on(async { assert!(endless().read_hello().await.is_err()) });
    within_bounds(4 * LONGEST_HELLO, stranger).unwrap();
    let node = || runtime.block_on(async { assert!(endless().read::<Envelope>().await.is_err()) });
    within_bounds(16 << 20, node).unwrap();
}
