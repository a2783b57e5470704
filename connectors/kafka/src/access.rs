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
            "is signed by an authority that is not trusted here: name the authority's certificate (PEM) as ssl.ca.location"
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

/// Whether a connection ended as it does where one side expects TLS or SASL and the other does not.
pub(crate) fn hints_at_the_protocol(reason: &str) -> bool {
    cause(reason).is_some()
}

/// The reason with what to change, where that is known.
pub(crate) fn explained(reason: &str) -> String {
    match cause(reason) {
        Some(cause) => format!("{cause} (librdkafka: {reason})"),
        None => reason.to_owned(),
    }
}

fn cause(reason: &str) -> Option<&'static str> {
    // Signs in librdkafka's and OpenSSL's words. A broker that is sent what it does not expect closes the connection; one
    // that expects TLS may send an alert first, whose bytes librdkafka takes for the length of an answer.
    let causes: [(&[&str], &str); 5] = [
        (
            &["connecting to a SSL listener?", "Invalid response size 3525"],
            "the connection was closed at the first request, as a port does that expects TLS: check that \
             security.protocol is ssl or sasl_ssl",
        ),
        (
            &["connecting to a PLAINTEXT broker listener?", "wrong version number", "unexpected eof while reading"],
            "the connection was closed during the TLS handshake, as a port does that expects no TLS: check that \
             security.protocol is plaintext or sasl_plaintext, or use the port for TLS",
        ),
        (
            &["broker might require SASL authentication"],
            "the connection was closed at the first request, as a port does that expects SASL: check that \
             security.protocol is sasl_ssl or sasl_plaintext",
        ),
        (
            &["Request not valid in current SASL state"],
            "the port expects no SASL: check that security.protocol is ssl or plaintext, or use the port for SASL",
        ),
        (
            &[
                "certificate required",
                "alert bad certificate",
                "alert unknown ca",
                "alert certificate unknown",
                "alert certificate expired",
                "client SSL authentication might be required",
                // After a TLS handshake; without TLS librdkafka says something else.
                "might be caused by broker version",
            ],
            "the broker asks for a certificate of this client that it trusts and that has not expired: name it as \
             ssl.certificate.location and ssl.key.location, or as ssl.keystore.location",
        ),
    ];
    causes.into_iter().find(|(signs, _)| signs.iter().any(|sign| reason.contains(sign))).map(|(_, cause)| cause)
}

/// What to do where librdkafka says that it was built without something.
pub(crate) fn missing_in_this_build(reason: &str) -> &'static str {
    if reason.contains("libcurl") {
        " (tokens are not fetched over HTTP: let a program keep one in a file, and name that as \
         sasl.oauthbearer.token.endpoint.url=file:///PATH)"
    } else if !cfg!(feature = "tls") && reason.to_lowercase().contains("openssl") {
        " (Fluvial was built without TLS, SCRAM and OAUTHBEARER: build the job with the feature `tls` of fluvial-kafka, \
         which needs the packages libssl-dev and pkg-config; in its Cargo.toml: fluvial-kafka = { …, features = [\"tls\"] })"
    } else if reason.contains("No provider for SASL mechanism") {
        " (known are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER)"
    } else {
        ""
    }
}
