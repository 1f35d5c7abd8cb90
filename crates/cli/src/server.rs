//! Where the server is: a URL or libpq's key words, the PG* variables, `~/.pgpass`, the local socket; in that order.

use std::{env, error::Error as _, fs, path::Path};

use stagemill_engine::{
    failure::{Class, Failure},
    ledger,
    pg::{Connection, Server, Trust},
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use crate::{
    args::ConnectArgs,
    exit::CliError,
    pgpass::{self, Login},
};

/// Options of libpq that have no meaning here: named in a message, because their names can't be a part of a password.
const NOT_TAKEN: [&str; 12] = [
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "passfile",
    "service",
    "gssencmode",
    "krbsrvname",
    "fallback_application_name",
    "requirepeer",
    "ssl_min_protocol_version",
    "require_auth",
];

const WAYS: &str = "set --database-url or DATABASE_URL (postgres://user@host:port/database), or PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE";

/// The server that was asked for.
pub(crate) fn server(args: &ConnectArgs) -> Result<Server, CliError> {
    let text = args.database_url.as_deref().unwrap_or_default().trim();
    let Options { rest, sslmode, sslrootcert } = take_ssl_options(text);
    let mut config = parse(&rest)?;
    config.ssl_mode(ssl_mode(sslmode.or_else(|| variable("PGSSLMODE")).as_deref())?);
    complete(&mut config)?;
    let named = args.ca_file.as_ref().map(|path| path.display().to_string()).filter(|path| !path.is_empty());
    let trust = trust(sslrootcert.or(named).as_deref())?;
    Server::new(config, &trust).map_err(|failure| CliError::Connect(failure.to_string()))
}

/// Opens a session.
pub(crate) async fn connect(server: &Server) -> Result<Connection, CliError> {
    server.connect("stagemill").await.map_err(|failure| {
        let hint = match failure.class {
            Class::CredentialsRefused => format!("correct user and password; {WAYS}"),
            Class::Configuration if failure.message().contains("TLS:") => {
                "name the authority's certificates with --ca-file or PGSSLROOTCERT (for RDS: the region's bundle)"
                    .into()
            }
            Class::Configuration => return CliError::Connect(failure.to_string()),
            Class::BadJob if failure.sqlstate.as_deref() == Some("3D000") => {
                "correct the database's name in the URL or in PGDATABASE".into()
            }
            Class::Overloaded => "the server has no session to spare: try again later, or end some".into(),
            _ => format!("see whether it is up and the address is right; {WAYS}"),
        };
        CliError::Connect(format!("{failure}\n{hint}"))
    })
}

/// Opens a session with a database that has its ledger.
pub(crate) async fn connect_with_ledger(args: &ConnectArgs) -> Result<(Server, Connection), CliError> {
    let server = server(args)?;
    let connection = connect(&server).await?;
    require_ledger(&server, &connection).await?;
    Ok((server, connection))
}

/// Checks that the ledger is there, in this program's version.
pub(crate) async fn require_ledger(server: &Server, connection: &Connection) -> Result<(), CliError> {
    ledger::schema::require(connection)
        .await
        .map_err(|failure| CliError::from(failure.while_doing(&server.to_string())))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn parse(text: &str) -> Result<Config, CliError> {
    if text.is_empty() {
        return Ok(Config::new());
    }
    let config: Config = text.parse().map_err(|error: tokio_postgres::Error| {
        // The parser's own words can quote a part of the password that was not escaped.
        let words = error.source().map(ToString::to_string).unwrap_or_default();
        let quoted = |prefix: &str| Some(words.strip_prefix(prefix)?.trim_matches(['`', '\'', '"', ' ']).to_owned());
        let option = quoted("unknown option").filter(|name| NOT_TAKEN.contains(&name.as_str()));
        let what = match (quoted("invalid value for option"), option) {
            (Some(name), _) => format!("its option `{name}` has a value that can't be used"),
            (_, Some(name)) => format!("it has the option `{name}`, which stagemill does not take: leave it out"),
            _ => "it does not read as postgres://user:password@host:port/database; in a password write %40 for @, %3A for :, %2F for /, %3F for ? and %25 for %, or leave it out and set PGPASSWORD".to_owned(),
        };
        CliError::Usage(format!("the database URL can't be used: {what}"))
    })?;
    // `user:p@ss@host` reads as the host `ss@host`, and `user:p@s/s@host/d` as the database `s@host/d`: every message would print them.
    let hosts_hold_at = config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@')));
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let before_options = text.split('?').next().unwrap_or_default();
    if hosts_hold_at || (is_url && before_options.matches('@').count() > 1) {
        return Err(CliError::Usage(
            "the database URL can't be used: it has more than one @; write %40 for each that is part of the user or the password".into(),
        ));
    }
    Ok(config)
}

/// Adds what the URL leaves out.
fn complete(config: &mut Config) -> Result<(), CliError> {
    if config.get_ports().is_empty()
        && let Some(port) = variable("PGPORT")
    {
        let number = port.trim().parse();
        config.port(number.map_err(|_| CliError::Usage("PGPORT is not a port's number".into()))?);
    }
    let port = config.get_ports().first().copied().unwrap_or(5432);
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        match variable("PGHOST") {
            Some(hosts) => hosts.split(',').for_each(|host| {
                config.host(host);
            }),
            None => {
                config.host(local_host(port));
            }
        }
    }
    if config.get_user().is_none() {
        let system = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
        if let Some(user) = variable("PGUSER").or_else(|| variable("USER")).or_else(system) {
            config.user(user);
        }
    }
    if config.get_dbname().is_none()
        && let Some(database) = variable("PGDATABASE")
    {
        config.dbname(database);
    }
    if config.get_password().is_none()
        && let Some(password) = variable("PGPASSWORD").or_else(|| from_pgpass(config, port))
    {
        config.password(password);
    }
    Ok(())
}

fn from_pgpass(config: &Config, port: u16) -> Option<String> {
    let user = config.get_user()?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name,
        Some(Host::Unix(_)) | None => "localhost",
    };
    pgpass::find(Login { host, port, user, database: config.get_dbname().unwrap_or(user) })
}

