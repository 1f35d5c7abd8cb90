//! From tokio-postgres's errors to our failures, without row values in what may be logged.

use std::{error::Error as _, io};

use tokio_postgres::{Error, error::DbError};

use crate::failure::{Class, Failure, Report, is_postgresqls};

/// Reads an error that a statement or a connection ended with.
pub fn failure(error: &Error) -> Failure {
    match error.as_db_error() {
        Some(db) => server_failure(db),
        None => client_failure(error),
    }
}

fn server_failure(db: &DbError) -> Failure {
    let code = db.code().code();
    let class = match Class::of_sqlstate(code) {
        // Whoever raises an error in a trigger chooses its code for his own reasons: only what asks for another try is taken at its word.
        class if is_raised(db) && !class.is_of_rows() && !matches!(class, Class::Contention | Class::Overloaded) => {
            Class::BadData
        }
        class => class,
    };
    let private = may_hold_values(code) || is_somebodys(db);
    let message = if private { describe(db) } else { db.message().to_owned() };
    let message = match db.hint().filter(|_| !private) {
        Some(hint) => format!("{message} ({hint})"),
        None => message,
    };
    let words = [Some(db.message()), db.detail()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let named = |name: Option<&str>| name.map(str::to_owned);
    let report = Report { constraint: named(db.constraint()), column: named(db.column()), words };
    Failure::from_server(class, code, message, report)
}

/// Whether a RAISE of PL/pgSQL's is where it comes from.
fn is_raised(db: &DbError) -> bool {
    db.routine() == Some("exec_stmt_raise")
}

/// Whether a function or trigger raised it: with any SQLSTATE, in words that can hold anything.
fn is_somebodys(db: &DbError) -> bool {
    let code = db.code().code().get(..2).unwrap_or_default();
    // The server's own errors inside a function name its context too; those of these classes hold no values.
    let context =
        db.where_().is_some() && !["08", "25", "40", "53", "57", "58"].contains(&code) && db.code().code() != "55P03";
    is_raised(db) || context || !is_postgresqls(code)
}

/// SQLSTATE classes whose primary message can quote a row's value, or a text that a trigger raised.
fn may_hold_values(code: &str) -> bool {
    matches!(code.get(..2), Some("22" | "23" | "44" | "54" | "P0" | "XX" | "21" | "38" | "39"))
}

/// An error in our words: the condition's name and the objects, never the row.
fn describe(db: &DbError) -> String {
    let condition = match db.code().code() {
        "21000" => "a subquery gives more than one row, or a statement would change a row twice",
        "22001" => "a value is too long for its type",
        "22003" => "a number is out of range for its type",
        "22007" | "22008" => "a date or time is not valid",
        "22012" => "a division by zero",
        "22021" => "a text is not valid in the database's encoding",
        "22P02" => "a text is not valid for its type",
        "23502" => "a NULL violates a not-null constraint",
        "23503" => "a row violates a foreign key",
        "23505" => "a row violates a unique constraint",
        "23514" => "a row violates a check constraint",
        "23P01" => "a row violates an exclusion constraint",
        "44000" => "a row violates a view's check option",
        "54000" => "a value is too large for an index",
        "P0001" => "a trigger or function raised an error",
        code if code.starts_with("22") => "a value can't be used",
        code if code.starts_with("23") => "a row violates a constraint",
        _ if is_somebodys(db) => "a trigger or function raised an error",
        _ => "the server reported an error",
    };
    let objects =
        [("constraint", db.constraint()), ("column", db.column()), ("table", db.table()), ("type", db.datatype())];
    let named = objects.iter().filter_map(|(what, name)| Some(format!("{what} \"{}\"", (*name)?)));
    let named: Vec<String> = named.collect();
    if named.is_empty() { condition.to_owned() } else { format!("{condition}: {}", named.join(", ")) }
}

fn client_failure(error: &Error) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(tls) = cause.downcast_ref::<native_tls::Error>() {
            return Failure::new(
                Class::Configuration,
                format!(
                    "TLS: {tls}; the server's certificate must be signed by a trusted authority and name the host connected to"
                ),
            );
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return io_failure(io);
        }
        source = cause.source();
    }
    if error.is_closed() {
        return Failure::new(Class::ConnectionLost, "the connection was lost");
    }
    let mut text = error.to_string();
    // The client's own texts (no codes exist for these); none is made from row values.
    if let Some(cause) = error.source().filter(|_| is_about_connecting(&text)) {
        text = format!("{text}: {cause}");
    }
    if text.contains("does not support TLS") {
        text += "; switch ssl on there: without TLS only sockets and loopback addresses are connected to";
    }
    let class = match text.as_str() {
        _ if text.contains("authentication") || text.contains("password") => Class::CredentialsRefused,
        _ if text.contains("TLS") || text.contains("configuration") => Class::Configuration,
        _ if text.contains("unexpected message") || text.contains("connecting") || text.contains("timed out") => {
            Class::ConnectionLost
        }
        _ => Class::Internal,
    };
    Failure::new(class, text)
}

/// Errors whose text without its cause says too little: "invalid configuration" for a password that is missing.
fn is_about_connecting(text: &str) -> bool {
    ["configuration", "authentication", "TLS"].iter().any(|word| text.contains(word))
}

fn io_failure(io: &io::Error) -> Failure {
    let class = match io.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Class::Configuration,
        _ => Class::ConnectionLost,
    };
    Failure::new(class, format!("the connection failed: {io}"))
}
