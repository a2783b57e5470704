//! Object stores by URL: opening, checking, sorting failures, counting requests.
//!
//! ```text
//!   --store URL ──► Location ──► Store ──► object_store ──► HttpClient: counts, bounds the time, sorts refusals ──► network
//! ```
//!
//! **Owns** what a user writes after `--store`, how each kind of store is reached, what a failure of it means
//! ([`Trouble`]), and what requests cost ([`cost`]). **Guarantees** that a request to a store on the network ends in bounded
//! time, and that no message holds a credential. **Does not** know what is stored ([`frame`] is how small objects begin), and hardly retries: a call that failed may
//! have had its effect, so the callers first read what exists.
//!
//! # What a store must do
//!
//! | a store must | because |
//! | --- | --- |
//! | create an object only if its name is free, also when two clients try at the same time | this decides which generation goes on |
//! | show an object to every reader as soon as its creation is acknowledged | an opening reads the journal that another host has written |
//! | keep what it has acknowledged | a sealed tick is never computed from other input again |
//!
//! Local folders, Amazon S3, Google Cloud Storage and Azure Blob Storage do all three. Stores that speak S3's protocol differ in the
//! first: some accept the condition (`If-None-Match: *`) and ignore it. [`Store::probe`] finds these, and a job refuses them.
//! A LIST may come in any order and in pages.
//!
//! # Credentials
//!
//! They come from where `object_store` looks, and never from the URL: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`
//! (`AWS_SESSION_TOKEN`), a web identity (`AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`, as in Kubernetes), a container's or an
//! instance's metadata; `GOOGLE_APPLICATION_CREDENTIALS`; `AZURE_STORAGE_ACCOUNT_NAME` with a key or an identity. Profile files
//! (`~/.aws`) are not read. `AWS_REGION` names the region; `AWS_ENDPOINT_URL`, and `AWS_ALLOW_HTTP=true` for one without TLS,
//! lead to a store that is not Amazon's.
//!
//! The tests run on folders and on S3's protocol. `gs://` and `az://` use the same code of `object_store`. On `az://` one test
//! kills and restores a job, with Azurite; `gs://` is untested: the emulators that were tried (fake-gcs-server,
//! gcp-storage-emulator) do not have the requests by which `object_store` writes.

mod beneath;
pub mod cost;
mod files;
pub mod frame;
mod http;
mod location;
mod objects;
mod probe;
mod store;
mod trouble;

pub use beneath::{Beneath, Owner};
pub use location::{Cloud, Location, LocationError};
pub use objects::Created;
pub use store::Store;
pub use trouble::Trouble;
