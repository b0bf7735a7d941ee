//! Compiles the kernels: with the host's C++ compiler, against the emulator, for tests; with nvcc,
//! for the binary.
//!
//! Each under a feature of its own (`emulator`, which this crate's own tests turn on, and `cuda`):
//! a build of the server for CPUs needs neither compiler. `HOTSPARE_SANITIZE=address` compiles the
//! emulated ones with AddressSanitizer (kernels/sanitize.sh runs the tests so). nvcc's work takes
//! minutes; kernels/build.sh keeps it under target/kernels by the content of the sources.
//!
//! Invariant: without a C++ compiler there is no `cfg(emulator)` and the suite says so; a kernel
//! that does not compile, or a feature `cuda` without nvcc, fails the build with a reason.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(emulator)");
    #[cfg(feature = "emulator")]
    emulator::build();
    #[cfg(feature = "cuda")]
    fatbin::build();
}

#[cfg(feature = "cuda")]
mod fatbin {
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio, exit};

    /// Makes the fatbin, or says what is missing, and tells the crate where it lies.
    #[allow(clippy::print_stderr, reason = "cargo shows what a build script says")]
    pub(super) fn build() {
        let kernels = Path::new("../../kernels");
        println!("cargo:rerun-if-changed={}", kernels.display());
        println!("cargo:rerun-if-env-changed=CUDA_HOME");
        let mut command = Command::new(kernels.join("build.sh"));
        let output = command.stderr(Stdio::inherit()).output();
        let made = match output {
            Ok(output) if output.status.success() => {
                PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
            }
            Ok(output) => fail(&format!("kernels/build.sh: {}", output.status)),
            Err(error) => fail(&format!("kernels/build.sh cannot be run: {error}")),
        };
        let folder = made.parent().unwrap_or(kernels);
        let read = |name: &str| match std::fs::read(folder.join(name)) {
            Ok(bytes) => bytes,
            Err(error) => fail(&format!("{}: {error}", folder.join(name).display())),
        };
        // A copy, so that a later build of other sources leaves this one as it is.
        let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
        let fatbin = out.join("kernels.packed.fatbin");
        if let Err(error) = std::fs::write(&fatbin, read("kernels.packed.fatbin")) {
            fail(&format!("{}: {error}", fatbin.display()));
        }
        let hash = read("kernels.hash");
        let hash = String::from_utf8_lossy(&hash);
        println!("cargo:rustc-env=HOTSPARE_FATBIN={}", fatbin.display());
        println!("cargo:rustc-env=HOTSPARE_KERNELS_HASH={}", hash.trim());
    }

    #[allow(clippy::print_stderr, reason = "cargo shows what a build script says")]
    fn fail(reason: &str) -> ! {
        eprintln!(
            "\nThe feature `cuda` compiles kernels/ with nvcc of CUDA 13, and that failed: \
             {reason}\nnvcc is taken from CUDA_HOME, from PATH, or installed under target/ with \
             pip (kernels/toolkit.sh, which needs the network once). A build without `--features \
             cuda` needs none of it and serves on the CPU.\n"
        );
        exit(1)
    }
}

#[cfg(feature = "emulator")]
mod emulator {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::Mutex;
    use std::time::SystemTime;

    /// Compilers that run at once.
    const NUM_JOBS: usize = 2;

    pub(super) fn build() {
        let root = PathBuf::from("../../kernels");
        println!("cargo:rerun-if-changed={}", root.display());
        println!("cargo:rerun-if-env-changed=HOTSPARE_SANITIZE");
        println!("cargo:rerun-if-env-changed=CXX");
        let sanitizes = std::env::var("HOTSPARE_SANITIZE").is_ok_and(|x| x == "address");
        let Some(compiler) = compiler(sanitizes) else {
            println!("cargo:warning=no C++ compiler: the kernels' tests are skipped");
            return;
        };
        let files: Vec<PathBuf> = [root.clone(), root.join("emu")]
            .iter()
            .flat_map(|folder| fs::read_dir(folder).expect("kernels/ is in the checkout"))
            .map(|entry| entry.expect("kernels/ is readable").path())
            .collect();
        let is = |path: &Path, names: &[&str]| {
            path.extension()
                .is_some_and(|x| names.iter().any(|n| x == *n))
        };
        let headers = files.iter().filter(|path| is(path, &["h", "cuh"]));
        let newest_header = headers.map(|path| modified(path)).max();
        // all.cu is the others once more, for nvcc.
        let is_source = |path: &&PathBuf| is(path, &["cu", "cpp"]) && !path.ends_with("all.cu");
        let sources: Vec<&PathBuf> = files.iter().filter(is_source).collect();
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
        let queue = Mutex::new(sources.iter());
        let objects = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..NUM_JOBS {
                scope.spawn(|| {
                    loop {
                        let Some(source) = queue.lock().expect("no job panics with it").next()
                        else {
                            return;
                        };
                        let object = compile(&compiler, source, newest_header, &out, sanitizes);
                        objects.lock().expect("no job panics with it").push(object);
                    }
                });
            }
        });
        let mut objects = objects.into_inner().expect("no job panics with it");
        objects.sort();
        let mut archive = cc::Build::new();
        archive
            .cpp(true)
            .objects(objects)
            .link_lib_modifier("+whole-archive");
        archive.compile("hotspare_kernels_emulated");
        if sanitizes {
            println!("cargo:rustc-link-lib=dylib=asan");
        }
        println!("cargo:rustc-cfg=emulator");
    }

    fn compiler(sanitizes: bool) -> Option<cc::Tool> {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .opt_level(2)
            .debug(false)
            .warnings(true);
        // One rounding an operation, as on the card.
        build.flag("-ffp-contract=off").flag("-Wno-unknown-pragmas");
        if sanitizes {
            build
                .flag("-fsanitize=address")
                .flag("-fno-omit-frame-pointer")
                .flag("-g1");
        }
        let tool = build.try_get_compiler().ok()?;
        let works = Command::new(tool.path()).arg("--version").output();
        works
            .is_ok_and(|output| output.status.success())
            .then_some(tool)
    }

    fn modified(path: &Path) -> SystemTime {
        let metadata = fs::metadata(path).and_then(|metadata| metadata.modified());
        metadata.unwrap_or(SystemTime::now())
    }

    /// Compiles `source` unless its object is newer than it and all headers.
    fn compile(
        compiler: &cc::Tool,
        source: &Path,
        newest_header: Option<SystemTime>,
        out: &Path,
        sanitizes: bool,
    ) -> PathBuf {
        let stem = source
            .file_stem()
            .expect("a source has a name")
            .to_string_lossy();
        let suffix = if sanitizes { "asan.o" } else { "o" };
        let object = out.join(format!("{stem}.{suffix}"));
        let own_script = modified(Path::new("build.rs"));
        let newest = [Some(modified(source)), newest_header, Some(own_script)];
        let is_fresh = fs::metadata(&object)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|made| newest.into_iter().flatten().all(|time| time < made));
        if is_fresh {
            return object;
        }
        let mut command = compiler.to_command();
        command
            .args(["-x", "c++", "-c"])
            .arg(source)
            .arg("-o")
            .arg(&object);
        let output = command.output().expect("the compiler ran before");
        assert!(
            output.status.success(),
            "{}:\n{}",
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        object
    }
}
