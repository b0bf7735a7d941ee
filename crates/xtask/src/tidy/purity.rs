//! Rules about what a crate may touch: no clock, thread, socket or file in pure crates, no `unsafe`
//! outside the crates that the design allows it in.
//!
//! Invariant: test code is exempt from purity, never from the rule about `unsafe`.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::{Finding, Source};

/// Time and randomness are arguments there (DESIGN 8 and 9).
const PURE_CRATES: [&str; 7] = [
    "batch",
    "scheduler",
    "sampler",
    "failover",
    "protocol",
    "text",
    "journal",
];

/// Folders that may hold `unsafe`: SIMD kernels, the card, and the one place that maps a file.
const UNSAFE_PATHS: [&str; 3] = [
    "crates/backend-cpu/src/",
    "crates/backend-cuda/src/",
    "crates/model/src/mmap.rs",
];

/// Adds impure paths in pure crates, and `unsafe` where it is not allowed.
pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let pure = source
        .crate_name()
        .is_some_and(|name| PURE_CRATES.contains(&name));
    let may_be_unsafe = UNSAFE_PATHS
        .iter()
        .any(|path| source.path.starts_with(path));
    let bans_impure = pure && !source.is_test();
    Rules {
        source,
        findings,
        bans_impure,
        may_be_unsafe,
    }
    .visit_file(&source.tree);
}

struct Rules<'a> {
    source: &'a Source,
    findings: &'a mut Vec<Finding>,
    bans_impure: bool,
    may_be_unsafe: bool,
}

impl Rules<'_> {
    fn check_segments(&mut self, segments: &[String], line: usize) {
        if !self.bans_impure {
            return;
        }
        let path = segments.join("::");
        let banned = segments.iter().any(|s| {
            matches!(
                s.as_str(),
                "Instant" | "SystemTime" | "HashMap" | "HashSet" | "tokio"
            )
        }) || [
            "std::fs",
            "std::net",
            "std::thread",
            "std::env",
            "thread::spawn",
        ]
        .iter()
        .any(|prefix| path.starts_with(prefix));
        if banned {
            let what = format!("`{path}` in a pure crate: take it as an argument");
            self.findings.push(Finding::new(self.source, line, what));
        }
    }

    fn check_unsafe(&mut self, line: usize) {
        if !self.may_be_unsafe {
            let what = "`unsafe` outside the crates that the design allows it in";
            self.findings.push(Finding::new(self.source, line, what));
        }
    }

    fn check_use(&mut self, prefix: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.check_use(prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.check_use(prefix, tree);
                }
            }
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                prefix.push(ident.to_string());
                self.check_segments(&prefix.clone(), ident.span().start().line);
                prefix.pop();
            }
            syn::UseTree::Glob(glob) => {
                self.check_segments(&prefix.clone(), glob.span().start().line);
            }
        }
    }
}

fn is_cfg_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|ident| ident == "test")
    })
}

impl<'ast> Visit<'ast> for Rules<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let bans_impure = self.bans_impure;
        self.bans_impure &= !is_cfg_test(&item.attrs);
        visit::visit_item_mod(self, item);
        self.bans_impure = bans_impure;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_cfg_test(&item.attrs) {
            self.check_use(&mut Vec::new(), &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.check_segments(&segments, path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_expr_unsafe(&mut self, expr: &'ast syn::ExprUnsafe) {
        self.check_unsafe(expr.span().start().line);
        visit::visit_expr_unsafe(self, expr);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.unsafety.is_some() {
            self.check_unsafe(item.span().start().line);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.unsafety.is_some() {
            self.check_unsafe(signature.span().start().line);
        }
        visit::visit_signature(self, signature);
    }
}
