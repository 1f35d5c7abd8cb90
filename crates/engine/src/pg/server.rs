//! Where the server is, who we are there, and how its certificate is verified.

use std::{net::IpAddr, time::Duration};

use native_tls::{Certificate, TlsConnector};
use postgres_native_tls::MakeTlsConnector;
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use super::{Connection, failure};
use crate::failure::{Class, Failure};

/// Which authorities may sign the server's certificate.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Those that the system trusts.
    #[default]
    System,
    /// Those in this PEM text, and no others.
    Only(Vec<u8>),
}

/// The longest that connecting, TLS and log-in take. The driver's own limit ends with TCP's handshake: a peer that is silent after it was waited
/// for until the server's `authentication_timeout`, or for ever.
const LONGEST_LOG_IN: Duration = Duration::from_secs(15);

/// A server to connect to.
#[derive(Clone)]
pub struct Server {
    config: Config,
    tls: Option<MakeTlsConnector>,
    idle_limit: Option<Duration>,
}

impl Server {
    /// A server, with TLS verified (chain and host name) unless all its hosts are sockets or loopback addresses.
    ///
    /// # Errors
    /// When the configuration asks for no TLS elsewhere, or the trusted certificates can't be read.
    pub fn new(mut config: Config, trust: &Trust) -> Result<Self, Failure> {
        if config.get_dbname().is_none() && config.get_user().is_none() {
            return Err(Failure::new(
                Class::Configuration,
                "no user and no database to connect to: set DATABASE_URL or PGUSER and PGDATABASE",
            ));
        }
        let local = is_local(&config);
        let tls = match config.get_ssl_mode() {
            SslMode::Disable if !local => {
                return Err(Failure::new(
                    Class::Configuration,
                    "sslmode=disable is for sockets and loopback addresses: take it out, the connection is then encrypted and verified",
                ));
            }
            SslMode::Disable => None,
            SslMode::Prefer if local => None,
            _ => Some(connector(trust)?),
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config.connect_timeout(Duration::from_secs(10));
        // A peer that vanished without a word is noticed in less than half a minute.
        config
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_secs(20));
        Ok(Self { config, tls, idle_limit: None })
    }

    /// The same server, with sessions that the server ends when they were idle for so long (frozen sandboxes keep theirs open).
    #[must_use]
    pub fn with_idle_limit(mut self, limit: Duration) -> Self {
        self.idle_limit = Some(limit);
        self
    }

    /// Opens a session, named in `pg_stat_activity`.
    ///
    /// # Errors
    /// When the server can't be reached, refuses, or is older than PostgreSQL 14.
    pub async fn connect(&self, application_name: &str) -> Result<Connection, Failure> {
        let mut config = self.config.clone();
        config.application_name(application_name);
        let connected = async {
            let connection = match &self.tls {
                Some(tls) => Connection::start(config.connect(tls.clone()).await),
                None => Connection::start(config.connect(tokio_postgres::NoTls).await),
            };
            let connection = connection.map_err(|error| self.cannot_connect(failure(&error)))?;
            connection.prepare_session(self.idle_limit).await?;
            Ok(connection)
        };
        match tokio::time::timeout(LONGEST_LOG_IN, connected).await {
            Ok(connected) => connected,
            Err(_) => Err(self.cannot_connect(Failure::new(
                Class::ConnectionLost,
                format!("no log-in within {} s", LONGEST_LOG_IN.as_secs()),
            ))),
        }
    }

    fn cannot_connect(&self, failure: Failure) -> Failure {
        failure.while_doing(&format!("cannot connect to {self}"))
    }
}

/// Host, port and database; never the password.
impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.config.get_hosts().first().map_or_else(|| "localhost".to_owned(), host_text);
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        write!(f, "{host}:{port}/{database}")
    }
}

fn host_text(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

fn is_local(config: &Config) -> bool {
    let addresses_local = config.get_hostaddrs().iter().all(IpAddr::is_loopback);
    let hosts_local = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    });
    addresses_local && hosts_local
}

fn connector(trust: &Trust) -> Result<MakeTlsConnector, Failure> {
    let bad = |error: native_tls::Error| {
        Failure::new(Class::Configuration, format!("the trusted certificates can't be used: {error}"))
    };
    let mut builder = TlsConnector::builder();
    if let Trust::Only(pem) = trust {
        builder.disable_built_in_roots(true);
        for certificate in Certificate::stack_from_pem(pem).map_err(bad)? {
            builder.add_root_certificate(certificate);
        }
    }
    Ok(MakeTlsConnector::new(builder.build().map_err(bad)?))
}
