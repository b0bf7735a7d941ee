//! `hotspare serve`: bind, read the model's files, start the engine, serve, drain.
//!
//! The port is bound first, so that a port in use is found before anything is loaded; until the
//! engine is ready `/ready` says so and requests are answered 503.
//!
//! Invariant: status 0 after an orderly end only. An engine that cannot start, or that failed for
//! good, ends the server with status 1 and its message.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hotspare_front::{Front, FrontHandle, ModelInfo};
use hotspare_http::HttpConfig;
use hotspare_hub::Fetched;
use indicatif::MultiProgress;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cli::{RENDER_COMMAND, Settings};
use crate::loader::{Loader, launcher};
use crate::onlooking::Onlooking;
use crate::pairing::{Paired, config_hash};
use crate::signals::{Hangups, Signals};
use crate::{fail, hub, limits, logging, progress};

/// Added to the shutdown timeout for closing connections and ending the engine.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

type HttpTask = JoinHandle<Result<(), hotspare_http::HttpError>>;

/// Serves until a signal or a failure.
pub(crate) fn run(settings: Settings) -> ExitCode {
    let bars = logging::can_show_bars(settings.log_format).then(MultiProgress::new);
    if let Err(message) = logging::init(&settings.log_level, settings.log_format, bars.clone()) {
        return fail(&message);
    }
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("threads cannot be started: {error}")),
    };
    let result = runtime.block_on(serve(settings, bars));
    // Threads that tokenize must not hold the end up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(mut settings: Settings, bars: Option<MultiProgress>) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(|e| format!("signals: {e}"))?;
    let hangups = Hangups::listen().map_err(|e| format!("signals: {e}"))?;
    let as_given = settings.clone();
    let mut listener = bind(&settings.host, settings.port).await?;
    if let Some(request) = hub::of_settings(&settings)? {
        // While it is fetched nobody is let wait on a port that does not answer.
        drop(listener);
        let Some(found) = fetch(request, bars.clone(), &mut signals).await? else {
            return Ok(());
        };
        hub::use_found(&mut settings, &found);
        listener = bind(&settings.host, settings.port).await?;
    }
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    warn_if_open(address, &settings);
    let model = load_model(&settings).await?;
    let paired = match settings.ha.is_front {
        true => None,
        false => Paired::start(&settings, address)?,
    };
    let agent = bind_agent(&settings).await?;
    let mut handle = start_front(&settings, paired.as_ref(), model, address)?;
    let front = handle.front().clone();
    if !settings.ha.is_front {
        front.set_loader(Arc::new(Loader::new(as_given)));
        tokio::spawn(progress::show(front.engine_states(), bars));
    }
    tokio::spawn(reload_on_hangup(front.clone(), hangups));
    if let Some(agent) = agent {
        tokio::spawn(hotspare_http::serve_agent(agent, front.clone()));
    }

    let (stop_http, mut http) = start_http(listener, &front, http_config(&settings)?);
    tracing::info!(
        model = front.model().served.name(),
        "listening on http://{address}"
    );

    tokio::select! {
        error = handle.failed() => return Err(error.to_string()),
        result = &mut http => return Err(match result {
            Ok(Ok(())) => "the HTTP server ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("the HTTP server failed: {error}"),
        }),
        signal = signals.next() => tracing::info!(
            num_running = front.server_load(),
            shutdown_timeout_s = settings.shutdown_timeout.as_secs(),
            "{signal}: finishing running requests; a second signal ends at once"
        ),
    }
    // From here on a signal ends at once, whatever the rest waits for.
    tokio::spawn(async move {
        let signal = signals.next_after_echo().await;
        tracing::warn!("{signal} again: ending at once");
        std::process::exit(signal.exit_status);
    });
    if let Some(paired) = &paired {
        tracing::info!("handing over to the other node, where it is ready");
        paired.terminate().await;
    }
    front.drain();
    drop(stop_http);
    shut_down_in_time(settings.shutdown_timeout + SHUTDOWN_GRACE, handle, http).await;
    Ok(())
}

/// What the front needs of the model.
async fn load_model(settings: &Settings) -> Result<ModelInfo, String> {
    let options = settings.model.clone();
    let model = tokio::task::spawn_blocking(move || ModelInfo::load(&options)).await;
    let mut model = model
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    model.config_hash = config_hash(settings, &model);
    Ok(model)
}

