//! What a hostile or silent workload cluster, and a hostile user of a namespace, may cost: figures of the bootstrap provider
//! against a real kube-apiserver. Each test prints its figure. They run one after the other, for each measures.

mod abuse;
mod large;
mod memory;
mod overloaded;
mod provider;
mod silent;

use tokio::sync::{Mutex, MutexGuard};

/// The turn of one test.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
