//! The rule about container images: a Dockerfile is built on machines with an engine only, and what
//! it repeats of the repository would drift until then.
//!
//! Invariant: the compiler's image is of the workspace's `rust-version`, all images are of one
//! Debian (the binary needs the C library it was built with), what is copied from the checkout is
//! there, and the kernels' stage copies what kernels/build.sh makes its hash of, no more, no less.

use std::path::Path;

use super::Finding;

/// Adds what the Dockerfiles say otherwise than the repository.
pub(crate) fn check(root: &Path, findings: &mut Vec<Finding>) -> Result<(), String> {
    let read = |name: &str| {
        std::fs::read_to_string(root.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let manifest: toml::Table = read("Cargo.toml")?
        .parse()
        .map_err(|error| format!("Cargo.toml: {error}"))?;
    let package = manifest.get("workspace").and_then(|x| x.get("package"));
    let rust_version = package.and_then(|x| x.get("rust-version")?.as_str());
    let repository = Repository {
        rust_version: rust_version.ok_or("Cargo.toml: there is no rust-version")?,
        kernel_sources: hashed(&read("kernels/build.sh")?)?,
        exists: &|path| exists(root, path),
    };
    for name in ["Dockerfile", "Dockerfile.cuda"] {
        for (line, what) in check_text(&read(name)?, &repository) {
            findings.push(Finding {
                file: name.to_owned(),
                line,
                what,
            });
        }
    }
    Ok(())
}

/// What a Dockerfile has to agree with.
struct Repository<'a> {
    rust_version: &'a str,
    kernel_sources: Vec<String>,
    /// Whether a path or a pattern names a file of the checkout.
    exists: &'a dyn Fn(&str) -> bool,
}

fn check_text(text: &str, repository: &Repository) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    let mut stages: Vec<&str> = Vec::new();
    let mut debian: Option<&str> = None;
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        let mut find = |what: String| findings.push((index + 1, what));
        match words.next() {
            Some("FROM") => {
                let image = words.next().unwrap_or_default();
                stages.push(line.rsplit_once(" AS ").map_or("", |(_, name)| name.trim()));
                let (name, tag) = image.split_once(':').unwrap_or((image, ""));
                let (version, suite) = match name {
                    "rust" => tag.split_once('-').unwrap_or((tag, "")),
                    _ => (repository.rust_version, tag.trim_end_matches("-slim")),
                };
                if version != repository.rust_version {
                    find(format!(
                        "{image}: rust-version is {}",
                        repository.rust_version
                    ));
                }
                if *debian.get_or_insert(suite) != suite {
                    find(format!("{image}: the stage above is of another Debian"));
                }
            }
            Some("COPY") => {
                let words: Vec<&str> = words.collect();
                if words.iter().any(|word| word.starts_with("--from=")) {
                    continue;
                }
                let sources = &words[..words.len().saturating_sub(1)];
                for source in sources {
                    if !(repository.exists)(source) {
                        find(format!("COPY {source}: there is no such file"));
                    }
                }
                if stages.last() == Some(&"kernels") {
                    let hashed = &repository.kernel_sources;
                    let hashed: Vec<String> =
                        hashed.iter().map(|x| format!("kernels/{x}")).collect();
                    if hashed != *sources {
                        find(format!("kernels/build.sh hashes {}", hashed.join(" ")));
                    }
                }
            }
            _ => {}
        }
    }
    findings
}

/// The names and patterns, relative to kernels/, whose content decides if kernels are made again.
fn hashed(script: &str) -> Result<Vec<String>, String> {
    let line = script
        .lines()
        .find_map(|line| line.trim().strip_prefix("sha256sum -- "));
    let words = line.ok_or("kernels/build.sh: there is no line `sha256sum -- …`")?;
    Ok(words.split_whitespace().map(str::to_owned).collect())
}

/// Whether `path`, whose last part may be `*.EXTENSION`, names something.
fn exists(root: &Path, path: &str) -> bool {
    let Some((folder, extension)) = path.split_once("*.") else {
        return root.join(path).exists();
    };
    let Ok(mut entries) = std::fs::read_dir(root.join(folder)) else {
        return false;
    };
    entries.any(|entry| entry.is_ok_and(|x| x.path().extension().is_some_and(|x| x == extension)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "FROM rust:1.95-bookworm AS kernels\n\
        COPY kernels/*.cu kernels/build.sh kernels/\n\
        FROM rust:1.95-bookworm AS build\nCOPY . .\nCOPY --from=kernels /gone target\n\
        FROM debian:bookworm-slim\nCOPY --from=build /src/out /usr/local/bin\n";

    fn findings(text: &str) -> Vec<(usize, String)> {
        let repository = Repository {
            rust_version: "1.95",
            kernel_sources: hashed("cd here\n  sha256sum -- *.cu build.sh\n").unwrap(),
            exists: &|path| [".", "kernels/*.cu", "kernels/build.sh"].contains(&path),
        };
        check_text(text, &repository)
    }

    #[test]
    fn a_dockerfile_that_agrees_has_no_findings() {
        assert_eq!(findings(GOOD), []);
    }

    #[test]
    fn each_drift_is_found_where_it_is() {
        for (good, bad, expected) in [
            (
                "rust:1.95-bookworm AS build",
                "rust:1.96-bookworm AS build",
                (3, "rust-version"),
            ),
            ("debian:bookworm", "debian:trixie", (6, "another Debian")),
            ("COPY . .", "COPY crate .", (4, "COPY crate")),
            (
                "kernels/build.sh kernels/",
                "kernels/",
                (2, "hashes kernels/*.cu kernels/build.sh"),
            ),
        ] {
            let found = findings(&GOOD.replace(good, bad));
            let [(line, what)] = found.as_slice() else {
                panic!("{bad}: {found:?}");
            };
            assert!(
                *line == expected.0 && what.contains(expected.1),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_pattern_names_what_has_the_extension() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.cu"), "").unwrap();
        assert!(exists(folder.path(), "*.cu") && exists(folder.path(), "a.cu"));
        assert!(!exists(folder.path(), "*.cuh") && !exists(folder.path(), "gone/*.cu"));
    }
}
