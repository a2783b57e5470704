//! The sockets of a client: each finds out within seconds that its peer does not answer any more.
//!
//! A NAT or a load balancer forgets connections without telling either end, and a host that is switched off cannot tell. A
//! write then waits for TCP's own time-outs, which are of the order of fifteen minutes, or for librdkafka's, a minute. So
//! idle connections are probed, and what was sent has to be acknowledged by the other host (not by the broker, which may
//! take its time) within seconds. librdkafka has no settings for that, but lets a program make its sockets.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::time::Duration;

use rdkafka::bindings as rd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

/// How long what was sent, or a probe, may stay unacknowledged before the connection is given up. A network that works and
/// is merely slow acknowledges in a fraction of it. A client may find out by two or three connections one after
/// the other, since what it has lost on one it sends again on the next, and a job is to write again within ten seconds.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);
/// How long a connection is idle before it is probed.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// How long after each other probes are sent.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Lets a configuration's client make its sockets here.
///
/// # Safety
/// `conf` is valid and not yet used for a client.
pub(super) unsafe fn install(conf: *mut rd::rd_kafka_conf_t) {
    // SAFETY: `conf` is valid, and the function matches the declared type.
    unsafe { rd::rd_kafka_conf_set_socket_cb(conf, Some(make)) };
}

/// As librdkafka's own, with time-outs. The type is always a stream, over TCP.
unsafe extern "C" fn make(domain: c_int, _type: c_int, _protocol: c_int, _opaque: *mut c_void) -> c_int {
    // The error of a socket that cannot be made is left in `errno`, where librdkafka looks for it.
    u16::try_from(domain).ok().and_then(open).map_or(-1, OwnedFd::into_raw_fd)
}

fn open(domain: u16) -> Option<OwnedFd> {
    let family = AddressFamily::from_raw(domain);
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()?;
    // A system that does not know an option leaves its own time-outs; whether a connection is probed at all is for
    // `socket.keepalive.enable` to say.
    let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(&socket, millis);
    let _ = sockopt::set_tcp_keepidle(&socket, PROBE_AFTER);
    let _ = sockopt::set_tcp_keepintvl(&socket, PROBE_EVERY);
    let probes = UNACKNOWLEDGED.as_secs() / PROBE_EVERY.as_secs();
    let _ = sockopt::set_tcp_keepcnt(&socket, u32::try_from(probes).unwrap_or(u32::MAX));
    Some(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_socket_gives_up_a_peer_that_does_not_answer() {
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            let socket = open(family.as_raw()).unwrap();
            assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 3000);
            assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(1));
        }
    }
}
