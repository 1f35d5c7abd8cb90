//! A proxy between a client and PostgreSQL that reads the protocol, and does harm at a named point of a chunk's life.
//!
//! The points are recognized by the statements that the client sends, so the product needs no hooks for it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// A point of a chunk's life: what the client is about to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// A new connection's first message.
    Connect,
    /// The claim: a short transaction of its own.
    Claim,
    /// The fence: BEGIN and the run's lock are behind it.
    Fence,
    /// The statement that changes the target.
    Statement,
    /// The counts and PROCESSED.
    Finish,
    /// COMMIT.
    Commit,
}

impl Point {
    pub const ALL: [Self; 6] = [Self::Connect, Self::Claim, Self::Fence, Self::Statement, Self::Finish, Self::Commit];

    fn of(sql: &str) -> Option<Self> {
        let marks = [
            ("SET state = 'ASSIGNED'", Self::Claim),
            ("FOR UPDATE OF c SKIP LOCKED", Self::Fence),
            ("\"stagemill staged\"", Self::Statement),
            ("SET state = 'PROCESSED', ended_at", Self::Finish),
        ];
        if sql == "COMMIT" {
            return Some(Self::Commit);
        }
        marks.iter().find(|(mark, _)| sql.contains(mark)).map(|(_, point)| *point)
    }
}

/// What is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Harm {
    /// Both sides are cut before the server sees the message.
    CutBefore,
    /// The server gets the message; both sides are cut before it answers.
    CutAfter,
    /// The server has answered; the client is cut before it sees any of it.
    DropAnswer,
    /// The client sees half of the answer.
    HalfAnswer,
    /// The message waits for a while.
    Stall,
    /// Nothing passes any more, and nobody is told.
    Vanish,
    /// The server refuses with this SQLSTATE, as a writer does that was demoted.
    Refuse(&'static str),
}

/// How long a message is held back, and how long a peer has vanished before its socket closes.
const STALL: Duration = Duration::from_millis(400);
const VANISHED: Duration = Duration::from_millis(1_500);

/// Harm that waits for its moment.
struct Armed {
    point: Point,
    harm: Harm,
    /// So many occasions are let pass.
    passes: u32,
    struck: Option<watch::Sender<bool>>,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    armed: Mutex<Option<Armed>>,
}

/// A proxy on loopback. It ends with the runtime that it was started on.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

impl Proxy {
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { upstream: Mutex::new(upstream), armed: Mutex::new(None) });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&accepting);
                // An end of either side ends the pair; whoever used it says so.
                tokio::spawn(async move {
                    let _ = serve(client, shared).await;
                });
            }
        });
        Self { shared, port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Arms the proxy: the harm strikes once, at the point's next occasion but `passes`. The receiver turns true then.
    pub fn arm(&self, point: Point, harm: Harm, passes: u32) -> watch::Receiver<bool> {
        let (sender, receiver) = watch::channel(false);
        *self.shared.armed.lock().unwrap() = Some(Armed { point, harm, passes, struck: Some(sender) });
        receiver
    }

    /// Lets everything pass from now on.
    pub fn disarm(&self) {
        *self.shared.armed.lock().unwrap() = None;
    }
}

impl Shared {
    /// The harm that is due at this point.
    fn strike(&self, point: Point) -> Option<Harm> {
        let mut armed = self.armed.lock().unwrap();
        let due = armed.as_mut().filter(|armed| armed.point == point)?;
        if due.passes > 0 {
            due.passes -= 1;
            return None;
        }
        let due = armed.take()?;
        if let Some(struck) = due.struck {
            struck.send_replace(true);
        }
        Some(due.harm)
    }
}

/// What becomes of the server's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Pass,
    /// Read to the end of the answer, then cut.
    Drop,
    /// Pass half of the next piece, then cut.
    Half,
    /// Read nothing.
    Hold,
}

async fn serve(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let upstream = *shared.upstream.lock().unwrap();
    let server = TcpStream::connect(upstream).await?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
        // A cut is a reset: neither side is told more than that the other is gone.
        socket.set_zero_linger()?;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
    let (mode, answers) = watch::channel(Answers::Pass);
    tokio::select! {
        ended = requests(from_client, to_server, Arc::clone(&to_client), &mode, &shared) => ended,
        ended = replies(from_server, to_client, answers) => ended,
    }
}

