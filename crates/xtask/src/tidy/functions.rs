//! Rules about functions and tests: length, ignored tests, unfinished code.
//!
//! Invariant: a function's length is counted from its signature to its closing brace.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::{Finding, Source};

const MAX_FUNCTION_LINES: usize = 70;

/// Adds functions that are too long, tests that never run, and unfinished code.
pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    Rules { source, findings }.visit_file(&source.tree);
}

struct Rules<'a> {
    source: &'a Source,
    findings: &'a mut Vec<Finding>,
}

impl Rules<'_> {
    fn check_length(&mut self, name: &syn::Ident, signature: Span, block: &syn::Block) {
        let (first, last) = (signature.start().line, block.span().end().line);
        let num_lines = last + 1 - first;
        if num_lines > MAX_FUNCTION_LINES {
            let what = format!("`{name}` has {num_lines} lines; at most {MAX_FUNCTION_LINES}");
            self.findings.push(Finding::new(self.source, first, what));
        }
    }
}

impl<'ast> Visit<'ast> for Rules<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.check_length(&item.sig.ident, item.sig.span(), &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check_length(&item.sig.ident, item.sig.span(), &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        for banned in ["ignore", "should_panic"] {
            if attribute.path().is_ident(banned) {
                let what = format!("#[{banned}]: a test runs, and checks a value");
                self.findings.push(Finding::new(
                    self.source,
                    attribute.span().start().line,
                    what,
                ));
            }
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        for banned in ["todo", "unimplemented", "dbg"] {
            if item.path.is_ident(banned) {
                let what = format!("{banned}!: it is real or it is not there");
                self.findings
                    .push(Finding::new(self.source, item.span().start().line, what));
            }
        }
        visit::visit_macro(self, item);
    }
}
