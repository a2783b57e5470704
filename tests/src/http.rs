//! What a copy serves by HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The status and the body of an answer.
///
/// # Errors
/// Nobody answers there.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    get_over(TcpStream::connect(address)?, path)
}

/// As [`get`], over this connection.
///
/// # Errors
/// It breaks.
pub fn get_over(mut connection: TcpStream, path: &str) -> std::io::Result<(u16, String)> {
    let address = connection.peer_addr()?;
    write!(connection, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok((status, answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned()))
}

/// An address of this host at which nobody listens.
///
/// # Errors
/// The host has no more ports.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
