//! Why a cluster does not let a client in, in words that say what to change.
//!
//! librdkafka names the function of OpenSSL that failed, or says that a broker has closed the connection. What that
//! means for the settings is said here.

/// What OpenSSL has against the certificate of a broker, by its `X509_V_ERR_…`.
pub(crate) fn why_not_trusted(error: i32, broker: &str) -> String {
    let why = match error {
        9 => "is not valid yet: compare the clocks of the hosts",
        10 => "has expired: the broker needs a new one",
        18..=21 => {
            "is signed by an authority that this client does not trust: set ssl.ca.location to the authority's \
             certificate (PEM)"
        }
        23 => "was revoked",
        62 | 64 => {
            "is for another host: use the name in it with --brokers and the broker's advertised.listeners, or \
             ssl.endpoint.identification.algorithm=none to trust any host of that authority"
        }
        _ => return format!("the certificate of broker {broker} is not trusted: OpenSSL's verification error {error}"),
    };
    format!("the certificate of broker {broker} {why}")
}

/// The reason with what to change, where that is known.
pub(crate) fn explained(reason: &str, cause: Option<&str>) -> String {
    match cause {
        Some(cause) => format!("{cause} (librdkafka: {reason})"),
        None => reason.to_owned(),
    }
}

const EXPECTS_TLS: &str = "the broker closed the connection at the first request, which a port that expects TLS \
     does: check that security.protocol is ssl or sasl_ssl";
const EXPECTS_NO_TLS: &str = "the broker closed the connection during the TLS handshake, which a port without TLS \
     does: check that security.protocol is plaintext or sasl_plaintext, or use the port for TLS";
const EXPECTS_SASL: &str = "the broker closed the connection at the first request, which a port that expects SASL \
     does: check that security.protocol is sasl_ssl or sasl_plaintext";
const EXPECTS_A_CERTIFICATE: &str = "the broker requires a client certificate that it trusts and that has not \
     expired: set ssl.certificate.location and ssl.key.location, or ssl.keystore.location";

/// For how long a connection that a port of another protocol closes has been in its state, milliseconds, at most.
const EARLY_MS: u64 = 2000;

/// What it means that a broker has closed a connection of this protocol, if it did so at the first request; `failed` is
/// librdkafka's log line, which ends with `(after 3ms in state UP)`.
fn closed_early(failed: &str, protocol: &str) -> Option<&'static str> {
    let (failed, state) = failed.rsplit_once("(after ")?;
    let (ms, state) = state.split_once("ms in state ")?;
    if !(failed.contains("Disconnected") || failed.contains("Send failed")) || ms.parse::<u64>().ok()? > EARLY_MS {
        return None;
    }
    let (sasl, tls) = (protocol.starts_with("sasl"), protocol.ends_with("ssl"));
    if state.starts_with("APIVERSION_QUERY") {
        Some(if tls { EXPECTS_A_CERTIFICATE } else { EXPECTS_TLS })
    } else if state.starts_with("UP") && !sasl {
        Some(EXPECTS_SASL)
    } else {
        None
    }
}

/// What an error means whose text holds an answer of a broker that expects, or does not expect, TLS, SASL or a certificate.
pub(crate) fn cause(reason: &str) -> Option<&'static str> {
    // Signs in librdkafka's and OpenSSL's words. A broker that expects TLS may send an alert, whose bytes librdkafka takes for
    // the length of an answer.
    of_signs(
        reason,
        &[
            (&["Invalid response size 3525"], EXPECTS_TLS),
            (&["wrong version number"], EXPECTS_NO_TLS),
            (
                &["Request not valid in current SASL state"],
                "the port does not use SASL: check that security.protocol is ssl or plaintext, or use the port for SASL",
            ),
            (
                &[
                    "certificate required",
                    "alert bad certificate",
                    "alert unknown ca",
                    "alert certificate unknown",
                    "alert certificate expired",
                ],
                EXPECTS_A_CERTIFICATE,
            ),
        ],
    )
}

/// What it may mean that a broker has closed a connection, which is all that `failed` says: a broker that is sent what it does
/// not expect does so, but also one that is ending or has just started.
pub(crate) fn guess(failed: &str, protocol: &str) -> Option<&'static str> {
    // librdkafka says so of every second connection or so that is closed before TLS.
    if failed.contains("SSL connection closed by peer") && failed.contains("in state SSL_HANDSHAKE") {
        return Some(EXPECTS_NO_TLS);
    }
    let guessed = of_signs(
        failed,
        &[
            (&["connecting to a SSL listener?"], EXPECTS_TLS),
            (&["connecting to a PLAINTEXT broker listener?", "unexpected eof while reading"], EXPECTS_NO_TLS),
            (&["broker might require SASL authentication"], EXPECTS_SASL),
            // The second comes after a TLS handshake; without TLS librdkafka says something else.
            (
                &["client SSL authentication might be required", "might be caused by broker version"],
                EXPECTS_A_CERTIFICATE,
            ),
        ],
    );
    closed_early(failed, protocol).or(guessed)
}

