//! One connection to the server of shared limits: how it is made, and many questions on it at once.
//!
//! Promises: what the server is called anywhere is without its password. Knows no limits.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, ServerErrorKind, Value};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::counts::Cause;
use super::script::Script;

/// Connecting, TLS and the password included.
const CONNECT: Duration = Duration::from_secs(1);
/// Tasks an answer passes on its way from the socket to who asked.
const HOPS: usize = 4;
/// Questions that can be on their way from tasks to the socket.
const QUEUE: usize = 4_096;

/// How to speak TLS to the server.
#[derive(Clone)]
pub struct Tls(pub Arc<rustls::ClientConfig>);

/// Where the server is, and who the gateway is to it.
#[derive(Clone)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `None`: in the clear.
    pub tls: Option<Tls>,
    /// The user, where it knows any.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database; 0 in a cluster.
    pub database: i64,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why the server could not be asked.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// What the system or the server says, if anything.
    pub(super) why: String,
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self { cause, why: String::new() }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let gone = error.is_io_error() || error.is_connection_dropped();
        let cause = if gone { Cause::Unreachable } else { Cause::Failed };
        Self { cause, why: error.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { cause: Cause::Unreachable, why: error.to_string() }
    }
}

/// A connection; closed when it is dropped, whatever is still waited for on it.
#[derive(Debug)]
pub(super) struct Connection {
    questions: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects, and makes the scripts known.
    pub(super) async fn open(server: &Server, scripts: [&Script; 3]) -> Result<Self, Failure> {
        let connecting = async {
            let connection = Self::connect(server).await?;
            for answer in connection.send(scripts.map(Script::load).iter()).await? {
                refused(answer)?;
            }
            Ok(connection)
        };
        timeout(CONNECT, connecting).await.unwrap_or_else(|_| Err(Cause::Timeout.into()))
    }

    async fn connect(server: &Server) -> Result<Self, Failure> {
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        // A question must not wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let Some(Tls(config)) = &server.tls else { return Self::over(server, stream).await };
        let name = ServerName::try_from(server.host.clone()).map_err(std::io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        Self::over(server, stream).await
    }

    async fn over<S>(server: &Server, stream: S) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut who = RedisConnectionInfo::default().set_db(server.database);
        if let Some(user) = &server.user {
            who = who.set_username(user);
        }
        if let Some(password) = &server.password {
            who = who.set_password(password);
        }
        // Who asks knows how long it waits.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
        let (questions, driver) = MultiplexedConnection::new_with_config(&who, stream, config).await?;
        Ok(Self { questions, driver: tokio::spawn(driver).abort_handle() })
    }

    async fn send<'a>(&self, commands: impl ExactSizeIterator<Item = &'a Cmd>) -> Result<Vec<Value>, Failure> {
        let count = commands.len();
        let mut pipeline = Pipeline::with_capacity(count);
        for command in commands {
            pipeline.add_command(command.clone());
        }
        Ok(self.questions.clone().req_packed_commands(&pipeline, 0, count).await?)
    }

    /// The answers to `commands`, asked at once. A server that has forgotten the scripts is told them again.
    pub(super) async fn ask(&self, commands: &[Cmd], scripts: [&Script; 3]) -> Result<Vec<Value>, Failure> {
        let mut answers = self.send(commands.iter()).await?;
        let forgotten: Vec<usize> = (0..answers.len()).filter(|at| is_unknown_script(&answers[*at])).collect();
        if !forgotten.is_empty() {
            let loads = scripts.map(Script::load);
            let again: Vec<&Cmd> = loads.iter().chain(forgotten.iter().map(|at| &commands[*at])).collect();
            let anew = self.send(again.into_iter()).await?;
            for (at, answer) in forgotten.into_iter().zip(anew.into_iter().skip(loads.len())) {
                answers[at] = answer;
            }
        }
        answers.into_iter().map(refused).collect()
    }
}

fn is_unknown_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

fn refused(answer: Value) -> Result<Value, Failure> {
    match answer {
        Value::ServerError(error) => Err(Failure { cause: Cause::Failed, why: RedisError::from(error).to_string() }),
        answer => Ok(answer),
    }
}

/// What `asking` resolves to within `patience`. A thread that was busy elsewhere has not looked: what has arrived meanwhile is
/// taken before the server is blamed.
pub(super) async fn within<T>(
    patience: Duration,
    asking: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut asking = pin!(asking);
    if let Ok(answer) = timeout(patience, &mut asking).await {
        return answer;
    }
    for _ in 0..HOPS {
        yield_now().await;
        if let Some(answer) = asking.as_mut().now_or_never() {
            return answer;
        }
    }
    Err(Cause::Timeout.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_arrived_while_the_thread_was_busy_is_taken_though_it_passes_several_tasks() {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("a socket");
        let mut near = tokio::net::UnixStream::from_std(near).expect("a socket");
        let (read, mut receiver) = oneshot::channel();
        tokio::spawn(async move { read.send(near.read_u8().await) });
        for _ in 0..2 {
            let (next, further) = oneshot::channel();
            let before = std::mem::replace(&mut receiver, further);
            tokio::spawn(async move { next.send(before.await.expect("it is sent")) });
        }
        let asking = async move { Ok(receiver.await.expect("it is sent")?) };
        let busy = async {
            // The tasks wait for each other now, the first of them for the socket.
            yield_now().await;
            std::io::Write::write_all(&mut far, &[7]).expect("there is room");
            std::thread::sleep(Duration::from_millis(100));
        };
        let (answer, ()) = tokio::join!(within(Duration::from_millis(20), asking), busy);
        assert_eq!(answer.expect("it is there"), 7);
    }
}
