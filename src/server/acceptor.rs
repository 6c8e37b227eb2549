//! Accepts connections and hands each to the worker with the fewest open calls.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tracing::warn;

use super::worker::{Accepted, Count};

/// The way into a worker.
pub(super) struct Door {
    pub(super) sender: mpsc::UnboundedSender<Accepted>,
    pub(super) open_calls: Arc<AtomicUsize>,
    pub(super) connections: Arc<AtomicUsize>,
}

pub(super) async fn run(
    listener: TcpListener,
    doors: Vec<Door>,
    max_connections: usize,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(max_connections));
    loop {
        // Beyond the limit connections wait in the kernel's queue: an open one is never sacrificed for a new one.
        let accepted = tokio::select! {
            _ = stop.wait_for(|stopping| *stopping) => return,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, address, place)) => match stream.into_std() {
                Ok(stream) => hand_over(&doors, stream, address, place),
                Err(error) => warn!(%error, "a connection was lost"),
            },
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: trying at once again would only burn a core.
                warn!(%error, "cannot accept connections; trying again shortly");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The next connection, once there is a place for it.
pub(super) async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, place))
}

fn hand_over(doors: &[Door], stream: StdStream, address: SocketAddr, place: OwnedSemaphorePermit) {
    let load = |door: &&Door| (door.open_calls.load(Ordering::Relaxed), door.connections.load(Ordering::Relaxed));
    // A worker that is gone would have the fewest calls of all.
    let open = doors.iter().filter(|door| !door.sender.is_closed());
    if let Some(door) = open.min_by_key(load) {
        // Counted here: a burst is handed out before the workers have looked at the first of it.
        let count = Count::enter(&door.connections);
        let _ = door.sender.send(Accepted { stream, address, place, count });
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_is_spread_over_the_workers_that_are_there() {
        let (mut receivers, mut doors) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (sender, receiver) = mpsc::unbounded_channel();
            doors.push(Door { sender, open_calls: Arc::default(), connections: Arc::default() });
            receivers.push(receiver);
        }
        drop(receivers.remove(0));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let places = Arc::new(Semaphore::new(4));
        for _ in 0..4 {
            let stream = StdStream::connect(address).expect("it listens");
            let place = Arc::clone(&places).acquire_owned().await.expect("room");
            hand_over(&doors, stream, address, place);
        }
        assert_eq!(receivers.iter().map(|receiver| receiver.len()).collect::<Vec<_>>(), [2, 2]);
        drop(receivers);
        assert!(
            doors.iter().all(|door| door.connections.load(Ordering::Relaxed) == 0),
            "given back with the connection"
        );
    }
}
