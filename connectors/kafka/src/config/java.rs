//! Settings of Java's clients in librdkafka's words, or the reason why there are none.

use std::collections::BTreeMap;

/// A setting, and why it cannot be used.
type Refused = (String, String);

/// Settings that only say how Java is to do something; without them a client is let in all the same.
const OF_JAVA_ALONE: [&str; 9] = [
    "ssl.protocol",
    "ssl.provider",
    "ssl.keymanager.algorithm",
    "ssl.trustmanager.algorithm",
    "ssl.secure.random.implementation",
    "ssl.truststore.password",
    "ssl.enabled.protocols",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
];

/// What a store of keys or certificates is, by its first bytes: Java goes by them too, whatever `ssl.….type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Pem,
    Pkcs12,
    Jks,
}

/// The settings by librdkafka's names. What is not known to differ stays as it is.
///
/// # Errors
/// The first setting that has no counterpart, with what to write instead.
pub(super) fn translate(lines: Vec<(String, String)>) -> Result<Vec<(String, String)>, Refused> {
    // The last of a name counts.
    let given: BTreeMap<String, String> = lines.into_iter().collect();
    let mut out = BTreeMap::new();
    for (name, value) in &given {
        let refuse = |why: String| (name.clone(), why);
        let mut put = |name: &str, value: &str| {
            // A setting of librdkafka's own name counts for more than what is translated.
            if !given.contains_key(name) || value.is_empty() {
                out.insert(name.to_owned(), value.to_owned());
            }
        };
        match name.as_str() {
            "metadata.broker.list" => put("bootstrap.servers", value),
            "sasl.jaas.config" => {
                for (name, value) in jaas(value).map_err(refuse)? {
                    put(name, &value);
                }
            }
            "ssl.truststore.location" => match kind_of(value).map_err(refuse)? {
                Store::Pem => put("ssl.ca.location", value),
                Store::Pkcs12 | Store::Jks => {
                    return Err(refuse(format!(
                        "librdkafka reads trusted certificates only as PEM: convert them with `keytool -list -rfc \
                         -keystore {value} > ca.pem`, and set ssl.ca.location=ca.pem"
                    )));
                }
            },
            "ssl.truststore.certificates" => put("ssl.ca.pem", value),
            // An own name of librdkafka's, too, which takes no PEM.
            "ssl.keystore.location" => match kind_of(value).map_err(refuse)? {
                Store::Pkcs12 => {
                    out.insert(name.clone(), value.clone());
                }
                Store::Pem => {
                    put("ssl.certificate.location", value);
                    put("ssl.key.location", value);
                }
                Store::Jks => {
                    return Err(refuse(format!(
                        "librdkafka does not read JKS: convert the file with `keytool -importkeystore -srckeystore \
                         {value} -destkeystore client.p12 -deststoretype PKCS12`, and set \
                         ssl.keystore.location=client.p12"
                    )));
                }
            },
            "ssl.keystore.key" => put("ssl.key.pem", value),
            "ssl.keystore.certificate.chain" => put("ssl.certificate.pem", value),
            // Java's empty value is librdkafka's `none`.
            "ssl.endpoint.identification.algorithm" if value.is_empty() => {
                out.insert(name.clone(), "none".to_owned());
            }
            "ssl.truststore.type" | "ssl.keystore.type" => {}
            _ if OF_JAVA_ALONE.contains(&name.as_str()) => {}
            _ => {
                out.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(out.into_iter().collect())
}

fn kind_of(path: &str) -> Result<Store, String> {
    let bytes = std::fs::read(path).map_err(|why| format!("{path} cannot be read: {why}"))?;
    if bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) {
        Ok(Store::Jks)
    } else if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        Ok(Store::Pem)
    } else if bytes.starts_with(&[0x30]) {
        Ok(Store::Pkcs12)
    } else {
        Err(format!("{path} is neither PEM nor PKCS#12 nor JKS"))
    }
}

/// What a line of JAAS says: `module.Class required name="value" …;`. No part of it goes into an error but the class.
fn jaas(text: &str) -> Result<Vec<(&'static str, String)>, String> {
    let (class, rest) = text.trim().split_once(char::is_whitespace).ok_or("it contains no login module")?;
    let options = options_of(rest)?;
    let option = |name: &str| options.get(name).cloned();
    let class = class.rsplit('.').next().unwrap_or(class);
    match class {
        "PlainLoginModule" | "ScramLoginModule" => {
            if option("tokenauth").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                return Err("librdkafka does not support delegation tokens (tokenauth)".to_owned());
            }
            let (Some(user), Some(password)) = (option("username"), option("password")) else {
                return Err(format!("{class} has no username or no password"));
            };
            Ok(vec![("sasl.username", user), ("sasl.password", password)])
        }
        "OAuthBearerLoginModule" => {
            if option("clientId").is_some() {
                return Err(
                    "Fluvial does not fetch tokens from an OAuth provider: let another program write them to a file, \
                     and set sasl.oauthbearer.token.endpoint.url=file:///…"
                        .to_owned(),
                );
            }
            let Some(principal) = option("unsecuredLoginStringClaim_sub") else { return Ok(Vec::new()) };
            if principal.contains(char::is_whitespace) {
                return Err("librdkafka accepts no blank in unsecuredLoginStringClaim_sub".to_owned());
            }
            Ok(vec![
                ("enable.sasl.oauthbearer.unsecure.jwt", "true".to_owned()),
                ("sasl.oauthbearer.config", format!("principal={principal}")),
            ])
        }
        _ => Err(format!(
            "the login module {class} has no counterpart in librdkafka, which has PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 \
             and OAUTHBEARER (sasl.mechanism with sasl.username and sasl.password, or \
             sasl.oauthbearer.token.endpoint.url=file:///…)"
        )),
    }
}

/// The options behind the module's control flag, as `name=value` or `name="value"`, up to a semicolon.
fn options_of(text: &str) -> Result<BTreeMap<String, String>, String> {
    let text = text.trim_start();
    let flag = text.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(text.len());
    let mut rest = text[flag..].trim_start();
    let mut options = BTreeMap::new();
    while !rest.is_empty() && !rest.starts_with(';') {
        let (name, behind) = rest.split_once('=').ok_or("an option of the login module has no value")?;
        let behind = behind.trim_start();
        let mut value = String::new();
        let quote = behind.chars().next().filter(|c| matches!(c, '"' | '\''));
        let mut chars = behind.char_indices().skip(usize::from(quote.is_some()));
        let end = loop {
            match chars.next() {
                None if quote.is_some() => return Err("a quote in the login module's options has no end".to_owned()),
                None => break behind.len(),
                Some((at, c)) if Some(c) == quote => break at + 1,
                Some((at, c)) if quote.is_none() && (c.is_whitespace() || c == ';') => break at,
                Some((_, '\\')) if quote.is_some() => value.extend(chars.next().map(|(_, c)| c)),
                Some((_, c)) => value.push(c),
            }
        };
        options.insert(name.trim().to_owned(), value);
        rest = behind[end..].trim_start();
    }
    Ok(options)
}
