//! Reads the captured output of the test command and tells whether the cited tests ran and passed.
//!
//! Understood are the lines of Rust's test harness and of libtest-mimic, `test path::name ... ok`, and cargo's lines
//! that say which test program follows, which keep tests of the same name in different crates apart.

use super::covers::Cover;
use crate::Findings;
use std::path::Path;

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// Ignored, so not run.
    Skipped,
}

#[derive(Debug)]
struct Line {
    /// Name of the test program without cargo's hash (`ringfort_types`, `e2e`); none before the first.
    program: Option<String>,
    name: String,
    outcome: Outcome,
}

/// The outcome of a run.
#[derive(Debug)]
pub(super) struct Results {
    lines: Vec<Line>,
}

impl Results {
    pub(super) fn parse(output: &str) -> Self {
        let mut program = None;
        let mut lines = Vec::new();
        for line in output.lines() {
            if let Some(next) = program_line(line) {
                program = Some(next);
            } else if let Some((name, outcome)) = test_line(line) {
                lines.push(Line { program: program.clone(), name: name.to_owned(), outcome });
            }
        }
        Self { lines }
    }

    /// Findings on cited tests that did not run and pass.
    pub(super) fn judge(&self, covers: &[Cover]) -> Findings {
        let mut findings = Findings::new();
        for cover in covers {
            let mut runs = self.lines.iter().filter(|line| line.is_of(cover)).peekable();
            let trouble = if runs.peek().is_none() {
                "did not run"
            } else if runs.clone().any(|line| line.outcome == Outcome::Failed) {
                "failed"
            } else if runs.any(|line| line.outcome == Outcome::Skipped && !self.passed(line)) {
                "was ignored"
            } else {
                continue;
            };
            findings.push(format!(
                "{}: {} {} by {}, which {trouble}",
                cover.place(),
                cover.row,
                cover.side,
                cover.test
            ));
        }
        findings
    }

    /// Whether the same test passed in another of the runs: what is ignored without something that is not on every machine
    /// is run again with it.
    fn passed(&self, ignored: &Line) -> bool {
        let is_same = |line: &&Line| (&line.program, &line.name) == (&ignored.program, &ignored.name);
        self.lines.iter().filter(is_same).any(|line| line.outcome == Outcome::Passed)
    }

    /// Counts in the words of a test runner.
    pub(super) fn summary(&self) -> String {
        let count = |outcome| self.lines.iter().filter(|line| line.outcome == outcome).count();
        let (passed, failed, skipped) = (count(Outcome::Passed), count(Outcome::Failed), count(Outcome::Skipped));
        format!("tests: {passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Line {
    /// Whether the line tells of the function that `cover` names: in its program, below its module for a unit test,
    /// and by a name that is the function's, alone or after something that is no part of a word (a test that runs on
    /// several backends is `epoll::allow` and `io_uring::allow`).
    fn is_of(&self, cover: &Cover) -> bool {
        let origin = Origin::of(&cover.file);
        let in_program = match (&self.program, &origin.program) {
            (Some(ran), Some(expected)) => ran == expected,
            _ => true,
        };
        let Some(before) = self.name.strip_suffix(cover.test.as_str()) else { return false };
        in_program
            && self.name.starts_with(&origin.module)
            && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    }
}

/// Where a source file's tests run.
struct Origin {
    /// The test program, where the path alone tells it: an integration test's.
    program: Option<String>,
    /// The module path of a unit test's file with its closing `::`; empty at the crate's root.
    module: String,
}

impl Origin {
    fn of(file: &str) -> Self {
        let stem = |path: &str| Path::new(path).with_extension("").to_string_lossy().into_owned();
        if let Some((package, inner)) = split_folder(file, "src") {
            let inner = stem(inner);
            let module = match inner.as_str() {
                "lib" | "main" => String::new(),
                inner => inner.strip_suffix("/mod").unwrap_or(inner).replace('/', "::") + "::",
            };
            return Self { program: Some(program_of(package)), module };
        }
        if let Some((_, inner)) = split_folder(file, "tests") {
            let first = inner.split('/').next().unwrap_or(inner);
            return Self { program: Some(stem(first)), module: String::new() };
        }
        Self { program: None, module: String::new() }
    }
}

/// Splits `a/b/src/c.rs` at the folder `src` into `a/b` and `c.rs`.
fn split_folder<'a>(file: &'a str, folder: &str) -> Option<(&'a str, &'a str)> {
    file.split_once(&format!("/{folder}/"))
}

/// The unit test program of the package in `folder`, by the table of crates; a package elsewhere is called after its
/// last folder.
fn program_of(folder: &str) -> String {
    let place = crate::layers::PLACES.iter().find(|place| place.folder == folder);
    let last = folder.rsplit('/').next().unwrap_or(folder);
    place.map_or(last, |place| place.package).replace('-', "_")
}

/// The program that cargo says it starts: `Running unittests src/lib.rs (target/debug/deps/ringfort_types-0a1b2c)`.
fn program_line(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(format!("doc-tests of {package}"));
    }
    let path = line.strip_prefix("Running ")?.split_once(" (")?.1.strip_suffix(')')?;
    let file = path.rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _hash)| name).to_owned())
}