/// The front, with its pair where it has one; or one that only uses a pair's engines.
fn start_front(
    settings: &Settings,
    paired: Option<&Arc<Paired>>,
    model: ModelInfo,
    address: SocketAddr,
) -> Result<FrontHandle, String> {
    let config = settings.front.clone();
    if settings.ha.is_front {
        let setup = Onlooking::start(settings)?;
        return Ok(Front::start_lone(config, model, setup));
    }
    let launcher = Arc::new(launcher(settings, &model)?);
    let setup = paired.map(|paired| paired.setup(address));
    Ok(match setup {
        Some(setup) => Front::start_paired(config, model, launcher, setup),
        None => Front::start(config, model, launcher),
    })
}

/// Serves HTTP until the sender is dropped.
fn start_http(
    listener: TcpListener,
    front: &Front,
    config: HttpConfig,
) -> (oneshot::Sender<()>, HttpTask) {
    let (stop, stopped) = oneshot::channel::<()>();
    let http = tokio::spawn(hotspare_http::serve(
        listener,
        front.clone(),
        config,
        async {
            // A dropped sender means the same.
            let _ = stopped.await;
        },
    ));
    (stop, http)
}

async fn shut_down_in_time(limit: Duration, handle: FrontHandle, http: HttpTask) {
    let end = tokio::time::timeout(limit, shut_down(handle, http));
    if end.await.is_err() {
        tracing::warn!("the end took too long; ending without it");
    }
    tracing::info!("ended");
}

/// Loads the model afresh for each SIGHUP.
async fn reload_on_hangup(front: Front, mut hangups: Hangups) {
    loop {
        hangups.next().await;
        tracing::info!("SIGHUP: the model is loaded afresh");
        match front.reload(None).await {
            Ok(model) => tracing::info!(model, "The model was loaded afresh."),
            Err(error) => tracing::error!(%error, "The reload failed; all is as it was."),
        }
    }
}

/// Fetches a model of the hub; `None` where a signal came first.
async fn fetch(
    request: hub::Request,
    bars: Option<MultiProgress>,
    signals: &mut Signals,
) -> Result<Option<Fetched>, String> {
    let fetch = tokio::task::spawn_blocking(move || request.run(bars));
    tokio::select! {
        found = fetch => found.map_err(|e| e.to_string())?.map(Some),
        signal = signals.next() => {
            tracing::info!("{signal}: the download ends; the next one goes on from there");
            Ok(None)
        }
    }
}

/// Connections first, then the engine.
async fn shut_down(handle: FrontHandle, http: HttpTask) {
    if let Err(error) = http.await {
        tracing::error!("the HTTP server failed while it was ending: {error}");
    }
    if let Err(error) = handle.stop().await {
        tracing::warn!("{error}");
    }
}

async fn bind(host: &str, port: u16) -> Result<TcpListener, String> {
    TcpListener::bind((host, port)).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "cannot listen on {host}:{port}: the port is in use; choose another with --port, or 0 \
             for a free one"
        ),
        _ => format!("cannot listen on {host}:{port}: {error}"),
    })
}

/// The port for HAProxy's agent checks.
async fn bind_agent(settings: &Settings) -> Result<Option<TcpListener>, String> {
    let Some(address) = settings.ha.agent_listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|e| format!("--ha-agent-listen {address}: {e}"))?;
    Ok(Some(listener))
}

fn warn_if_open(address: SocketAddr, settings: &Settings) {
    if !address.ip().is_loopback() && settings.http.api_keys.is_empty() {
        tracing::warn!(
            "anyone who reaches {address} can use this server; set a key with HOTSPARE_API_KEY"
        );
    }
}

/// The HTTP settings, with this program as the one that renders templates of requests.
fn http_config(settings: &Settings) -> Result<HttpConfig, String> {
    let program = match Path::new("/proc/self/exe") {
        // Also where the file was replaced since: versions must not mix.
        running if running.exists() => running.to_owned(),
        _ => std::env::current_exe().map_err(|e| format!("this program cannot be found: {e}"))?,
    };
    let mut http = settings.http.clone();
    http.template_command = vec![program.into(), RENDER_COMMAND.into()];
    Ok(http)
}
