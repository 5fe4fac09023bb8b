//! Random numbers that depend on the seed alone.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// What they are for: one use more or less leaves the numbers of the others as they were.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use {
    Split,
    Weights,
    Batches,
}

pub(crate) fn random(seed: u64, purpose: Use) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose as u64);
    rng
}
