//! The rule about crate arrows: a crate depends only on crates of lower layers (DESIGN 8).
//!
//! Invariant: every crate of the workspace stands in the table; dependency versions stand in the
//! root manifest alone.

use std::path::Path;

use super::Finding;

/// Crates by layer, lowest first; a crate may use any crate above its line in this table.
const LAYERS: [&[&str]; 12] = [
    &["batch"],
    &[
        "scheduler",
        "sampler",
        "failover",
        "protocol",
        "text",
        "link",
        "hub",
        "journal",
    ],
    &["model"],
    &["pair"],
    &["backend-cpu"],
    &["backend-cuda"],
    &["engine"],
    &["front"],
    &["http"],
    &["hotspare"],
    &["testkit", "sim"],
    &["xtask", "it", "benches"],
];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&name))
}

/// Adds dependencies that point up, crates that the table lacks, and versions outside the root
/// manifest.
pub(crate) fn check(root: &Path, findings: &mut Vec<Finding>) -> Result<(), String> {
    let folder = root.join("crates");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|e| format!("{}: {e}", folder.display()))?
            .path();
        let manifest = path.join("Cargo.toml");
        if !manifest.exists() {
            continue;
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&manifest)
            .map_err(|e| format!("{}: {e}", manifest.display()))?;
        let table: toml::Table = text
            .parse()
            .map_err(|e| format!("{}: {e}", manifest.display()))?;
        for what in check_manifest(&name, &table) {
            findings.push(Finding {
                file: format!("crates/{name}/Cargo.toml"),
                line: 1,
                what,
            });
        }
    }
    Ok(())
}

fn check_manifest(name: &str, manifest: &toml::Table) -> Vec<String> {
    let Some(own_layer) = layer(name) else {
        return vec![format!("`{name}` is in no layer of xtask's table")];
    };
    let mut findings = Vec::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else {
            continue;
        };
        for (dependency, spec) in dependencies {
            if spec.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                findings.push(format!(
                    "`{dependency}`: its version belongs in the root manifest"
                ));
            }
            // Tests may look at anything: only what ships has arrows.
            let Some(target) = dependency.strip_prefix("hotspare-") else {
                continue;
            };
            let points_down = layer(target).is_some_and(|target| target < own_layer);
            if section == "dependencies" && !points_down {
                findings.push(format!("`{name}` must not depend on `{target}`"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, manifest: &str) -> Vec<String> {
        check_manifest(name, &manifest.parse().expect("test manifests parse"))
    }

    #[test]
    fn arrows_point_down() {
        let up = "[dependencies]\nhotspare-front.workspace = true\n";
        assert_eq!(
            findings("engine", up),
            ["`engine` must not depend on `front`"]
        );
        assert_eq!(findings("http", up), Vec::<String>::new());
        let sideways = "[dependencies]\nhotspare-sampler.workspace = true\n";
        assert_eq!(findings("scheduler", sideways).len(), 1);
    }

    #[test]
    fn versions_stand_in_the_root_manifest() {
        assert_eq!(
            findings("front", "[dependencies]\nserde = \"1\"\n").len(),
            1
        );
        assert_eq!(findings("nowhere", "").len(), 1, "an unknown crate");
    }
}
