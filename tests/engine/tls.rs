//! TLS is verified, chain and host name, unless the server is on a socket or a loopback address and nobody asked for it.

use std::process::Command;

use scratch_postgres::ScratchPostgres;
use stagemill_engine::{
    failure::{Class, Failure},
    pg::{Connection, Server, Trust},
};

/// A self-signed certificate for a name as openssl writes it (`DNS:host`, `IP:address`): PEM texts of certificate and key.
pub fn certificate(name: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("crt"), folder.path().join("key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext"])
        .arg(format!("subjectAltName={name}"))
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("this test makes its certificates with the `openssl` command");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (std::fs::read_to_string(certificate).unwrap(), std::fs::read_to_string(key).unwrap())
}

async fn connect(server: &ScratchPostgres, trusted: &str) -> Result<Connection, Failure> {
    let url = format!("host=localhost port={} user={} dbname=postgres sslmode=require", server.port(), server.user());
    let server = Server::new(url.parse().unwrap(), &Trust::Only(trusted.as_bytes().to_vec()))?;
    server.connect("test").await
}

#[tokio::test]
async fn a_certificate_must_be_of_a_trusted_authority_and_name_the_host() {
    let (right, key) = certificate("DNS:localhost");
    let server = ScratchPostgres::builder().tls(&right, &key).start().unwrap_or_else(|error| panic!("{error}"));
    let connection = connect(&server, &right).await.unwrap();
    let row = connection.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
    let (other, _) = certificate("DNS:localhost");
    let refused = connect(&server, &other).await.unwrap_err();
    assert_eq!(refused.class, Class::Configuration);
    assert!(refused.message().contains("must be signed by a trusted authority and name the host"), "{refused}");

    let (elsewhere, key) = certificate("DNS:db.example");
    let server = ScratchPostgres::builder().tls(&elsewhere, &key).start().unwrap_or_else(|error| panic!("{error}"));
    let refused = connect(&server, &elsewhere).await.unwrap_err();
    assert_eq!(refused.class, Class::Configuration);
}

#[test]
fn a_server_elsewhere_is_never_connected_to_without_tls() {
    let refused = Server::new("host=db.example user=u sslmode=disable".parse().unwrap(), &Trust::System).err().unwrap();
    assert_eq!(refused.class, Class::Configuration);
    assert!(Server::new("host=127.0.0.1 user=u sslmode=disable".parse().unwrap(), &Trust::System).is_ok());
    assert!(Server::new("host=/tmp user=u sslmode=disable".parse().unwrap(), &Trust::System).is_ok());
    let by_address =
        Server::new("host=localhost hostaddr=192.0.2.1 user=u sslmode=disable".parse().unwrap(), &Trust::System);
    assert!(by_address.is_err(), "the address is what is connected to");
}
