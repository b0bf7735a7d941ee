//! How nvcc is found, and what is said where it cannot be.
//!
//! Invariant: nothing is installed here.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the script finds only what is linked here.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("OUT_DIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        let machine = Self(folder);
        std::fs::create_dir_all(machine.bin()).expect("the folder is ours");
        for tool in ["bash", "dirname", "grep"] {
            let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
            let found = found.into_iter().find(|path| path.exists());
            let found = found.expect("every machine has it");
            std::os::unix::fs::symlink(found, machine.bin().join(tool)).expect("it is new");
        }
        machine
    }

    fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// An nvcc of `release` in `folder`; its path.
    fn add_nvcc(&self, folder: &Path, release: &str) -> String {
        std::fs::create_dir_all(folder).expect("the folder is ours");
        let nvcc = folder.join("nvcc");
        let text =
            format!("#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}'\n");
        std::fs::write(&nvcc, text).expect("the folder is ours");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&nvcc, mode).expect("the file is ours");
        nvcc.display().to_string()
    }

    /// What the script says that it would take.
    fn version(&self) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/toolkit.sh");
        let mut command = Command::new(script);
        command.env_clear().env("PATH", self.bin());
        let output = command.arg("--version").output().expect("bash is there");
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn run(&self, home: Option<&Path>) -> (bool, String, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/toolkit.sh");
        let mut command = Command::new("/usr/bin/env");
        command
            .env_clear()
            .env("PATH", self.bin())
            .args(home.map(|home| {
                let mut setting = std::ffi::OsString::from("CUDA_HOME=");
                setting.push(home);
                setting
            }));
        let output = command
            .arg("bash")
            .arg(script)
            .arg(self.0.join("installed"))
            .output();
        let Output {
            status,
            stdout,
            stderr,
        } = output.expect("env is there");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        (status.success(), text(stdout), text(stderr))
    }
}

#[test]
fn without_a_compiler_and_without_python_the_reason_is_said() {
    let machine = Machine::new("toolkit-none");
    let (is_found, path, reason) = machine.run(None);
    assert!(!is_found && path.is_empty(), "{path}");
    assert!(
        reason.contains("no nvcc of CUDA 13 in CUDA_HOME or PATH, and no python3"),
        "{reason}"
    );
}

#[test]
fn the_users_compiler_is_taken_where_it_is_of_the_right_release() {
    let machine = Machine::new("toolkit-home");
    let home = machine.0.join("cuda");
    let of_home = machine.add_nvcc(&home.join("bin"), "13.1");
    let in_path = machine.add_nvcc(&machine.bin(), "13.0");
    assert_eq!(machine.run(Some(&home)).1, of_home);
    assert_eq!(machine.run(None).1, in_path);
    assert!(machine.version().contains("release 13.0, V13.0"));
    // One that does not know every card is passed over, and that is said.
    machine.add_nvcc(&home.join("bin"), "12.0");
    let (_, path, reason) = machine.run(Some(&home));
    assert_eq!(path, in_path);
    assert!(reason.contains("not of CUDA 13"), "{reason}");
    machine.add_nvcc(&machine.bin(), "12.8");
    let (is_found, _, reason) = machine.run(Some(&home));
    assert!(!is_found && reason.contains("no python3"), "{reason}");
    // Which one it would install is known to the last digit, and needs nothing.
    assert!(machine.version().contains("nvidia-cuda-nvcc==13."));
}
