//! Accepts connections and hands each to the worker with the fewest open calls.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::warn;

use super::worker::Accepted;

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
            Ok(accepted) => hand_over(&doors, accepted),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: trying at once again would only burn a core.
                warn!(%error, "cannot accept connections; trying again shortly");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok(Accepted { stream: stream.into_std()?, address, place })
}

fn hand_over(doors: &[Door], accepted: Accepted) {
    let load = |door: &&Door| (door.open_calls.load(Ordering::Relaxed), door.connections.load(Ordering::Relaxed));
    if let Some(door) = doors.iter().min_by_key(load) {
        let _ = door.sender.send(accepted);
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
