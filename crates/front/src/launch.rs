//! Starting engines: as child processes, or however a test likes.
//!
//! Invariant: the child's standard input is its only channel to the front, so it notices at once
//! when the front is gone; nothing secret is on its command line or in its environment.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::KvMirror;
use tokio::process::{Child, Command};

/// Tells a child how many engines its server started before it, spares included.
pub const ENGINE_LIFE_ENV: &str = "HOTSPARE_ENGINE_LIFE";

/// Tells a child which file in memory it keeps its KV blocks in.
pub const KV_MIRROR_ENV: &str = "HOTSPARE_KV_MIRROR";

/// Environment variables that hold secrets of the front.
const SECRET_ENVS: [&str; 5] = [
    "HOTSPARE_API_KEY",
    "HOTSPARE_ADMIN_KEY",
    "VLLM_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
];

/// The file that this process runs, also where another one has its path now.
const RUNNING: &str = "/proc/self/exe";

/// A started engine.
#[derive(Debug)]
pub struct LaunchedEngine {
    /// The front's end of the socket.
    pub stream: UnixStream,
    /// The process; `None` for an engine on threads of this one.
    pub process: Option<Child>,
    /// Where it keeps its KV blocks for the engine after it, if it does.
    pub kv_mirror: Option<KvMirror>,
}

/// Starts an engine.
pub trait EngineLauncher: Send + Sync + 'static {
    /// Starts it and returns without waiting until it is ready. `life` counts the
    /// starts of a server, from 0.
    ///
    /// # Errors
    /// Where no process or socket can be made.
    fn launch(&self, life: u32) -> io::Result<LaunchedEngine>;
}

/// Starts a process whose standard input is the socket.
#[derive(Clone, Debug)]
pub struct ProcessLauncher {
    program: PathBuf,
    args: Vec<OsString>,
    /// Device and inode of the running program, where that is what is started.
    own_file: Option<(u64, u64)>,
    has_kv_mirror: bool,
}

impl ProcessLauncher {
    /// Starts `program` with `args`.
    pub fn new(program: PathBuf, args: Vec<OsString>) -> Self {
        Self {
            program,
            args,
            own_file: None,
            has_kv_mirror: false,
        }
    }

    /// Gives each engine a file in memory to keep its KV blocks in.
    #[must_use]
    pub fn with_kv_mirror(self) -> Self {
        Self {
            has_kv_mirror: true,
            ..self
        }
    }

    fn kv_mirror(&self) -> Option<KvMirror> {
        if !self.has_kv_mirror {
            return None;
        }
        KvMirror::create()
            .inspect_err(|error| tracing::warn!(%error, "An engine cannot keep its KV blocks."))
            .ok()
    }

    /// Starts this very program with `args`.
    ///
    /// # Errors
    /// Where the operating system does not say which program this is.
    pub fn this_program(args: Vec<OsString>) -> io::Result<Self> {
        Ok(Self {
            own_file: file_of(Path::new(RUNNING)),
            ..Self::new(std::env::current_exe()?, args)
        })
    }

    /// The program; where its file was replaced or removed since this process started, the file
    /// that this process runs, so that a restart never mixes versions by accident.
    fn program(&self) -> &Path {
        match self.own_file {
            Some(own) if file_of(&self.program) != Some(own) => Path::new(RUNNING),
            _ => &self.program,
        }
    }
}

/// What tells a file from the one that takes its path.
fn file_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl EngineLauncher for ProcessLauncher {
    fn launch(&self, life: u32) -> io::Result<LaunchedEngine> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(self.program());
        command
            .arg0("hotspare")
            .args(&self.args)
            .env(ENGINE_LIFE_ENV, life.to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            // A Ctrl-C on the terminal is for the front, which then ends the engine in order.
            .process_group(0)
            .kill_on_drop(true);
        for name in SECRET_ENVS {
            command.env_remove(name);
        }
        let kv_mirror = self.kv_mirror();
        match &kv_mirror {
            Some(mirror) => command.env(KV_MIRROR_ENV, mirror.path()),
            None => command.env_remove(KV_MIRROR_ENV),
        };
        let process = command.spawn()?;
        Ok(LaunchedEngine {
            stream: ours,
            process: Some(process),
            kv_mirror,
        })
    }
}