/// The folder of the local server's socket, where there is one.
fn local_host(port: u16) -> String {
    let folders = ["/var/run/postgresql", "/run/postgresql", "/tmp"];
    let socket = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    folders.into_iter().find(socket).unwrap_or("localhost").to_owned()
}

/// We verify whenever there is TLS, so that libpq's stricter modes ask for nothing more.
fn ssl_mode(word: Option<&str>) -> Result<SslMode, CliError> {
    match word {
        None | Some("prefer" | "allow") => Ok(SslMode::Prefer),
        Some("require" | "verify-ca" | "verify-full") => Ok(SslMode::Require),
        Some("disable") => Ok(SslMode::Disable),
        Some(_) => Err(CliError::Usage(
            "sslmode is none of verify-full, verify-ca, require, prefer, allow and disable (the first five are all the same here: TLS, verified)"
                .into(),
        )),
    }
}

fn trust(file: Option<&str>) -> Result<Trust, CliError> {
    let path = match file {
        None | Some("system") => return Ok(Trust::System),
        Some(path) => path,
    };
    let refused = |what: String| {
        let failure =
            Failure::new(Class::Configuration, format!("the trusted certificates {path} can't be used: {what}"));
        CliError::hinted(failure, "correct --ca-file, PGSSLROOTCERT or the URL's sslrootcert")
    };
    let pem = fs::read(path).map_err(|error| refused(error.to_string()))?;
    if String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        Ok(Trust::Only(pem))
    } else {
        Err(refused("it holds no certificate in PEM".into()))
    }
}

/// A connection text without what tokio-postgres does not know as libpq does.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    rest: String,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

fn take_ssl_options(text: &str) -> Options {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let (pairs, head, glue) = match text.rsplit_once('?') {
        Some((head, query)) if is_url => (query.split('&').map(str::to_owned).collect(), format!("{head}?"), "&"),
        _ if is_url => (Vec::new(), text.to_owned(), "&"),
        _ => (words(text), String::new(), " "),
    };
    let mut options = Options { rest: String::new(), sslmode: None, sslrootcert: None };
    let mut kept = Vec::new();
    for pair in pairs {
        match pair.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches('\''))) {
            Some(("sslmode", value)) => options.sslmode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => options.sslrootcert = Some(value.replace("%2F", "/").replace("%2f", "/")),
            _ => kept.push(pair),
        }
    }
    options.rest = format!("{head}{}", kept.join(glue));
    options
}

/// The `name = value` pairs of libpq's other form, values in single quotes kept whole.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        let ends = c.is_whitespace() && !quoted && !escaped;
        let Some(word) = words.last_mut() else { break };
        if !ends {
            quoted ^= c == '\'' && !escaped;
            escaped = c == '\\' && !escaped;
            word.push(c);
        } else if word.contains('=') && !word.ends_with('=') {
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        server(&ConnectArgs { database_url: Some(url.into()), ca_file: None }).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn libpq_s_ssl_options_are_taken_out_of_either_form() {
        for (text, rest) in [
            (
                "postgres://u@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fca.pem",
                "postgres://u@h/d?connect_timeout=3",
            ),
            ("host=h sslmode = verify-full user='a b' sslrootcert='/ca.pem'", "host=h user='a b'"),
        ] {
            let options = take_ssl_options(text);
            assert_eq!(options.rest, rest);
            assert_eq!(options.sslmode.as_deref(), Some("verify-full"));
            assert_eq!(options.sslrootcert.as_deref(), Some("/ca.pem"));
        }
        assert_eq!(take_ssl_options("postgres://u:a?b@h/d?sslmode=require").rest, "postgres://u:a?b@h/d?");
        assert_eq!(take_ssl_options("postgres://u@h/d").rest, "postgres://u@h/d");
    }

    #[test]
    fn a_url_that_cannot_be_read_is_refused_without_its_password() {
        for (url, fragment) in [
            ("postgres://etl:s3cret@h:port/d", "`port`"),
            ("postgres://etl:s3cret@h/d?sslcert=x", "`sslcert`"),
            ("postgres://etl:s3cret@h/d?%", "%3F"),
            ("postgres://etl:p@s3cret@h/d", "more than one @"),
            ("postgres://etl:p@s3/cret@h/d", "more than one @"),
            ("mysql://etl:s3cret@h/d", "postgres://"),
            ("postgres://etl:s3cret@h/d?sslmode=sure", "sslmode"),
            ("postgres://etl:s3cret@h/d?sslmode=disable", "loopback"),
        ] {
            let text = refused(url);
            assert!(text.contains(fragment), "{url}: {text}");
            assert!(!text.contains("cret"), "{url}: {text}");
        }
    }
}
