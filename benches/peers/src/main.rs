//! nanproof beside its peers and the limits of the machine, measured in one process. See README.md.

mod blas;
mod data;
mod elementwise;
mod limits;
mod matmul;
mod measure;
mod products;
mod report;

use anyhow::{Result, ensure};
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
}

impl Job {
    fn options(&self) -> &Options {
        match self {
            Self::Matmul(options) | Self::Elementwise(options) => options,
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

fn main() -> Result<()> {
    let Arguments { job } = Arguments::parse();
    let options = job.options();
    limit_threads_of_peers(options.threads());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads()).build()?;
    let failures = pool.install(|| match &job {
        Job::Matmul(options) => matmul::run(options),
        Job::Elementwise(options) => elementwise::run(options),
    })?;
    ensure!(failures == 0, "{failures} wrong results");
    Ok(())
}

/// Peers that take their number of threads from the environment alone, and how long idle threads may spin: they would
/// take the time from the peer that is measured next. What the user has set is left alone.
fn limit_threads_of_peers(threads: usize) {
    let threads = threads.to_string();
    let settings = [
        ("RAYON_NUM_THREADS", &*threads),  // candle
        ("MATMUL_NUM_THREADS", &*threads), // matrixmultiply
        ("OMP_NUM_THREADS", &*threads),    // oneDNN
        ("GOMP_SPINCOUNT", "20000"),
        ("KMP_BLOCKTIME", "1"),            // MKL, in milliseconds
        ("OPENBLAS_THREAD_TIMEOUT", "20"), // in cycles, as a power of two
    ];
    for (name, value) in settings {
        if std::env::var_os(name).is_none() || value == threads {
            // SAFETY: no other thread is running yet.
            unsafe { std::env::set_var(name, value) };
        }
    }
}
