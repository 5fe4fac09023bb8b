//! The command line.

use clap::Parser;
use clap::builder::{RangedU64ValueParser, TypedValueParser};

use crate::data::Source;
use crate::network::Activation;
use crate::optimizer::Method;

/// Trains a classifier with two hidden layers on real data, with the kernels of nanproof.
///
/// The same options give the same weights to the last bit on every instruction set (the environment variable
/// `NANPROOF_ISA` forces one: baseline, avx2 or avx512) and, with the feature rayon, for any number of threads.
#[derive(Debug, Parser)]
#[command(name = "train")]
pub(crate) struct Options {
    /// What to learn
    #[arg(long, value_enum, default_value_t = Source::Wine)]
    pub(crate) data: Source,

    /// Times to go through the training set
    #[arg(long, value_name = "N", default_value = "60", value_parser = count(1_000_000))]
    epochs: usize,

    /// Samples a step
    #[arg(long, value_name = "N", default_value = "32", value_parser = count(1_000_000))]
    pub(crate) batch: usize,

    /// Widths of the two hidden layers
    #[arg(long, value_name = "A,B", default_value = "128,64", value_parser = widths)]
    pub(crate) hidden: [usize; 2],

    /// The function of the hidden layers
    #[arg(long, value_enum, default_value_t = Activation::Relu)]
    pub(crate) activation: Activation,

    /// How gradients change the weights
    #[arg(long, value_enum, default_value_t = Method::Adamw)]
    pub(crate) optimizer: Method,

    /// The length of a step [default: 0.001 for adamw, 0.02 for sgd]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = not_negative)]
    learning_rate: Option<f32>,

    /// The pull of the weights towards 0
    #[arg(long, value_name = "X", default_value = "0.001", allow_negative_numbers = true, value_parser = not_negative)]
    pub(crate) weight_decay: f32,

    /// The largest norm of all gradients together; inf never clips
    #[arg(long, value_name = "X", default_value = "2", allow_negative_numbers = true, value_parser = limit)]
    pub(crate) clip: f32,

    /// Decides the split, the first weights and the order of the samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Threads to compute on; more than 1 needs the feature rayon [default: all with it, else 1]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,

    /// Five epochs only, to see that it runs
    #[arg(long, conflicts_with = "epochs")]
    quick: bool,
}

impl Options {
    pub(crate) fn epochs(&self) -> usize {
        if self.quick { 5 } else { self.epochs }
    }

    pub(crate) fn learning_rate(&self) -> f32 {
        self.learning_rate.unwrap_or(match self.optimizer {
            Method::Sgd => 0.02,
            Method::Adamw => 0.001,
        })
    }
}

/// A number from 1 to `largest`.
fn count(largest: u64) -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(1..=largest)
}

fn widths(text: &str) -> Result<[usize; 2], String> {
    let widths: Option<Vec<usize>> = text.split(',').map(|width| width.trim().parse().ok()).collect();
    match widths.as_deref() {
        Some(&[a @ 1..=4096, b @ 1..=4096]) => Ok([a, b]),
        _ => Err("must be two numbers from 1 to 4096, as in 128,64".into()),
    }
}

fn limit(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "must be a number")?;
    if number >= 0.0 { Ok(number) } else { Err("must be 0 or more".into()) }
}

fn not_negative(text: &str) -> Result<f32, String> {
    limit(text).and_then(|number| if number.is_finite() { Ok(number) } else { Err("must be finite".into()) })
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(1) => Ok(1),
        Ok(n @ 2..=1024) if cfg!(feature = "rayon") => Ok(n),
        Ok(2..=1024) => Err("needs the feature rayon: cargo run --release --features rayon --example train".into()),
        _ => Err("must be a number from 1 to 1024".into()),
    }
}
