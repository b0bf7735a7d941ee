//! Compiles the kernels with the host's C++ compiler, against the emulator, for tests.
//!
//! Only under the feature `emulator`, which this crate's own tests turn on: a build of the server
//! needs no C++ compiler. `HOTSPARE_SANITIZE=address` compiles with AddressSanitizer
//! (kernels/sanitize.sh runs the tests so).
//!
//! Invariant: without a compiler there is no `cfg(emulator)` and the suite says so; a kernel that
//! does not compile fails the build.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(emulator)");
    #[cfg(feature = "emulator")]
    emulator::build();
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
