//! Trains a classifier with two hidden layers on real data, every step of backpropagation done by the kernels of
//! `nanproof`: `cargo run --release --example train`, and `-- --help` for the options.
//!
//! Ends with one line `weights <digest>`. For the same options it is the same on every instruction set (try
//! `NANPROOF_ISA=baseline`) and, with `--features rayon`, for any number of threads (try `--threads 2`).

mod data;
mod digest;
mod matrix;
mod network;
mod optimizer;
mod options;
mod progress;
mod random;
mod training;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nanproof::Isa;

use crate::data::Data;
use crate::digest::digest;
use crate::options::Options;
use crate::progress::Progress;
use crate::training::Trainer;

fn main() -> ExitCode {
    let options = Options::parse();
    match on_threads(options.threads, || train(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn train(options: &Options) -> Result<()> {
    let isa = Isa::active()?;
    let data = Data::load(options.data, options.seed).context("preparing the data")?;
    let mut trainer = Trainer::new(&data, options);
    println!("{data}");
    println!("{trainer}, instruction set {isa}\n");

    let progress = Progress::new(options.epochs());
    for epoch in 1..=options.epochs() {
        let summary = trainer.epoch(&data.train).with_context(|| format!("epoch {epoch}"))?;
        progress.report(epoch, &summary);
    }
    progress.finish();

    let accuracy = 100.0 * trainer.network.accuracy(&data.test).context("testing")?;
    let commonest = 100.0 * data.accuracy_of_commonest_class();
    println!("\ntest accuracy {accuracy:.1} %; always answering the commonest class {commonest:.1} %");
    println!("weights {:016x}", digest(&trainer.network));
    Ok(())
}

/// Runs `f` in a pool of so many threads, or in the usual one.
#[cfg(feature = "rayon")]
fn on_threads(threads: Option<usize>, f: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let Some(threads) = threads else { return f() };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(f)
}

/// Runs `f` on this thread: [`Options`] allow no other without feature `rayon`.
#[cfg(not(feature = "rayon"))]
fn on_threads(_: Option<usize>, f: impl FnOnce() -> Result<()>) -> Result<()> {
    f()
}
