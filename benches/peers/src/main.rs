//! nanproof beside its peers and the limits of the machine, measured in one process. See README.md.

mod blas;
mod data;
mod elementwise;
mod limits;
mod math;
mod matmul;
mod measure;
mod products;
mod report;
mod rows;

use std::env;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use measure::Effort;

#[derive(Parser)]
#[command(about = "nanproof beside its peers and the limits of the machine")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Matrix products.
    Matmul(Options),
    /// Norms, clipping, division and a step of an optimiser, in `f32` on one thread.
    Elementwise(Options),
    /// Softmax and its kin on the rows of matrices, in `f32` on one thread.
    Rows(Options),
    /// Exponentials, logarithms and activations of slices, on one thread.
    Math(Options),
}

impl Job {
    fn options(&self) -> &Options {
        match self {
            Self::Matmul(options) | Self::Elementwise(options) | Self::Rows(options) | Self::Math(options) => options,
        }
    }
}

/// What every job understands.
#[derive(Args)]
struct Options {
    /// Threads that every peer may use.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Print comma-separated values instead of tables.
    #[arg(long)]
    csv: bool,
    /// Take a minute instead of several, at the cost of noise, and leave out the largest cases.
    #[arg(long)]
    quick: bool,
    /// Only the cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

impl Options {
    fn threads(&self) -> usize {
        usize::from(self.threads)
    }

    fn effort(&self) -> Effort {
        Effort::new(self.quick, self.threads())
    }

    fn wants(&self, case: &str) -> bool {
        case.contains(&self.only)
    }
}

fn main() -> Result<ExitCode> {
    let Arguments { job } = Arguments::parse();
    let options = job.options();
    limit_threads_of_peers(options.threads());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads()).build()?;
    let failures = pool.install(|| match &job {
        Job::Matmul(options) => matmul::run(options),
        Job::Elementwise(options) => elementwise::run(options),
        Job::Rows(options) => rows::run(options),
        Job::Math(options) => math::run(options),
    })?;
    // Each has been reported where it was found.
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sets what peers take from the environment alone: the number of threads, and how long idle threads spin. Those of one
/// peer would take the time from the next; what the user has set of this is left alone.
fn limit_threads_of_peers(threads: usize) {
    let threads = threads.to_string();
    for name in ["RAYON_NUM_THREADS", "MATMUL_NUM_THREADS", "OMP_NUM_THREADS"] {
        // SAFETY: no other thread is running yet.
        unsafe { env::set_var(name, &threads) };
    }
    let spins = [
        ("GOMP_SPINCOUNT", "20000"),       // oneDNN
        ("KMP_BLOCKTIME", "1"),            // MKL, in milliseconds
        ("OPENBLAS_THREAD_TIMEOUT", "20"), // in cycles, as a power of two
    ];
    for (name, value) in spins.into_iter().filter(|(name, _)| env::var_os(name).is_none()) {
        // SAFETY: no other thread is running yet.
        unsafe { env::set_var(name, value) };
    }
}
