//! Results as lines: for people on standard output, as JSON in a file.
//!
//! Invariant: a result is on the disk before the next is begun.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

/// What ran it.
pub(super) struct Machine {
    /// As `--device` has it.
    pub(super) device: String,
    /// The card, the driver, its clocks.
    pub(super) facts: Value,
    /// The card opened, in a build that can.
    #[cfg(feature = "cuda")]
    pub(super) driver: Option<(hotspare_backend_cuda::card::Driver, usize)>,
}

impl Machine {
    /// Looks for the device.
    pub(super) fn find(device: &str) -> Result<Self, String> {
        if device == "cpu" {
            return Ok(Self {
                device: device.to_owned(),
                facts: json!({"device": device, "card": cpu_name()}),
                #[cfg(feature = "cuda")]
                driver: None,
            });
        }
        let ordinal = device.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        let ordinal: usize =
            ordinal.ok_or_else(|| format!("--device {device}: there are cpu and cuda:N"))?;
        Self::find_card(device, ordinal)
    }

    #[cfg(not(feature = "cuda"))]
    fn find_card(device: &str, _ordinal: usize) -> Result<Self, String> {
        Err(format!(
            "no GPU: this build has no CUDA backend, so --device {device} cannot be tested; build \
             with `--features cuda`"
        ))
    }

    #[cfg(feature = "cuda")]
    fn find_card(device: &str, ordinal: usize) -> Result<Self, String> {
        use hotspare_backend_cuda::card::{Driver, KERNELS_HASH};

        let driver = Driver::load().map_err(|error| format!("no GPU: {error}"))?;
        let card = driver.card(ordinal).map_err(|error| error.to_string())?;
        card.code().map_err(|error| error.to_string())?;
        let facts = json!({
            "device": device,
            "card": card.name,
            "uuid": card.uuid,
            "architecture": card.capability.name(),
            "memory_bytes": card.total_bytes,
            "multiprocessors": card.num_multiprocessors,
            "max_clock_mhz": card.clock_mhz,
            "max_memory_clock_mhz": card.memory_clock_mhz,
            "memory_bus_bits": card.bus_bits,
            "driver": driver.installed_version(),
            "cuda": driver.cuda_version,
            "kernels": KERNELS_HASH,
        });
        Ok(Self {
            device: device.to_owned(),
            facts,
            driver: Some((driver, ordinal)),
        })
    }
}

/// The processor's name.
fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Where results go.
pub(super) struct Report {
    pub(super) machine: Machine,
    file: Option<File>,
    start: Instant,
    num_passed: usize,
    num_failed: usize,
}

impl Report {
    /// Adds to the file at `path`, if one is named; begins with what runs it.
    pub(super) fn new(path: Option<&Path>, machine: Machine) -> Result<Self, String> {
        let open = |path: &Path| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|error| format!("--json {}: {error}", path.display()))
        };
        let mut report = Self {
            file: path.map(open).transpose()?,
            machine,
            start: Instant::now(),
            num_passed: 0,
            num_failed: 0,
        };
        let mut facts = report.machine.facts.clone();
        facts["version"] = env!("CARGO_PKG_VERSION").into();
        facts["commit"] = commit().into();
        report.say(&format!("on {}", facts["card"].as_str().unwrap_or("?")));
        report.write(&json!({"machine": facts}));
        Ok(report)
    }

    /// Something that was tested, and how it came out.
    pub(super) fn result(&mut self, passed: bool, name: &str, note: &str, more: Value) {
        match passed {
            true => self.num_passed += 1,
            false => self.num_failed += 1,
        }
        let seconds = self.start.elapsed().as_secs_f64();
        let word = if passed { "ok    " } else { "FAILED" };
        self.say(&format!("{word} {seconds:7.1} s  {name:<28} {note}"));
        let mut line = json!({"name": name, "passed": passed, "note": note, "at_s": seconds});
        if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
            line.extend(more.clone());
        }
        self.write(&line);
    }

    /// Seconds since the start.
    #[cfg(feature = "cuda")]
    pub(super) fn elapsed_s(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    /// The sum of it.
    pub(super) fn end(mut self) -> ExitCode {
        let [passed, failed] = [self.num_passed, self.num_failed];
        self.say(&format!("{passed} passed, {failed} failed"));
        self.write(&json!({"passed": passed, "failed": failed}));
        match failed == 0 && passed > 0 {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    fn say(&self, line: &str) {
        // Where nobody reads it, the file says it.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    fn write(&mut self, line: &Value) {
        if let Some(file) = &mut self.file
            && let Err(error) = writeln!(file, "{line}").and_then(|()| file.sync_data())
        {
            tracing::error!("--json: {error}");
            self.file = None;
            self.num_failed += 1;
        }
    }
}

/// What was built: of the environment of the build, or as verify.sh found it.
fn commit() -> String {
    let built = option_env!("HOTSPARE_COMMIT").map(str::to_owned);
    let said = std::env::var("HOTSPARE_VERIFY_COMMIT").ok();
    built.or(said).unwrap_or_else(|| "unknown".to_owned())
}
