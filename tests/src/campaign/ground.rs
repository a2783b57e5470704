//! Where sieges are laid: one server of Apache Kafka behind a proxy, or three; they may be stopped, killed and brought back.

use std::ffi::OsString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::Plan;
use crate::apache::secured::{Listener, USER};
use crate::apache::{ApacheKafka, Options, SURVIVES_A_KILL};
use crate::client::Endpoint;
use crate::proxy::Proxy;
use crate::subject::Subject;

/// Brokers that tests reach directly, and jobs through a proxy if there is one broker alone.
#[derive(Debug)]
pub struct Ground {
    // Dropped first: nothing leads to a broker that is gone.
    proxy: Option<Proxy>,
    kafka: Mutex<ApacheKafka>,
    /// Whose turn it is to be stopped or killed.
    next: AtomicUsize,
    endpoint: Endpoint,
    /// Where jobs find the brokers, and what they are told besides.
    jobs_see: String,
    job_options: Vec<OsString>,
    survives_a_kill: bool,
}

impl Ground {
    /// Starts one broker, in this version of Apache Kafka, and the proxy.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`].
    pub fn new(version: &str) -> Result<Self> {
        let proxy = Proxy::start()?;
        let options = Options { version: version.to_owned(), proxy: Some(proxy.port()), ..Options::default() };
        let kafka = ApacheKafka::start(&options)?;
        proxy.lead_to(kafka.behind_proxy());
        Ok(Self::on(kafka, Some(proxy), version))
    }

    /// Starts three brokers, which hold each partition three times and are stopped and killed in turn. There is no proxy,
    /// so that nothing is done to single requests.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`].
    pub fn of_three(version: &str) -> Result<Self> {
        let options = Options { brokers: 3, version: version.to_owned(), heap_mib: 512, ..Options::default() };
        Ok(Self::on(ApacheKafka::start(&options)?, None, version))
    }

    /// Starts one broker or three that jobs reach by SASL over TLS, as a user who may do what the job has to. There is no
    /// proxy.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`].
    pub fn secured(brokers: usize, version: &str) -> Result<Self> {
        let options =
            Options { brokers, version: version.to_owned(), heap_mib: 512, secured: true, ..Options::default() };
        let kafka = ApacheKafka::start(&options)?;
        for subject in [Subject::Orders, Subject::Bank] {
            kafka.allow(subject.binary())?;
        }
        let file = kafka.client_properties(USER)?;
        let jobs_see = kafka.at(Listener::SaslTls).to_owned();
        let job_options = vec!["--kafka-config".into(), file.into()];
        Ok(Self { jobs_see, job_options, ..Self::on(kafka, None, version) })
    }

    fn on(kafka: ApacheKafka, proxy: Option<Proxy>, version: &str) -> Self {
        let endpoint = Endpoint::new(kafka.bootstrap());
        let jobs_see = proxy.as_ref().map_or_else(|| endpoint.bootstrap().to_owned(), Proxy::bootstrap);
        let survives_a_kill = version == SURVIVES_A_KILL;
        let (kafka, next, job_options) = (Mutex::new(kafka), AtomicUsize::new(0), Vec::new());
        Self { proxy, kafka, next, endpoint, jobs_see, job_options, survives_a_kill }
    }

    /// A plan that the brokers survive: they are stopped well wherever they would be killed, if their version forgets
    /// transactions then. Without a proxy, requests are left alone, and brokers restarted instead.
    #[must_use]
    pub fn fit(&self, plan: Plan) -> Plan {
        let plan = if self.proxy.is_some() { plan } else { plan.sparing_requests() };
        if self.survives_a_kill { plan } else { plan.sparing_the_broker() }
    }

    /// Where jobs find the brokers.
    #[must_use]
    pub fn jobs_see(&self) -> &str {
        &self.jobs_see
    }

    /// What jobs are told so that the brokers let them in.
    #[must_use]
    pub fn job_options(&self) -> &[OsString] {
        &self.job_options
    }

    /// The broker as the harness reaches it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What stands between the one broker and the jobs.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// Stops the broker whose turn it is as an operator does, starts it again, and waits until its replicas have caught up.
    ///
    /// # Errors
    /// As [`ApacheKafka::restart`].
    pub fn restart_a_broker(&self) -> Result<()> {
        self.take_down(ApacheKafka::stop_server)
    }

    /// `kill -9` of the broker whose turn it is, which is then started again; waits until its replicas have caught up.
    ///
    /// # Errors
    /// As [`ApacheKafka::kill`] and [`ApacheKafka::start_server`].
    pub fn kill_a_broker(&self) -> Result<()> {
        self.take_down(ApacheKafka::kill)
    }

    fn take_down(&self, how: impl Fn(&mut ApacheKafka, usize) -> Result<()>) -> Result<()> {
        let mut kafka = self.kafka();
        let index = self.next.fetch_add(1, Ordering::Relaxed) % kafka.servers();
        how(&mut kafka, index)?;
        kafka.start_server(index)?;
        self.endpoint.wait_until_in_sync()
    }

    fn kafka(&self) -> MutexGuard<'_, ApacheKafka> {
        self.kafka.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
