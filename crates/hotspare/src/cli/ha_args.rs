//! Options of a node of a pair, and what they mean together.
//!
//! Invariant: without `--ha-peer` a node serves alone, whatever else is set; a warning says so.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use hotspare_failover::{InitialRole, Mode, Profile, Settings, Timers};
use hotspare_front::FrontConfig;
use hotspare_pair::PairBounds;

use super::ha_limit_args::HaLimitArgs;
use super::ha_timer_args::HaTimerArgs;
use super::values::{SpareShadow, parse_positive, parse_timeout_ms};

/// How the other node is found, and who takes over when.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Pair")]
pub(crate) struct HaArgs {
    /// The other node's --ha-listen, one value for each way to it; with it this node is one of a
    /// pair.
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., value_delimiter = ',')]
    pub(crate) ha_peer: Option<Vec<String>>,
    /// Addresses to listen on for the other node, TCP and UDP.
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 1.., value_delimiter = ',')]
    pub(crate) ha_listen: Option<Vec<SocketAddr>>,
    /// 0 on one node, 1 on the other; the lower one serves first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1))]
    pub(crate) ha_rank: Option<u32>,
    /// The pair's key, the same on both nodes: 32 bytes in hexadecimal or base64, such as
    /// `openssl rand -hex 32` prints; a second line while the key is changed.
    #[arg(long, value_name = "FILE")]
    pub(crate) ha_key_file: Option<PathBuf>,
    /// This node's certificate chain (PEM) for mutual TLS between the nodes, with --ha-tls-key and
    /// --ha-tls-ca on both; the key file stays needed.
    #[arg(long, value_name = "FILE")]
    pub(crate) ha_tls_cert: Option<PathBuf>,
    /// The private key of --ha-tls-cert (PEM), readable by its owner only.
    #[arg(long, value_name = "FILE")]
    pub(crate) ha_tls_key: Option<PathBuf>,
    /// The CA certificates (PEM) of which the other node's certificate must be.
    #[arg(long, value_name = "FILE")]
    pub(crate) ha_tls_ca: Option<PathBuf>,
    /// The DNS name or address that the other node's certificate must bear [default: the host of
    /// one of --ha-peer].
    #[arg(long, value_name = "NAME")]
    pub(crate) ha_tls_peer_name: Option<String>,
    /// Timers for lan (one room), wan (two sites) or seed (two sites, with more patience)
    /// [default: lan].
    #[arg(long, value_name = "PROFILE")]
    pub(crate) ha_profile: Option<HaProfile>,
    /// Who decides that a node takes over: available (silence, or proof of death), confirm and
    /// manual (a person); auto is available in one room and confirm between sites [default: auto].
    #[arg(long, value_name = "MODE")]
    pub(crate) ha_mode: Option<HaMode>,
    /// Which node serves first when nobody does: auto (the lower rank), primary (this one) or
    /// standby (the other one). front: no node, but a front without an engine, which uses those of
    /// both nodes; --ha-peer names them, and the model's options are theirs [default: auto].
    #[arg(long, value_name = "ROLE")]
    pub(crate) ha_role: Option<HaRole>,
    /// What the engine of the node that stands by reads along of running streams, so that it takes
    /// them over sooner; equal on both nodes [default: full].
    #[arg(long, value_name = "WHAT")]
    pub(crate) ha_shadow: Option<SpareShadow>,
    /// Where the node keeps its epoch, history and audit log; one directory a node [default:
    /// $XDG_STATE_HOME/hotspare/NODE, or ~/.local/state/hotspare/NODE].
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The other node's HTTP, probed when that node is suspect: a port that refuses proves that the
    /// server is gone [default: the host of the first --ha-peer, and --port of this node].
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) ha_peer_http: Option<String>,
    /// Addresses that this node should reach if it is not cut off: where it reaches too few, it is
    /// not promoted.
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., value_delimiter = ',')]
    pub(crate) ha_reference: Option<Vec<String>>,
    /// How many references have to be reached [default: 1].
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) ha_min_num_references: Option<usize>,
    /// From one look at the references to the next [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_reference_interval_ms: Option<u64>,
    /// How long connecting to a reference may take [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_reference_timeout_ms: Option<u64>,
    /// A port that answers HAProxy's agent-check.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) ha_agent_listen: Option<SocketAddr>,
    /// Programs that are run when the role changes, with HA_… in their environment.
    #[arg(long, value_name = "PROGRAM", num_args = 1.., value_delimiter = ',')]
    pub(crate) ha_hook: Option<Vec<PathBuf>>,
    /// Addresses that get a POST when the role changes.
    #[arg(long, value_name = "URL", num_args = 1.., value_delimiter = ',')]
    pub(crate) ha_webhook: Option<Vec<String>>,
    /// Hooks must have succeeded before a promoted node takes requests [default: false].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) ha_require_hooks: Option<bool>,
    /// Over a dead peer, a node with another model or configuration is better than none
    /// [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) ha_availability_first: Option<bool>,
    /// Mode strict: serve on the peer's promise while the lease store does not answer [default:
    /// true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) ha_failsafe: Option<bool>,
    /// Mode confirm: take over when nobody answered in time [default: false].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) ha_promote_on_confirm_timeout: Option<bool>,
    /// Automatic role changes in a flap window, after which it takes longer until the next one
    /// [default: 2].
    #[arg(long, value_name = "N")]
    pub(crate) ha_max_role_changes: Option<u32>,
    /// How far the rates of the nodes' clocks may differ, in thousandths [default: 10].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub(crate) ha_clock_rate_permille: Option<u64>,
}

