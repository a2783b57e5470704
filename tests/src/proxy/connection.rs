//! One connection through the proxy: two threads that pass frames on, and know an EndTxn when they see one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Fault, State};

/// EndTxn in Kafka's protocol.
const END_TXN: i16 = 26;
/// How long the broker has to answer a request that nobody waits for any more.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// The answer that a fault waits for, by its correlation id.
type Awaited = Arc<Mutex<Option<(i32, Fault)>>>;

/// Serves a client until either side closes.
pub(super) fn serve(client: TcpStream, broker: SocketAddr, state: &Arc<State>) {
    let state = Arc::clone(state);
    std::thread::spawn(move || {
        let Ok(broker) = TcpStream::connect_timeout(&broker, Duration::from_secs(5)) else { return };
        // Without, small frames would wait for the answers to earlier ones; nothing else depends on it.
        let _ = (client.set_nodelay(true), broker.set_nodelay(true));
        let (Ok(to_client), Ok(from_broker)) = (client.try_clone(), broker.try_clone()) else { return };
        let awaited = Awaited::default();
        let of_answers = Arc::clone(&awaited);
        let answers = std::thread::spawn(move || pass_answers(from_broker, to_client, &of_answers));
        let last_request = pass_requests(&client, &broker, &awaited, &state);
        close(&client);
        if last_request != LastRequest::IsUnderWay {
            close(&broker);
        }
        // It ends when there is nothing left to read, or with the answer that is awaited.
        let _ = answers.join();
        close(&broker);
    });
}

/// What became of a connection's last request.
#[derive(PartialEq, Eq)]
enum LastRequest {
    /// It was passed on, or will never be.
    IsOver,
    /// The broker has just got it, and nobody else waits for the answer.
    IsUnderWay,
}

fn close(stream: &TcpStream) {
    // Closed by the other side already, if this fails.
    let _ = stream.shutdown(Shutdown::Both);
}

fn pass_requests(mut client: &TcpStream, mut broker: &TcpStream, awaited: &Awaited, state: &State) -> LastRequest {
    while let Ok(request) = frame(&mut client) {
        let fault = if api_key(&request) == Some(END_TXN) { state.meet() } else { None };
        let awaits = |fault| {
            let correlation = correlation_of_request(&request);
            *awaited.lock().unwrap_or_else(PoisonError::into_inner) = correlation.map(|id| (id, fault));
        };
        match fault {
            None => {}
            Some(Fault::LoseRequest) => return LastRequest::IsOver,
            Some(Fault::HoldRequest(time)) => std::thread::sleep(time),
            Some(fault @ (Fault::LoseAnswer | Fault::HoldAnswer(_))) => awaits(fault),
            Some(Fault::DeliverLate(time)) => {
                close(client);
                std::thread::sleep(time);
                awaits(Fault::LoseAnswer);
                let bounded = broker.set_read_timeout(Some(LAST_ANSWER));
                let delivered = bounded.and_then(|()| broker.write_all(&request));
                return if delivered.is_ok() { LastRequest::IsUnderWay } else { LastRequest::IsOver };
            }
        }
        if broker.write_all(&request).is_err() {
            break;
        }
    }
    LastRequest::IsOver
}

fn pass_answers(mut broker: TcpStream, mut client: TcpStream, awaited: &Awaited) {
    while let Ok(answer) = frame(&mut broker) {
        let fault = {
            let mut awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
            awaited.take_if(|(id, _)| correlation_of_answer(&answer) == Some(*id))
        };
        match fault {
            Some((_, Fault::LoseAnswer)) => break,
            Some((_, Fault::HoldAnswer(time))) => std::thread::sleep(time),
            _ => {}
        }
        // A client that is gone is the other thread's to see; what the broker still says is for nobody then.
        let _ = client.write_all(&answer);
    }
    close(&client);
}

/// The next frame, its length before it.
fn frame(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + length, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn api_key(request: &[u8]) -> Option<i16> {
    request.get(4..6).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
}

fn correlation_of_request(request: &[u8]) -> Option<i32> {
    int(request, 8)
}

fn correlation_of_answer(answer: &[u8]) -> Option<i32> {
    int(answer, 4)
}

fn int(frame: &[u8], at: usize) -> Option<i32> {
    frame.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes)
}