fn of_signs(reason: &str, causes: &[(&[&str], &'static str)]) -> Option<&'static str> {
    causes.iter().find(|(signs, _)| signs.iter().any(|sign| reason.contains(sign))).map(|(_, cause)| *cause)
}

/// What librdkafka adds to its words on a connection that was closed.
const GUESSES: [&str; 4] = [
    ": requesting ApiVersion: might be caused by",
    ": verify that security.protocol is correctly configured",
    ": connecting to a PLAINTEXT broker listener?",
    ": client SSL authentication might be required",
];

/// The reason without what librdkafka guesses of the settings.
pub(crate) fn without_guess(reason: &str) -> String {
    let Some(begin) = GUESSES.iter().find_map(|guess| reason.find(guess)) else { return reason.to_owned() };
    // How long the connection lasted, and in which state, comes last.
    let end = reason.rfind(" (after ").filter(|end| *end > begin).unwrap_or(reason.len());
    format!("{}{}", &reason[..begin], &reason[end..])
}

/// What to do where librdkafka says that it was built without something.
pub(crate) fn missing_in_this_build(reason: &str) -> &'static str {
    if reason.contains("libcurl") {
        " (Fluvial does not fetch tokens over HTTP: let another program write the token to a file, and set \
         sasl.oauthbearer.token.endpoint.url=file:///PATH)"
    } else if !cfg!(feature = "tls") && reason.to_lowercase().contains("openssl") {
        " (Fluvial was built without TLS, SCRAM and OAUTHBEARER: build the job with the feature `tls` of fluvial-kafka, \
         which needs the packages libssl-dev and pkg-config; in its Cargo.toml: fluvial-kafka = { …, features = [\"tls\"] })"
    } else if reason.contains("SASL mechanism GSSAPI:") {
        " (sasl.mechanism is not set, and Kafka's default, GSSAPI, is not supported: set PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 \
         or OAUTHBEARER)"
    } else if reason.contains("No provider for SASL mechanism") || reason.contains("Unsupported SASL mechanism") {
        " (known are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_closed_at_once_tells_which_protocol_the_port_expects() {
        let closed = |state: &str| format!("b:1/bootstrap: Disconnected: connection closed by peer (after {state})");
        for (state, protocol, expected) in [
            ("0ms in state APIVERSION_QUERY", "plaintext", Some(EXPECTS_TLS)),
            ("0ms in state APIVERSION_QUERY, 3 identical error(s) suppressed", "sasl_plaintext", Some(EXPECTS_TLS)),
            ("5ms in state APIVERSION_QUERY", "sasl_ssl", Some(EXPECTS_A_CERTIFICATE)),
            ("5ms in state UP", "plaintext", Some(EXPECTS_SASL)),
            ("5ms in state UP", "ssl", Some(EXPECTS_SASL)),
            ("5ms in state UP", "sasl_ssl", None),
            ("5000ms in state UP", "plaintext", None),
        ] {
            assert_eq!(closed_early(&closed(state), protocol), expected, "{state} {protocol}");
        }
        // The request was on its way when the broker closed the connection.
        let sent = "b:1/bootstrap: Send failed: Broken pipe (after 13ms in state UP)";
        assert_eq!(closed_early(sent, "plaintext"), Some(EXPECTS_SASL));
        let refused =
            "b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        assert_eq!(closed_early(refused, "plaintext"), None);
    }

    #[test]
    fn every_way_to_be_closed_during_a_tls_handshake_tells_that_the_port_expects_none() {
        for said in [
            "ssl://b:1/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT \
             broker listener? (after 12ms in state SSL_HANDSHAKE)",
            "ssl://b:1/bootstrap: Disconnected: SSL connection closed by peer (after 1ms in state SSL_HANDSHAKE)",
        ] {
            assert_eq!(guess(said, "ssl"), Some(EXPECTS_NO_TLS), "{said}");
        }
        assert_eq!(
            guess("ssl://b:1/1: Disconnected: SSL connection closed by peer (after 60000ms in state UP)", "ssl"),
            None
        );
    }
}