fn test_line(line: &str) -> Option<(&str, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match outcome.split([' ', ',', '\t']).next()? {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Skipped,
        _ => return None,
    };
    // libtest-mimic pads names to one width.
    let name = name.trim_end();
    Some((name.strip_suffix(" - should panic").unwrap_or(name), outcome))
}

#[cfg(test)]
mod tests {
    use super::super::covers::Side;
    use super::*;

    const OUTPUT: &str = "   Compiling ringfort-types v0.1.0\n\
        \x20    Running unittests src/lib.rs (target/debug/deps/ringfort_types-0a1b2c3d)\n\
        \n\
        running 3 tests\n\
        test time::tests::passes ... ok\n\
        test tests::panics - should panic ... ok\n\
        test tests::skipped ... ignored, no device\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
        \x20    Running tests/e2e.rs (target/debug/deps/e2e-99aa)\n\
        test io_uring::case_allow   ... ok\n\
        test epoll::case_allow      ... ok\n\
        test io_uring::case_restart ... ok\n\
        test epoll::case_restart    ... FAILED\n\
        test io_uring::case_again   ... ignored\n\
        test epoll::case_again      ... ok\n\
        test case_later ... ignored\n\
        test clock::case_elsewhere ... ignored\n\
        \x20    Running tests/other.rs (target/debug/deps/other-11bb)\n\
        test case_later ... ok\n\
        \x20    Running tests/e2e.rs (target/debug/deps/e2e-99aa)\n\
        test clock::case_elsewhere ... ok\n\
        \x20  Doc-tests ringfort_types\n\
        test dataplane/types/src/lib.rs - passes (line 3) ... ok\n";

    fn findings(file: &str, test: &str) -> String {
        let cover =
            Cover { row: "K1".to_owned(), side: Side::Allow, test: test.to_owned(), file: file.to_owned(), line: 1 };
        Results::parse(OUTPUT).judge(&[cover]).join("\n")
    }

    #[test]
    fn tests_that_passed_are_accepted() {
        assert_eq!(findings("dataplane/types/src/time.rs", "passes"), "");
        assert_eq!(findings("dataplane/types/src/lib.rs", "panics"), "");
        assert_eq!(findings("gateway/cli/tests/e2e.rs", "case_allow"), "");
        assert_eq!(findings("gateway/cli/tests/e2e/steps.rs", "case_allow"), "");
    }

    #[test]
    fn tests_that_failed_on_one_backend_are_refused() {
        assert!(findings("gateway/cli/tests/e2e.rs", "case_restart").ends_with("which failed"));
    }

    #[test]
    fn ignored_tests_are_refused() {
        assert!(findings("dataplane/types/src/lib.rs", "skipped").ends_with("which was ignored"));
    }

    #[test]
    fn ignored_tests_that_passed_in_a_later_run_are_accepted() {
        assert_eq!(findings("gateway/cli/tests/e2e.rs", "case_elsewhere"), "");
        // Not those of another program, and not those that passed on another backend.
        for test in ["case_later", "case_again"] {
            assert!(findings("gateway/cli/tests/e2e.rs", test).ends_with("which was ignored"), "{test}");
        }
    }

    #[test]
    fn tests_that_did_not_run_are_refused() {
        for (file, test) in [
            ("dataplane/types/src/lib.rs", "absent"),
            ("dataplane/types/src/other.rs", "passes"),
            ("dataplane/rules/src/time.rs", "passes"),
            ("gateway/cli/tests/other.rs", "case_allow"),
            ("gateway/cli/tests/e2e.rs", "allow"),
        ] {
            assert!(findings(file, test).ends_with("which did not run"), "{file} {test}");
        }
    }

    #[test]
    fn the_summary_counts() {
        assert_eq!(Results::parse(OUTPUT).summary(), "tests: 9 passed, 1 failed, 4 skipped");
        assert_eq!(Results::parse("").summary(), "tests: 0 passed, 0 failed, 0 skipped");
    }
}
