//! Logging in to a cluster, its tokens, and the record of what was changed.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use fluvial_node::access::{AuditEntry, Role, TokenRecord, Tokens};
use fluvial_node::group::CLUSTER;
use fluvial_node::http::api::{CreatedToken, NewToken, Session};
use fluvial_node::trust::of_users;
use fluvial_store::Store;
use reqwest::Method;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use rustls::pki_types::CertificateDer;

use crate::client::Client;
use crate::connection::{Connection, ConnectionOptions, Security, is_token, tls, with_port};
use crate::contexts::{Context, Contexts};
use crate::jobs::{plain_table, show, text_of};

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in to a cluster: remember its address, its authority and a token for the commands that follow
    Login(LoginOptions),
    /// Forget a login
    Logout {
        /// The address of the login [default: the last one]
        #[arg(value_name = "HOST:PORT")]
        address: Option<String>,
    },
    /// Create, list and revoke the tokens by which users show who they are
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Print who has changed what, newest first
    Audit {
        /// How many entries
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a login needs.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginOptions {
    /// The address of a node's API
    #[arg(value_name = "HOST:PORT")]
    address: String,

    /// The token. Other users of this host can see it while the command runs: --token-file, the environment variable
    /// FLUVIAL_TOKEN, the prompt and standard input are safer
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,

    /// The SHA-256 of the certificate of the cluster's authority, which `fluvial cluster-key fingerprint` prints. Without it (and
    /// without --ca and --cluster-key-file) it is shown, and the login asks whether it is right
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["ca", "cluster_key_file"])]
    fingerprint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Create a token, and print it. It is shown this once
    Create {
        /// Its name, such as that of the person or program that gets it
        name: String,
        /// What its holder may do: read, or everything, which includes running programs on the nodes
        #[arg(long)]
        role: Role,
        /// After which time it expires, such as 30d [default: never]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        /// Write it into the store of the cluster instead of asking a node. This is how the first token is made where the nodes
        /// have certificates and no cluster key
        #[arg(long, value_name = "URL")]
        store: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the tokens
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token. Every node refuses it within ten seconds
    Revoke {
        /// Its name
        name: String,
    },
}

