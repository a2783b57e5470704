//! Where sieges are laid: Apache Kafka behind a proxy, which may be taken away and brought back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::Plan;
use crate::apache::{ApacheKafka, Options, SURVIVES_A_KILL};
use crate::client::Endpoint;
use crate::proxy::Proxy;

/// A broker that jobs reach through a proxy, and tests directly.
#[derive(Debug)]
pub struct Ground {
    // Dropped first: nothing leads to a broker that is gone.
    proxy: Proxy,
    kafka: Mutex<ApacheKafka>,
    endpoint: Endpoint,
    survives_a_kill: bool,
}

impl Ground {
    /// Starts the broker, in this version of Apache Kafka, and the proxy.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`].
    pub fn new(version: &str) -> Result<Self> {
        let proxy = Proxy::start()?;
        let options = Options { version: version.to_owned(), proxy: Some(proxy.port()), ..Options::default() };
        let kafka = ApacheKafka::start(&options)?;
        proxy.lead_to(kafka.behind_proxy());
        let endpoint = Endpoint::new(kafka.bootstrap());
        Ok(Self { proxy, kafka: Mutex::new(kafka), endpoint, survives_a_kill: version == SURVIVES_A_KILL })
    }

    /// A plan that the broker survives: it is stopped well wherever it would be killed, if its version forgets
    /// transactions then.
    #[must_use]
    pub fn fit(&self, plan: Plan) -> Plan {
        if self.survives_a_kill { plan } else { plan.sparing_the_broker() }
    }

    /// The broker as the harness reaches it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What stands between it and the jobs.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Stops the broker as an operator does, and starts it again.
    ///
    /// # Errors
    /// As [`ApacheKafka::restart`].
    pub fn restart_the_broker(&self) -> Result<()> {
        self.kafka().restart()
    }

    /// `kill -9` of the broker, which is then started again.
    ///
    /// # Errors
    /// As [`ApacheKafka::kill`] and [`ApacheKafka::start_again`].
    pub fn kill_the_broker(&self) -> Result<()> {
        let mut kafka = self.kafka();
        kafka.kill(0)?;
        kafka.start_again()
    }

    fn kafka(&self) -> MutexGuard<'_, ApacheKafka> {
        self.kafka.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
