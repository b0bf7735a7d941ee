//! A whole server in this process: HTTP, front, and engines on threads.
//!
//! Invariant: everything it starts ends with the value.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hotspare_engine::{EngineOptions, spawn_in_process};
use hotspare_front::{
    EngineLauncher, Front, FrontConfig, FrontHandle, LaunchedEngine, ModelInfo, ModelOptions,
};
use hotspare_http::HttpConfig;
use hotspare_testkit::{Client, wait_until};

/// Starts engines on threads.
struct Threads(EngineOptions);

impl EngineLauncher for Threads {
    fn launch(&self, life: u32) -> io::Result<LaunchedEngine> {
        let options = EngineOptions {
            life: life.into(),
            ..self.0.clone()
        };
        Ok(LaunchedEngine {
            stream: spawn_in_process(options)?,
            process: None,
            kv_mirror: None,
        })
    }
}

/// A server on a port of its own.
pub(crate) struct InProcess {
    url: String,
    front: Front,
    _handle: FrontHandle,
    _runtime: tokio::runtime::Runtime,
}

impl InProcess {
    /// Starts one that serves `model`, and waits until it is ready.
    pub(crate) fn start(model: &str, faults: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let options = ModelOptions {
            model: model.to_owned(),
            ..ModelOptions::default()
        };
        let info = ModelInfo::load(&options).unwrap();
        let launcher = Threads(EngineOptions {
            model: model.to_owned(),
            max_model_len: Some(info.served.max_model_len as usize),
            num_threads: Some(1),
            kv_cache_memory_bytes: Some(16 << 20),
            faults: faults.to_owned(),
            ..EngineOptions::default()
        });
        let config = FrontConfig {
            engine_restart_backoff_min_ms: 1,
            engine_restart_backoff_max_ms: 1,
            max_num_engine_failures: u32::MAX,
            stats_log_interval_s: 0,
            ..FrontConfig::default()
        };
        let _entered = runtime.enter();
        let handle = Front::start(config, info, Arc::new(launcher));
        let front = handle.front().clone();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let never = std::future::pending();
        let serving = hotspare_http::serve(listener, front.clone(), HttpConfig::default(), never);
        runtime.spawn(serving);
        drop(_entered);
        let server = Self {
            url,
            front,
            _handle: handle,
            _runtime: runtime,
        };
        server.wait_ready();
        server
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.url.clone())
    }

    /// How often its engine was started again.
    pub(crate) fn num_restarts(&self) -> u64 {
        self.front.status().engines[0].restarts
    }

    pub(crate) fn wait_ready(&self) {
        wait_until("the engine is ready", Duration::from_secs(60), || {
            self.front.readiness().ready
        });
    }
}
