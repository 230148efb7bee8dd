//! What happened, step by step, as a table or as JSON.

use std::time::Instant;

use anyhow::{Error, Result};
use serde_json::{Map, Value, json};

/// The demo's steps in order.
#[derive(Debug)]
pub(super) struct Report {
    tier: String,
    begun: Instant,
    steps: Vec<Step>,
    measurements: Map<String, Value>,
    failure: Option<String>,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    what: String,
    milliseconds: f64,
    passed: bool,
}

impl Report {
    pub(super) fn new(tier: String) -> Self {
        Self { tier, begun: Instant::now(), steps: Vec::new(), measurements: Map::new(), failure: None }
    }

    /// Carries out a step and notes how long it took. `what` says what should come of it; `work` may say it better.
    pub(super) fn step<T>(
        &mut self,
        name: &'static str,
        what: &str,
        work: impl FnOnce(&mut String) -> Result<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        let mut what = what.to_owned();
        let result = work(&mut what);
        let milliseconds = begun.elapsed().as_secs_f64() * 1_000.0;
        self.steps.push(Step { name, what, milliseconds, passed: result.is_ok() });
        result.map_err(|error| error.context(name))
    }

    pub(super) fn measured(&mut self, name: &str, value: Value) {
        self.measurements.insert(name.to_owned(), value);
    }

    pub(super) fn fail(&mut self, error: &Error) {
        self.failure = Some(crate::error_text(error));
    }

    pub(super) const fn passed(&self) -> bool {
        self.failure.is_none()
    }

    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            // In one piece: standard output makes a system call of each line.
            let text = format!("{:#}", self.document());
            println!("{text}");
        } else {
            self.print_table();
        }
    }

    fn total(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * 1_000.0
    }

    fn document(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| json!({ "step": step.name, "what": step.what, "ms": step.milliseconds, "passed": step.passed }))
            .collect();
        json!({
            "tier": self.tier,
            "steps": steps,
            "ms": self.total(),
            "measurements": self.measurements,
            "not_yet": NOT_YET,
            "passed": self.passed(),
            "failure": self.failure,
        })
    }

    fn print_table(&self) {
        println!("Ringfort demo (namespaces: {})\n", self.tier);
        for step in &self.steps {
            let mark = if step.passed { "ok  " } else { "FAIL" };
            println!("{mark} {:<12} {:>8.1} ms  {}", step.name, step.milliseconds, step.what);
        }
        println!("     {:<12} {:>8.1} ms\n", "in all", self.total());
        for (name, value) in &self.measurements {
            println!("     {name}: {value}");
        }
        println!("Not there yet: {NOT_YET}.");
        if let Some(failure) = &self.failure {
            println!("\nFAILED: {failure}");
        }
    }
}

/// Chapters of the story that the product cannot tell yet.
const NOT_YET: &str = "step-up; names at the site; Relays; several Controllers";
