//! Threads for a store, owned by a stage.

use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime of one stage, on which the stage's own thread waits. Unlike tokio's it may be dropped
/// anywhere, from within another runtime too.
#[derive(Debug)]
pub struct StoreRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl StoreRuntime {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the operating system gives none.
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Waits for something of the store.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }
}

impl Drop for StoreRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
