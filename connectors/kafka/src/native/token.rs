//! Tokens for SASL/OAUTHBEARER from a file that another program renews.
//!
//! librdkafka asks for a token when a client is made, and again after 80 % of its life; each time the file is read.
//! A JSON Web Token says itself how long it lives; any other text is read again within a minute. A file that holds no
//! token that is valid is read again after ten seconds.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::ptr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use rdkafka::bindings as rd;
use serde::Deserialize;

use super::watch::Watch;
use super::{Code, c_string, text};

/// How long a token counts as valid that does not say so.
const UNKNOWN: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Token {
    value: String,
    principal: String,
    expires_ms: i64,
}

/// What is read of a token's claims.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
}

/// Called by librdkafka, on a thread of its own, when a client needs a token.
pub(super) unsafe extern "C" fn refresh(rk: *mut rd::rd_kafka_t, _config: *const c_char, watch: *mut c_void) {
    // SAFETY: the opaque is the client's watch, which outlives it.
    let watch = unsafe { &*watch.cast::<Watch>() };
    let Some(path) = watch.token_file() else { return };
    let failed = match read(path, SystemTime::now()) {
        Ok(token) => set(rk, &token).err(),
        Err(why) => Some(why),
    };
    if let Some(why) = failed {
        let why = c_string(&format!("{}: {why}", path.display()));
        // SAFETY: the client is valid and the text ends with a zero byte.
        unsafe { rd::rd_kafka_oauthbearer_set_token_failure(rk, why.as_ptr()) };
    }
}

fn set(rk: *mut rd::rd_kafka_t, token: &Token) -> Result<(), String> {
    let (value, principal) = (c_string(&token.value), c_string(&token.principal));
    let mut reason = [0 as c_char; 512];
    // SAFETY: the client is valid, the texts end with a zero byte, and the buffer has the size that is said.
    unsafe {
        let result = rd::rd_kafka_oauthbearer_set_token(
            rk,
            value.as_ptr(),
            token.expires_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            reason.as_mut_ptr(),
            reason.len(),
        );
        match Code::from(result) {
            Code::NoError => Ok(()),
            _ => Err(text(reason.as_ptr())),
        }
    }
}

/// Reads the token of a file.
///
/// # Errors
/// The reason, in which no part of the token is.
fn read(path: &Path, now: SystemTime) -> Result<Token, String> {
    let value = std::fs::read_to_string(path).map_err(|why| format!("the file cannot be read: {why}"))?;
    let value = value.trim();
    if value.is_empty() {
        return Err("the file holds no token".to_owned());
    }
    let now_ms = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let claims = claims(value).unwrap_or(Claims { sub: None, exp: None });
    let expires_ms = match claims.exp {
        Some(seconds) => (seconds * 1000.0) as i64,
        None => now_ms + UNKNOWN.as_millis() as i64,
    };
    if expires_ms <= now_ms {
        return Err("the token in the file has expired".to_owned());
    }
    Ok(Token { value: value.to_owned(), principal: claims.sub.unwrap_or_else(|| "unknown".to_owned()), expires_ms })
}

/// The claims of a JSON Web Token.
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_says_how_long_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let read_at = |text: &str, seconds| {
            std::fs::write(&file, text).unwrap();
            read(&file, at(seconds)).map(|token| (token.value, token.principal, token.expires_ms))
        };
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"sub":"job","exp":1000,"iat":1}"#);
        let token = format!("e30.{claims}.sig");
        assert_eq!(read_at(&format!("{token}\n"), 999), Ok((token.clone(), "job".to_owned(), 1_000_000)));
        assert_eq!(read_at(&token, 1000), Err("the token in the file has expired".to_owned()));
        assert_eq!(read_at("opaque", 5), Ok(("opaque".to_owned(), "unknown".to_owned(), 65_000)));
        assert_eq!(read_at(" \n", 5), Err("the file holds no token".to_owned()));
        assert!(read(Path::new("/no/such/token"), at(5)).unwrap_err().contains("cannot be read"));
    }
}
