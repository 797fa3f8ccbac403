//! Cache of connections to tenants: at most 256, none longer than two minutes after its last use, none with another
//! identity or address than requested.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::Connection;

/// Size of the cache. The least recently used connection makes room.
const MOST: usize = 256;
/// How long a connection stays without use.
const IDLE: Duration = Duration::from_mins(2);

/// The cache. Ids are paths: [`Clients::forget`] drops all below a prefix.
#[derive(Default)]
pub struct Clients(Mutex<HashMap<String, Kept>>);

struct Kept {
    version: String,
    connection: Connection,
    used: Instant,
}

impl Clients {
    /// The connection cached for `id`, if it was made for this `version` of identity and address.
    pub fn get(&self, id: &str, version: &str) -> Option<Connection> {
        let mut all = self.0.lock();
        sweep(&mut all);
        let kept = all.get_mut(id).filter(|kept| kept.version == version)?;
        kept.used = Instant::now();
        Some(kept.connection.clone())
    }

    /// Caches a connection.
    pub fn put(&self, id: &str, version: &str, connection: Connection) {
        let mut all = self.0.lock();
        sweep(&mut all);
        if all.len() >= MOST
            && !all.contains_key(id)
            && let Some(oldest) = all
                .iter()
                .min_by_key(|(_, kept)| kept.used)
                .map(|(id, _)| id.clone())
        {
            all.remove(&oldest);
        }
        let kept = Kept {
            version: version.to_owned(),
            connection,
            used: Instant::now(),
        };
        all.insert(id.to_owned(), kept);
    }

    /// Drops the connections with this id, and those below it.
    pub fn forget(&self, prefix: &str) {
        let below = format!("{prefix}/");
        self.0
            .lock()
            .retain(|id, _| id != prefix && !id.starts_with(&below));
    }

    /// Drops what was not used for two minutes. Called from time to time, since a quiet process makes no requests.
    pub fn sweep(&self) {
        sweep(&mut self.0.lock());
    }

    /// Number of cached connections.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn sweep(all: &mut HashMap<String, Kept>) {
    all.retain(|_, kept| kept.used.elapsed() < IDLE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::Config::new(http::Uri::from_static("https://127.0.0.1:1"));
        Connection::from_client(kube::Client::try_from(config).unwrap(), "test")
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_cached_while_used_and_for_one_identity() {
        let clients = Clients::default();
        clients.put("ns/a/admin", "1", connection());
        assert!(clients.get("ns/a/admin", "1").is_some());
        assert!(clients.get("ns/a/admin", "2").is_none());
        tokio::time::advance(Duration::from_secs(119)).await;
        assert!(clients.get("ns/a/admin", "1").is_some());
        tokio::time::advance(Duration::from_secs(121)).await;
        clients.sweep();
        assert!(clients.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_used_makes_room() {
        let clients = Clients::default();
        let one = connection();
        for number in 0..MOST {
            clients.put(&number.to_string(), "1", one.clone());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(clients.get("0", "1").is_some());
        clients.put("new", "1", one);
        assert_eq!(clients.len(), MOST);
        assert!(clients.get("0", "1").is_some() && clients.get("1", "1").is_none());
    }
}