/// `--ha-profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HaProfile {
    Lan,
    Wan,
    Seed,
}

/// `--ha-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HaMode {
    Auto,
    Available,
    Strict,
    Confirm,
    Manual,
}

/// `--ha-role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HaRole {
    Auto,
    Primary,
    Standby,
    Front,
}

/// What the options mean.
#[derive(Clone, Debug)]
pub(crate) struct HaSettings {
    /// As it was given.
    pub(crate) rank: Option<u32>,
    /// No node: a front without an engine.
    pub(crate) is_front: bool,
    /// None: a node alone.
    pub(crate) peers: Vec<String>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) tls_peer_name: Option<String>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) peer_http: Option<String>,
    pub(crate) agent_listen: Option<SocketAddr>,
    pub(crate) references: Vec<String>,
    pub(crate) min_num_references: usize,
    pub(crate) reference_interval_ms: u64,
    pub(crate) reference_timeout_ms: u64,
    pub(crate) hooks: Vec<PathBuf>,
    pub(crate) webhooks: Vec<String>,
    /// The machine's.
    pub(crate) machine: Settings,
    /// The drivers'.
    pub(crate) bounds: PairBounds,
}

impl HaArgs {
    /// The settings, and those of `front` that belong to a pair.
    pub(crate) fn resolve(
        &self,
        timer_args: &HaTimerArgs,
        limit_args: &HaLimitArgs,
        front: &mut FrontConfig,
        warnings: &mut Vec<String>,
    ) -> HaSettings {
        let profile = match self.ha_profile {
            None | Some(HaProfile::Lan) => Profile::Lan,
            Some(HaProfile::Wan) => Profile::Wan,
            Some(HaProfile::Seed) => Profile::Seed,
        };
        let mode = match self.ha_mode {
            None | Some(HaMode::Auto) => Settings::auto_mode(false, profile),
            Some(HaMode::Available) => Mode::Available,
            Some(HaMode::Strict) => Mode::Strict,
            Some(HaMode::Confirm) => Mode::Confirm,
            Some(HaMode::Manual) => Mode::Manual,
        };
        let rank = self.ha_rank.unwrap_or(0);
        let mut machine = Settings::pair(rank, 1 - rank.min(1), mode, profile);
        machine.timers = timers(profile, timer_args, front);
        machine.initial_role = match self.ha_role {
            None | Some(HaRole::Auto | HaRole::Front) => InitialRole::Auto,
            Some(HaRole::Primary) => InitialRole::Primary,
            Some(HaRole::Standby) => InitialRole::Standby,
        };
        let set = |to: &mut bool, from: Option<bool>| *to = from.unwrap_or(*to);
        set(&mut machine.require_hooks, self.ha_require_hooks);
        set(&mut machine.availability_first, self.ha_availability_first);
        set(&mut machine.failsafe, self.ha_failsafe);
        let on_timeout = &mut machine.promote_on_confirm_timeout;
        set(on_timeout, self.ha_promote_on_confirm_timeout);
        machine.max_role_changes = self.ha_max_role_changes.unwrap_or(machine.max_role_changes);
        machine.clock_rate_permille = self
            .ha_clock_rate_permille
            .unwrap_or(machine.clock_rate_permille);
        if let Some(shadow) = self.ha_shadow {
            front.peer_shadow = shadow.into();
        }
        let mut bounds = PairBounds::default();
        limit_args.apply(&mut bounds, front);
        self.warn(warnings);
        HaSettings {
            rank: self.ha_rank,
            is_front: self.ha_role == Some(HaRole::Front),
            peers: self.ha_peer.clone().unwrap_or_default(),
            listen: self.ha_listen.clone().unwrap_or_default(),
            key_file: self.ha_key_file.clone(),
            tls_cert: self.ha_tls_cert.clone(),
            tls_key: self.ha_tls_key.clone(),
            tls_ca: self.ha_tls_ca.clone(),
            tls_peer_name: self.ha_tls_peer_name.clone(),
            state_dir: self.state_dir.clone(),
            peer_http: self.ha_peer_http.clone(),
            agent_listen: self.ha_agent_listen,
            references: self.ha_reference.clone().unwrap_or_default(),
            min_num_references: self.ha_min_num_references.unwrap_or(1),
            reference_interval_ms: self.ha_reference_interval_ms.unwrap_or(1_000),
            reference_timeout_ms: self.ha_reference_timeout_ms.unwrap_or(1_000),
            hooks: self.ha_hook.clone().unwrap_or_default(),
            webhooks: self.ha_webhook.clone().unwrap_or_default(),
            machine,
            bounds,
        }
    }

