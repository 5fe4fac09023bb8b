//! The six causes of NaN in training, on the task of `train`: each is provoked with the formulas that one would write,
//! located by the reports, and cured: `cargo run --release --example six_causes`, and `-- --help` for the options.
//!
//! It succeeds only if every cause was provoked, located where plain loops over the data find it, and cured.

#![allow(dead_code, reason = "the modules of `train` hold more than is used here")]

mod cause;
#[path = "../train/data.rs"]
mod data;
#[path = "../train/matrix.rs"]
mod matrix;
#[path = "../train/network.rs"]
mod network;
#[path = "../train/optimizer.rs"]
mod optimizer;
mod probe;
#[path = "../train/random.rs"]
mod random;
mod textbook;
mod training;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::cause::Cause;
use crate::data::{Data, Source};
use crate::training::{Run, train};

/// Provokes, locates and cures the six causes of NaN in training.
#[derive(Debug, Parser)]
#[command(name = "six_causes")]
struct Options {
    /// This cause alone
    #[arg(long, value_enum, value_name = "NAME")]
    cause: Option<Cause>,

    /// Write the gradient logs of the provoked runs to this page, or one beside it for each cause; needs the feature html
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Times to go through the training set, for the runs that are cured
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u16).range(1..))]
    epochs: u16,

    /// Decides the split, the first weights and the order of the samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// What came of a cause.
struct Outcome {
    cause: Cause,
    provoked: Run,
    cured: Run,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went as it should.
fn run(options: &Options) -> Result<bool> {
    let data = Data::load(Source::Wine, options.seed).context("preparing the data")?;
    println!("{data}");
    let causes = options.cause.map_or(Cause::value_variants().to_vec(), |cause| vec![cause]);
    let mut outcomes = Vec::new();
    for cause in causes {
        let outcome = Outcome {
            cause,
            provoked: train(&cause.provoke(), &data, options.epochs, options.seed)?,
            cured: train(&cause.cure(), &data, options.epochs, options.seed)?,
        };
        outcome.print();
        if let Some(path) = &options.html {
            let path = if options.cause.is_some() { path.clone() } else { beside(path, cause) };
            // A page that cannot be written is no reason to lose the run.
            match save_page(&outcome, &path) {
                Ok(()) => println!("page         {}", path.display()),
                Err(error) => eprintln!("{error}"),
            }
        }
        outcomes.push(outcome);
    }

    let commonest = data.accuracy_of_commonest_class();
    println!("\n{:<16} {:<34} {:<8} {:<6} accuracy", "cause", "born at", "located", "cured");
    for outcome in &outcomes {
        outcome.print_line(commonest);
    }
    println!("always answering the commonest class: {:.1} %", 100.0 * commonest);
    Ok(outcomes.iter().all(|outcome| outcome.is_located() && outcome.is_cured(commonest)))
}

impl Outcome {
    fn is_located(&self) -> bool {
        self.provoked.truth.is_some() && self.provoked.truth == self.provoked.reported()
    }

    fn is_cured(&self, commonest: f64) -> bool {
        self.cured.truth.is_none() && self.cured.faults.is_empty() && self.cured.accuracy > commonest
    }

    fn print(&self) {
        let Self { cause, provoked, cured } = self;
        println!("\n=== {}: {}", cause.name(), cause.story());
        println!("provoked     {} steps", provoked.steps);
        for event in provoked.log.events().iter().take(3) {
            println!("log          {event}");
        }
        println!("report       {}", provoked.faults.to_string().replace('\n', "\n             "));
        match &provoked.truth {
            Some(truth) => println!("true place   {truth}"),
            None => println!("true place   nothing happened"),
        }
        println!("cure         {}", cause.remedy());
        println!(
            "cured        {} steps, faults: {}, accuracy {:.1} %",
            cured.steps,
            cured.faults.total(),
            100.0 * cured.accuracy
        );
    }

    fn print_line(&self, commonest: f64) {
        let place = self.provoked.reported().map_or("nowhere".to_string(), |place| place.short());
        let yes = |is: bool| if is { "yes" } else { "NO" };
        let (located, cured) = (yes(self.is_located()), yes(self.is_cured(commonest)));
        let accuracy = 100.0 * self.cured.accuracy;
        println!("{:<16} {place:<34} {located:<8} {cured:<6} {accuracy:>6.1} %", self.cause.name());
    }
}

/// `page.html` becomes `page-exploding.html`.
fn beside(path: &Path, cause: Cause) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{}.html", cause.name()))
}

#[cfg(feature = "html")]
fn save_page(outcome: &Outcome, path: &Path) -> Result<()> {
    let mut log = outcome.provoked.log.clone();
    for fault in outcome.provoked.faults.faults() {
        log.mark(fault.step, &fault.layer, fault.report);
    }
    Ok(log.save_html(&format!("Six causes: {}", outcome.cause.name()), path)?)
}

#[cfg(not(feature = "html"))]
fn save_page(_: &Outcome, _: &Path) -> Result<()> {
    anyhow::bail!("no page: --html needs `cargo run --release --features html --example six_causes`")
}