/// Passes the client's messages on, one by one.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    to_client: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    mode: &watch::Sender<Answers>,
    shared: &Shared,
) -> io::Result<()> {
    let mut started = false;
    loop {
        let message = if started { message(&mut from).await? } else { startup(&mut from).await? };
        let point = if started { sql(&message).and_then(|sql| Point::of(&sql)) } else { Some(Point::Connect) };
        started = true;
        match point.and_then(|point| shared.strike(point)) {
            None => to.write_all(&message).await?,
            Some(Harm::CutBefore) => return Ok(()),
            Some(Harm::CutAfter) => {
                // The rest of the batch too: an extended query is not run before its Sync.
                to.write_all(&message).await?;
                rest_of_batch(&message, &mut from, &mut to).await?;
                mode.send_replace(Answers::Hold);
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Ok(());
            }
            Some(harm @ (Harm::DropAnswer | Harm::HalfAnswer)) => {
                mode.send_replace(if harm == Harm::DropAnswer { Answers::Drop } else { Answers::Half });
                to.write_all(&message).await?;
            }
            Some(Harm::Stall) => {
                tokio::time::sleep(STALL).await;
                to.write_all(&message).await?;
            }
            Some(Harm::Vanish) => {
                mode.send_replace(Answers::Hold);
                tokio::time::sleep(VANISHED).await;
                return Ok(());
            }
            Some(Harm::Refuse(code)) => refuse(&message, code, &mut from, &to_client).await?,
        }
    }
}

/// Passes on what belongs to a message of the extended protocol, up to its Sync.
async fn rest_of_batch(message_: &[u8], from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut last = message_.first().copied();
    while last.is_some_and(|kind| kind != b'Q' && kind != b'S') {
        let next = message(from).await?;
        to.write_all(&next).await?;
        last = next.first().copied();
    }
    Ok(())
}

/// Answers in the server's place with an error, inside a transaction that has failed.
async fn refuse(
    message_: &[u8],
    code: &str,
    from: &mut OwnedReadHalf,
    to_client: &tokio::sync::Mutex<OwnedWriteHalf>,
) -> io::Result<()> {
    let mut last = message_.first().copied();
    while last.is_some_and(|kind| kind != b'Q' && kind != b'S') {
        last = message(from).await?.first().copied();
    }
    let mut fields = Vec::new();
    for field in ["SERROR", "VERROR", &format!("C{code}"), "Mcannot execute this in a read-only transaction"] {
        fields.extend_from_slice(field.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let mut answer = vec![b'E'];
    answer.extend(u32::try_from(fields.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    answer.extend(fields);
    answer.extend([b'Z', 0, 0, 0, 5, b'E']);
    to_client.lock().await.write_all(&answer).await
}

/// Passes the server's answers on, or does not.
async fn replies(
    mut from: OwnedReadHalf,
    to: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    mut answers: watch::Receiver<Answers>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            () = held(&mut answers) => std::future::pending().await,
        };
        if read == 0 {
            return Ok(());
        }
        let piece = buffer.get(..read).unwrap_or_default();
        let now = *answers.borrow();
        match now {
            Answers::Pass => to.lock().await.write_all(piece).await?,
            Answers::Hold => std::future::pending().await,
            // ReadyForQuery ends an answer: 'Z', its length, and the state. 'R' asks for a password, and then waits for it.
            Answers::Drop if piece[0] == b'R' || piece.len() >= 6 && piece[read - 6] == b'Z' => return Ok(()),
            Answers::Drop => {}
            Answers::Half => return to.lock().await.write_all(&piece[..read / 2]).await,
        }
    }
}

/// Ends when answers are held back.
async fn held(answers: &mut watch::Receiver<Answers>) {
    if answers.wait_for(|answers| *answers == Answers::Hold).await.is_err() {
        std::future::pending().await
    }
}

/// The first message has no type.
async fn startup(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    with_body(length.to_vec(), u32::from_be_bytes(length), from).await
}

async fn message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await?;
    let [_, length @ ..] = head;
    with_body(head.to_vec(), u32::from_be_bytes(length), from).await
}

async fn with_body(mut message: Vec<u8>, length: u32, from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut body = vec![0; (length as usize).saturating_sub(4)];
    from.read_exact(&mut body).await?;
    message.extend(body);
    Ok(message)
}

/// The statement of a Query or a Parse message.
fn sql(message: &[u8]) -> Option<String> {
    let mut texts = message.get(5..)?.split(|byte| *byte == 0);
    let text = match message.first()? {
        b'Q' => texts.next()?,
        // The statement's name comes first, and is empty.
        b'P' => texts.nth(1)?,
        _ => return None,
    };
    String::from_utf8(text.to_vec()).ok()
}