    /// Names what is set and means nothing.
    fn warn(&self, warnings: &mut Vec<String>) {
        let set = [
            ("ha-listen", self.ha_listen.is_some()),
            ("ha-rank", self.ha_rank.is_some()),
            ("ha-key-file", self.ha_key_file.is_some()),
            ("ha-tls-cert", self.ha_tls_cert.is_some()),
            ("ha-mode", self.ha_mode.is_some()),
            ("ha-role", self.ha_role.is_some()),
        ];
        let named = set.iter().find(|(_, is_set)| *is_set);
        if let (None, Some((name, _))) = (&self.ha_peer, named) {
            warnings.push(format!(
                "--{name} means nothing without --ha-peer: this node serves alone."
            ));
        }
    }

    /// These, and where they say nothing, `lower`.
    pub(crate) fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            ha_peer,
            ha_listen,
            ha_rank,
            ha_key_file,
            ha_tls_cert,
            ha_tls_key,
            ha_tls_ca,
            ha_tls_peer_name,
            ha_profile,
            ha_mode,
            ha_role,
            ha_shadow,
            state_dir,
            ha_peer_http,
            ha_reference,
            ha_min_num_references,
            ha_reference_interval_ms,
            ha_reference_timeout_ms,
            ha_agent_listen,
            ha_hook,
            ha_webhook,
            ha_require_hooks,
            ha_availability_first,
            ha_failsafe,
            ha_promote_on_confirm_timeout,
            ha_max_role_changes,
            ha_clock_rate_permille,
        )
    }
}

impl HaSettings {
    /// Whether a node can be one of a pair with these; the error is one sentence.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.is_front {
            return self.check_front();
        }
        if self.peers.is_empty() {
            return Ok(());
        }
        let needs = |what: &str| Err(format!("--ha-peer needs {what}"));
        if self.rank.is_none() {
            return needs("--ha-rank: 0 on one node, 1 on the other");
        }
        if self.key_file.is_none() {
            return needs("--ha-key-file, with the same key on both nodes");
        }
        if self.listen.is_empty() {
            return needs("--ha-listen, so that the other node can reach this one");
        }
        self.check_tls()?;
        if self.machine.mode == Mode::Strict {
            let why = "--ha-mode strict needs a lease store, and this build has none yet";
            return Err(why.to_owned());
        }
        let checked = self.machine.validate();
        checked.map_err(|error| format!("the timers of the pair (--ha-…): {error}"))
    }

    fn check_tls(&self) -> Result<(), String> {
        let tls = [&self.tls_cert, &self.tls_key, &self.tls_ca];
        let num_tls = tls.iter().filter(|file| file.is_some()).count();
        if num_tls != 0 && num_tls != tls.len() {
            let why = "mTLS needs all of --ha-tls-cert, --ha-tls-key and --ha-tls-ca";
            return Err(why.to_owned());
        }
        if self.tls_peer_name.is_some() && num_tls == 0 {
            return Err("--ha-tls-peer-name needs --ha-tls-cert".to_owned());
        }
        Ok(())
    }

    /// What a front without an engine must and must not be told.
    fn check_front(&self) -> Result<(), String> {
        let front = |what: &str| Err(format!("--ha-role front {what}"));
        if self.peers.is_empty() {
            return front("needs --ha-peer, with the --ha-listen of both nodes");
        }
        if self.key_file.is_none() {
            return front("needs --ha-key-file, with the key of the nodes");
        }
        if self.rank.is_some() || !self.listen.is_empty() {
            return front("is no node: it takes neither --ha-rank nor --ha-listen");
        }
        self.check_tls()
    }
}

/// The profile's timers with those that are set, also where the front uses them.
fn timers(profile: Profile, args: &HaTimerArgs, front: &mut FrontConfig) -> Timers {
    let mut timers = Timers::of(profile);
    args.apply(&mut timers);
    front.takeover_hold_ms = timers.takeover_hold_ms;
    front.peer_dead_after_ms = timers.dead_after_ms;
    front.peer_drain_ms = timers.drain_ms;
    timers
}