/// Runs a command.
pub(crate) fn run(connection: &ConnectionOptions, command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = || Client::new(connection.resolve()?);
    match command {
        Command::Login(options) => {
            let (address, context) = identify(connection, options)?;
            let session: Session = {
                let security = Security::Tls {
                    tls: Box::new(tls(&of_users::certificates(&context.authorities)?)?),
                    token: Some(context.token.clone()),
                };
                let client = Client::new(Connection { addr: address.clone(), security, pinned: None })?;
                runtime.block_on(client.get("session"))?
            };
            let mut contexts = Contexts::read()?;
            contexts.contexts.insert(address.clone(), context);
            contexts.current = Some(address.clone());
            contexts.write()?;
            println!("logged in to {address} as {}, {}", session.name, session.role);
        }
        Command::Logout { address } => {
            let mut contexts = Contexts::read()?;
            let address = address.as_deref().map(with_port).or_else(|| contexts.current.clone());
            let address = address.context("there is no login")?;
            ensure!(contexts.contexts.remove(&address).is_some(), "there is no login to {address}");
            contexts.current = contexts.current.filter(|current| *current != address);
            contexts.write()?;
            println!("forgot the login to {address}; its token is valid until it expires or is revoked");
        }
        Command::Tokens(TokensCommand::Create { name, role, expires, store, json }) => {
            let created = match store {
                Some(store) => {
                    let tokens = Tokens::new(Store::open(&store)?, CLUSTER);
                    let created = tokens.create(&name, role, expires, "who can write the store");
                    let (token, record) = runtime.block_on(created)?;
                    CreatedToken { token: token.to_text(), record }
                }
                None => {
                    let new = NewToken { name, role, expires_s: expires.map(|time| time.as_secs()) };
                    runtime.block_on(client()?.create("tokens", &new))?
                }
            };
            if json {
                println!("{}", serde_json::to_string_pretty(&created)?);
            } else {
                eprintln!("the token of '{}', which is not shown again:", created.record.name);
                println!("{}", created.token);
            }
        }
        Command::Tokens(TokensCommand::List { json }) => {
            let tokens: Vec<TokenRecord> = runtime.block_on(client()?.list("tokens"))?;
            show(json, &tokens, || table_of(&tokens))?;
        }
        Command::Tokens(TokensCommand::Revoke { name }) => {
            runtime.block_on(client()?.change_once(Method::DELETE, &format!("tokens/{name}")))?;
        }
        Command::Audit { limit, json } => {
            let entries: Vec<AuditEntry> = runtime.block_on(client()?.get(&format!("audit?limit={limit}")))?;
            show(json, &entries, || audit_table(&entries))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds out which cluster is at an address and which token is for it, without sending anything.
fn identify(connection: &ConnectionOptions, options: LoginOptions) -> anyhow::Result<(String, Context)> {
    let LoginOptions { address, token, fingerprint } = options;
    let address = with_port(&address);
    let authorities = match connection.authorities()? {
        Some(authorities) => authorities,
        None => vec![pin(&address, fingerprint.as_deref())?],
    };
    let token = match token {
        Some(token) => is_token(&token)?,
        None => match connection.given_token()? {
            Some(token) => token,
            None => is_token(&ask_for_token()?)?,
        },
    };
    Ok((address, Context { authorities: of_users::to_pem(&authorities), token }))
}

/// The authority of the cluster at an address, if it has this fingerprint, or if a person says that it is right.
fn pin(address: &str, expected: Option<&str>) -> anyhow::Result<CertificateDer<'static>> {
    let chain = of_users::look(address)
        .with_context(|| format!("no node of a cluster with a cluster key or certificates answers at {address}"))?;
    let authority = of_users::authority_of(&chain, address).with_context(|| {
        format!("the node at {address} does not show its authority: give that, in PEM format, by --ca")
    })?;
    let found = of_users::fingerprint(&authority);
    let Some(expected) = expected else {
        let compare =
            "compare it with what `fluvial cluster-key fingerprint --cluster-key-file KEY` prints where the key is";
        if !(stdin().is_terminal() && stderr().is_terminal()) {
            bail!(
                "the cluster at {address} has an authority with the fingerprint {found}: {compare}, and give it by \
                 --fingerprint. Nothing was sent"
            );
        }
        eprint!(
            "The cluster at {address} has an authority with the fingerprint\n\n  {found}\n\nPlease {compare}. Is it right? [y/N] "
        );
        stderr().flush()?;
        let mut answer = String::new();
        stdin().lock().read_line(&mut answer)?;
        ensure!(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()), "not logged in; nothing was sent");
        return Ok(authority);
    };
    let given: String = expected.chars().filter(|c| *c != ':').flat_map(char::to_lowercase).collect();
    ensure!(
        given == found,
        "the cluster at {address} has an authority with the fingerprint {found}, not {given}: it is another cluster, or somebody \
         pretends to be it. Nothing was sent"
    );
    Ok(authority)
}

/// Asks for a token on the terminal, where it is not shown, or reads a line of standard input.
fn ask_for_token() -> anyhow::Result<String> {
    let mut line = String::new();
    let input = stdin();
    if !input.is_terminal() {
        input.lock().read_line(&mut line)?;
        ensure!(!line.trim().is_empty(), "give a token by --token-file, FLUVIAL_TOKEN or standard input");
        return Ok(line);
    }
    eprint!("Token: ");
    stderr().flush()?;
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &silent)?;
    let read = input.lock().read_line(&mut line);
    tcsetattr(&input, OptionalActions::Flush, &before)?;
    eprintln!();
    read?;
    Ok(line)
}

fn time(ms: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    // A time far beyond all calendars cannot be written.
    let in_calendar = time.filter(|_| ms < 253_402_300_800_000);
    in_calendar.map_or("never".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

fn table_of(tokens: &[TokenRecord]) -> String {
    let mut table = plain_table();
    table.set_header(["TOKEN", "ROLE", "CREATED", "EXPIRES", "BY"]);
    for token in tokens {
        let TokenRecord { name, role, created_ms, expires_ms, by } = token;
        let expires = expires_ms.map_or("never".to_owned(), time);
        table.add_row([name.clone(), role.to_string(), time(*created_ms), expires, by.clone()]);
    }
    text_of(&table)
}

fn audit_table(entries: &[AuditEntry]) -> String {
    let mut table = plain_table();
    table.set_header(["TIME", "BY", "REQUEST", "STATUS", "NODE"]);
    for AuditEntry { at_ms, by, method, path, status, node } in entries {
        table.add_row([time(*at_ms), by.clone(), format!("{method} {path}"), status.to_string(), node.clone()]);
    }
    text_of(&table)
}
